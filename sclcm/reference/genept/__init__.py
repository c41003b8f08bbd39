"""Reference numbers of GenePT."""
