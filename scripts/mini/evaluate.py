"""How good is sclcm-mini on data it has not seen, beside what needs no model? Prints one table.

    python scripts/mini/evaluate.py --data FOLDER [--sets validation|test] [--model sclcm-mini] [--json FILE]

Each set: cells of types with at least 10 cells, at most 1,500 of them. kNN: macro-F1 of 15 nearest neighbours (cosine),
5-fold cross-validation on the frozen embedding; silhouette of the types (cosine). Beside it: the same model with random
weights; 50 principal components of log1p counts per 10,000 over the set's own 2,000 most variable genes (scanpy's
defaults); and the frozen z-score baseline, which has no network: log1p counts per 10,000, minus the mean over the
training corpus, over the square root of its variance + 0.3^2, clipped at 6.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from corpus import TEST, VALIDATION, load, log_values, read
from scipy import sparse
from simulate import read_corpus, statistics
from sklearn.metrics import f1_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import sclcm
from sclcm.nn.lcm import LCM

if TYPE_CHECKING:
    from sclcm.models import Pretrained

MOST = 1_500
ODD = "gut_crohn_kong_1020"
"""Its cells look chosen by depth; means are given with and without it."""


def scores(vectors: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Macro-F1 of kNN, and silhouette."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    knn = KNeighborsClassifier(15, metric="cosine", algorithm="brute")
    found = cross_val_predict(knn, vectors, labels, cv=folds)
    return f1_score(labels, found, average="macro"), silhouette_score(vectors, labels, metric="cosine")


def principal_components(adata: ad.AnnData) -> np.ndarray:
    """50 components, scanpy's defaults."""
    adata = ad.AnnData(log_values(sparse.csr_matrix(adata.X), adata.obs["n_counts"].to_numpy(dtype=float)))
    if adata.n_vars > 2_000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2_000)
    sc.pp.pca(adata, n_comps=50)
    return adata.obsm["X_pca"]


def random_weights(model: Pretrained) -> Pretrained:
    """The same model before training."""
    torch.manual_seed(0)
    return dataclasses.replace(model, name="random", lcm=LCM(model.architecture).eval())


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", choices=["validation", "test"], default="validation")
    parser.add_argument("--model", default="sclcm-mini")
    parser.add_argument("--json")
    given = parser.parse_args()
    sclcm.settings.progress = False
    model = sclcm.models.load(given.model, device="cpu", dtype="float32")
    blank = random_weights(model)
    mean, variance = statistics(read_corpus(given.data, model.vocabulary))
    rows = []
    for name in VALIDATION if given.sets == "validation" else TEST:
        cells = load(name, given.data, model.vocabulary)
        adata = read(name, given.data, {**VALIDATION, **TEST}[name])
        kept = np.flatnonzero(cells.labelled())
        if len(kept) > MOST:
            kept = np.sort(np.random.default_rng(0).choice(kept, MOST, replace=False))
        labels, adata = cells.label[kept], adata[kept].copy()
        values = log_values(cells.chunk.counts[kept], cells.totals[kept])[:, cells.measured].toarray()
        frozen = (values - mean[cells.measured]) / np.sqrt(variance[cells.measured] + 0.3**2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for pretrained in (model, blank):
                sclcm.tl.embed(adata, pretrained, key_added=pretrained.name)
            found = {
                model.name: scores(adata.obsm[model.name], labels),
                "random weights": scores(adata.obsm["random"], labels),
                "50 PCs": scores(principal_components(adata), labels),
                "frozen z-scores": scores(np.minimum(frozen, 6), labels),
            }
        rows.append({"set": name, "cells": len(kept), "types": len(set(labels)), **found})
        print(f"{name} done", flush=True)
    report(rows, given.json)


def report(rows: list[dict[str, object]], path: str | None) -> None:
    """Print the table, with means, and keep the numbers."""
    ways = [key for key in rows[0] if key not in ("set", "cells", "types")]
    print("| set | cells | types | " + " | ".join(ways) + " |\n|" + " --- |" * (3 + len(ways)))
    for row in rows:
        numbers = " | ".join(f"{row[way][0]:.3f} / {row[way][1]:.3f}" for way in ways)
        print(f"| {row['set']} | {row['cells']} | {row['types']} | {numbers} |")
    for title, kept in (("mean", rows), (f"mean without {ODD}", [row for row in rows if row["set"] != ODD])):
        means = [np.mean([row[way] for row in kept], axis=0) for way in ways]
        print(f"| {title} | | | " + " | ".join(f"{f1:.3f} / {silhouette:.3f}" for f1, silhouette in means) + " |")
    if path is not None:
        Path(path).write_text(json.dumps(rows, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
