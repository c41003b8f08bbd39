"""Reference numbers of UCE, by snap-stanford/UCE@8ead6e07af0c80f75653598138bb704e865b45c8; see `arrays.py`."""
