"""Reference numbers of tGPT."""
