"""Several columns of one gene, of which the first counts."""

from __future__ import annotations

import numpy as np
import pytest

from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["CD3E", "CD8A", "CD3E"], [0, 1]),
        (["cd3e", "CD8A", "CD3E"], [1, 2]),  # the gene's own name comes before another spelling
        (["cd3e", "Cd3e", "nothing"], [0]),
        (["nothing", "CD8A", "CD8A", "CD8A"], [1]),
    ],
)
def test_the_first_column_of_a_gene_counts(names, kept):
    vocabulary = GeneVocabulary(features=["CD8A", "CD3E"], token_ids=range(2), specials={}, ids="symbol", merge="first")
    alignment = align_genes(names, vocabulary, species="human")
    assert alignment.var_index.tolist() == kept
    assert alignment.is_one_to_one
    assert alignment.report.n_matched == len(kept)
    assert GeneVocabulary.from_json(vocabulary.to_json()).merge == "first"
    assert np.array_equal(alignment.matrix().sum(0) > 1, np.zeros((1, 2), dtype=bool))
