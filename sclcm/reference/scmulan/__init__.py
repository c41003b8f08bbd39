"""Reference numbers of scMulan."""
