"""Sentences in the order of var, of every gene that the data has, filled up to a fixed length."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.data.matrix import choose_matrix
from sclcm.data.stream import ChunkReader
from sclcm.encoding.batches import iter_batches
from sclcm.encoding.expand import StoreAll
from sclcm.encoding.normalize import MinMax
from sclcm.encoding.select import InVarOrder
from sclcm.encoding.sentences import Encoding, encode
from sclcm.encoding.values import Normalized
from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary

VOCABULARY = GeneVocabulary(
    features=["A1", "B2", "C3"], token_ids=[3, 5, 8], specials={"<pad>": 0}, ids="symbol", synonyms={"b": ("B2",)},
    merge="keep",
)  # fmt: skip
NAMES = ["C3", "nothing", "b", "A1", "B2"]


def encoding(longest):
    return Encoding(
        expand=StoreAll(), normalize=(MinMax(lowest=1e-8),), select=InVarOrder(), value=Normalized(),
        max_tokens=longest, fills=True,
    )  # fmt: skip


def sentences_of(counts, longest=6, names=NAMES):
    adata = anndata.AnnData(sparse.csr_matrix(np.array(counts, dtype=np.float32)), var=pd.DataFrame(index=names))
    alignment = align_genes(names, VOCABULARY)
    reader = ChunkReader(choose_matrix(adata), alignment, adata.obs, chunk_size=9, check="any", by_var=True)
    chunk = next(map(reader.make, reader.blocks()))
    return encode(chunk, encoding(longest), vocabulary=VOCABULARY, arrays={})


def test_columns_of_one_gene_are_tokens_of_their_own_in_the_order_of_var():
    found = sentences_of([[0, 9, 2, 4, 1], [3, 9, 0, 0, 1]])
    assert found.token_ids.tolist() == [8, 5, 3, 5] * 2
    assert found.features.tolist() == [2, 1, 0, 1] * 2
    np.testing.assert_allclose(found.values["value"], [0, 0.5, 1, 0.25, 1, 0, 0, 1 / 3], atol=1e-7)


def test_another_order_of_var_is_another_sentence():
    found = sentences_of([[1, 4, 2, 9, 0]], names=NAMES[::-1])
    assert found.token_ids.tolist() == [5, 3, 5, 8]


def test_the_first_genes_are_kept_and_scaled_with_the_others():
    found = sentences_of([[1, 9, 2, 4, 0]], longest=2)
    assert found.token_ids.tolist() == [8, 5]
    np.testing.assert_allclose(found.values["value"], [0.25, 0.5], atol=1e-7)


@pytest.mark.parametrize("counts", [[0, 9, 0, 0, 0], [2, 0, 2, 2, 2]])
def test_a_cell_whose_values_are_all_equal_has_no_scale(counts):
    assert np.isnan(sentences_of([counts, [1, 0, 2, 3, 4]]).values["value"]).tolist() == [True] * 4 + [False] * 4


def test_rectangles_have_one_width_and_padding_is_masked():
    (batch,) = iter_batches(sentences_of([[1, 9, 2, 4, 0]] * 3), pad=0, max_tokens=99, step=6, max_width=6)
    assert batch.token_ids.tolist() == [[8, 5, 3, 5, 0, 0]] * 3
    assert batch.mask.tolist() == [[True] * 4 + [False] * 2] * 3
    assert (batch.values["value"][:, 4:] == 0).all()
    sizes = [
        b.n_cells for b in iter_batches(sentences_of([[1, 9, 2, 4, 0]] * 3), pad=0, max_tokens=12, step=6, max_width=6)
    ]
    assert sizes == [2, 1]
