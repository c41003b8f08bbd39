"""Reference numbers of CellFM: of biomed-AI/CellFM@76557975 under MindSpore 2.10.0, and of its port to PyTorch.

The port is biomed-AI/CellFM-torch@b6c3673d under torch 2.13.0. On a CPU in float32, with numpy 1.26.4, scipy below 1.14
and scanpy 1.10.4.
"""

from __future__ import annotations
