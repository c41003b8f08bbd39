"""Reference numbers of Nicheformer."""
