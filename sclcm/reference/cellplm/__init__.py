"""Reference numbers of CellPLM, from OmicsML/CellPLM@b59ee768 (its wheel 0.1.0.post2 has the same files)."""
