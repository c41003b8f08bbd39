"""Reference numbers of scTranslator."""
