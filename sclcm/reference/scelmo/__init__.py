"""Reference numbers of scELMo."""
