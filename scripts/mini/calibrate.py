"""Choose the temperature of the prototypes and the bound of abstention, on validation sets alone.

    python scripts/mini/calibrate.py --data FOLDER [--model sclcm-mini]

A label is right if it is the author's Cell Ontology term, a kind of it, or a coarser label above it; a coarser label
that is above several of the set's types is counted apart, since it does not tell them apart. Prints, for each choice,
the share of cells labelled, and of these the share that is right.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from corpus import ancestors, load, read

import sclcm

SETS = ("pbmc4k_soupx", "pdac_moncada_1926")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="sclcm-mini")
    given = parser.parse_args()
    sclcm.settings.progress = False
    model = sclcm.models.load(given.model, device="cpu", dtype="float32")
    print("| set | scale | least score | labelled | right | of these, coarser than the author's |\n|" + " --- |" * 6)
    for name in SETS:
        cells = load(name, given.data, model.vocabulary)
        adata = read(name, given.data)
        kept = cells.labelled() & (cells.ontology_id != "")
        adata, truth = adata[kept].copy(), cells.ontology_id[kept]
        sclcm.tl.embed(adata, model, key_added="e")
        for scale in (20.0, 30.0, 40.0, 60.0):
            for least in (0.4, 0.5, 0.6, 0.7):
                prototypes = dataclasses.replace(model.prototypes, scale=scale)
                _, found, _ = prototypes.assign(adata.obsm["e"], least)
                row = judge(found, truth, given.data)
                print(f"| {name} | {scale:.0f} | {least} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


def judge(found: np.ndarray, truth: np.ndarray, data: Path) -> tuple[float, float, float]:
    """Share labelled; of these, share right; of the right ones, share coarser than the truth."""
    pairs = [(str(a), str(b)) for a, b in zip(found, truth, strict=True) if a]
    same = [own in ancestors(label, data) for label, own in pairs]
    coarser = [label in ancestors(own, data) and label != own for label, own in pairs]
    right = [a or b for a, b in zip(same, coarser, strict=True)]
    return len(pairs) / len(truth), float(np.mean(right)), float(np.sum(coarser) / max(1, np.sum(right)))


if __name__ == "__main__":
    main()
