"""Reference numbers of Geneformer."""
