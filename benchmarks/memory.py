"""Does memory stay flat while cells stream from a backed file? Prints peak memory at 10,000 and 100,000 cells.

    python benchmarks/memory.py [--genes 2000] [--expressed 150] [--json results.json]

Cells of `--expressed` genes each are written to an .h5ad, opened backed, and embedded by sclcm-mini in a process of its
own. What is counted is the whole process: the result (cells x 64 numbers) and the table of cells that anndata holds
grow with the cells, everything else must not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _setting import machine, peak_memory, save_json, table
from scipy import sparse

CODE = """
import sys
import anndata
import torch
import sclcm
from _setting import own_peak
torch.set_num_threads(2)
sclcm.settings.progress = False
adata = anndata.read_h5ad(sys.argv[1], backed="r")
if sys.argv[2] == "embed":
    sclcm.tl.embed(adata, device="cpu", dtype="float32")
else:
    sclcm.models.load("sclcm-mini", device="cpu")
print(own_peak())
"""


def write_cells(path: Path, n_cells: int, *, n_genes: int, n_expressed: int) -> None:
    """Random counts of genes that the model knows."""
    import sclcm

    genes = sclcm.models.load("sclcm-mini", device="cpu").vocabulary.features[:n_genes]
    rng = np.random.default_rng(0)
    indices = np.sort(rng.integers(0, n_genes, (n_cells, n_expressed)), axis=1).astype(np.int32)
    counts = sparse.csr_matrix(
        (
            rng.integers(1, 10, indices.size).astype(np.float32),
            indices.ravel(),
            np.arange(0, indices.size + 1, n_expressed),
        ),
        (n_cells, n_genes),
    )
    counts.sum_duplicates()
    names = pd.Index([f"cell{i}" for i in range(n_cells)])
    ad.AnnData(counts, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=pd.Index(genes))).write_h5ad(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--expressed", type=int, default=150)
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for n_cells in (10_000, 100_000):
            path = Path(scratch) / f"{n_cells}.h5ad"
            write_cells(path, n_cells, n_genes=given.genes, n_expressed=given.expressed)
            peak = {what: peak_memory(CODE, str(path), what) for what in ("open", "embed")}
            rows.append(
                {
                    "cells": f"{n_cells:,}",
                    "opened, model loaded (MB)": f"{peak['open']:.0f}",
                    "after tl.embed (MB)": f"{peak['embed']:.0f}",
                    "of which the result (MB)": f"{n_cells * 64 * 4 / 2**20:.0f}",
                }
            )
    print(machine())
    print(table(rows))
    save_json(given.json, rows)


if __name__ == "__main__":
    main()
