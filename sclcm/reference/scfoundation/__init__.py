"""A tiny random scFoundation and what the authors' own scripts made of it: biomap-research/scFoundation@d09626a5."""
