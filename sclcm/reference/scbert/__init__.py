"""Reference numbers of scBERT."""
