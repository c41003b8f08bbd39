"""Reference numbers: outputs of the authors' own code, and the probes that compute ours."""

from __future__ import annotations
