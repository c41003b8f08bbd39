"""Published families, one declarative file each; found by their file names."""

from __future__ import annotations
