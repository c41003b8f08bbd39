"""Reference numbers of scGPT."""
