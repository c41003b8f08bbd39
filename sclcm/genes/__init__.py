"""What a model calls a gene: vocabularies, name resolution, alignment of var to a vocabulary."""
