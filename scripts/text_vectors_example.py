"""Embed real cells by texts about their genes: RefSeq's summaries, counted words in place of a language model.

    python scripts/text_vectors_example.py summaries.tsv.gz [--label bulk_labels]

The table has the columns `symbol` and `summary`; RefSeq's summaries are in the public domain. The encoder is latent
semantic analysis (TF-IDF of words, then 100 components), which needs no download; any other function from texts to
vectors takes its place. Cells are the 700 of `sclcm.datasets.pbmc68k_reduced`. Printed is how often the ten nearest
cells, by cosine, agree with a cell's own published label, beside the same with vectors dealt out to other genes and
with the logarithms of all genes: the texts have to beat the first to say anything.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pandas as pd
import scanpy as sc
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

import sclcm

if TYPE_CHECKING:
    import numpy as np

N_COMPONENTS, N_NEIGHBORS = 100, 10


def agreement(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Share of the nearest other cells that have the label of the cell, a mean over cells."""
    found = NearestNeighbors(n_neighbors=N_NEIGHBORS + 1, metric="cosine").fit(vectors)
    near = found.kneighbors(vectors, return_distance=False)[:, 1:]
    return float((labels[near] == labels[:, None]).mean())


def main() -> None:
    """Make vectors of the texts, embed the cells, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summaries", help="table with the columns symbol and summary, separated by tabs")
    parser.add_argument("--label", default="bulk_labels", help="column of obs")
    given = parser.parse_args()
    table = pd.read_csv(given.summaries, sep="\t").dropna(subset=["symbol", "summary"]).drop_duplicates("symbol")
    summaries = table.set_index("symbol")["summary"]

    words = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=3)
    analysis = TruncatedSVD(N_COMPONENTS, random_state=0).fit(words.fit_transform(summaries))
    vectors = sclcm.genes.vectors_from_text(summaries, lambda texts: analysis.transform(words.transform(texts)))
    dealt = vectors.sample(frac=1, random_state=0).set_axis(vectors.index)

    adata = sclcm.datasets.pbmc68k_reduced()
    labels = adata.obs[given.label].astype(str).to_numpy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    print(
        f"{len(summaries):,} summaries; {adata.var_names.isin(summaries.index).sum()} of {adata.n_vars} genes have one"
    )
    print("| vectors of genes | ten nearest cells with the same label |\n| --- | --- |")
    for name, each in (("summaries", vectors), ("dealt", dealt)):
        sclcm.tl.embed(adata, sclcm.models.from_gene_vectors(each, name=name))
        print(f"| {name} | {agreement(adata.obsm[f'X_{name}'], labels):.1%} |")
    print(f"| none: logarithms of all genes | {agreement(adata.X.toarray(), labels):.1%} |")


if __name__ == "__main__":
    main()
