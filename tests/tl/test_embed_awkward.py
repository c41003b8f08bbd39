"""`tl.embed` on data sets as people really have them: odd names, odd storage, odd arguments, broken weights."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.pp import unify_genes
from sclcm.tl import embed

KEY = "X_geneformer"


def same(adata, model, wanted, **given):
    """Whether the vectors are those of the plain data."""
    return np.allclose(embed(adata, model, copy=True, **given).obsm[KEY], wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture
def wanted(cells, v1):
    return embed(cells, v1, copy=True).obsm[KEY]


@pytest.mark.parametrize("write", [lambda name: f" {name}\t", lambda name: f"{name}\n"])
def test_blanks_around_names_do_not_matter(adata, v1, wanted, write, unchanged):
    adata.var_names = pd.Index([write(name) for name in adata.var_names], dtype=object)
    with unchanged(adata):
        assert same(adata, v1, wanted)


def test_column_that_is_there_twice_is_passed_over_or_named(adata, v1, wanted, unchanged):
    twice = pd.DataFrame({"gene_ids": adata.var_names.to_numpy()}, index=adata.var_names)
    adata.var = pd.concat([twice, twice], axis=1)
    with unchanged(adata):
        assert same(adata, v1, wanted)
        with pytest.raises(ValueError, match="var has 2 columns 'gene_ids'; rename all but one"):
            embed(adata, v1, gene_key="gene_ids")


@pytest.mark.parametrize(
    ("prefixes", "genome"),
    [(("GRCh38_",), "GRCh38_"), (("mm10___", "hg19_"), "hg19_"), (("GRCh38-2024-A__",), "GRCh38-")],
)
def test_genome_before_names_is_told_with_the_way_to_take_it_off(adata, v1, wanted, prefixes, genome, unchanged):
    bare = adata.var_names
    adata.var_names = [f"{prefixes[i % len(prefixes)]}{name}" for i, name in enumerate(bare)]
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=rf"begin with '{genome}.*`adata\.var_names = adata\.var_nam"),
    ):
        embed(adata, v1)
    if len(prefixes) == 1:
        adata.var_names = adata.var_names.str.removeprefix(*prefixes)
        assert same(adata, v1, wanted)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "csr_array"])
def test_numbers_of_the_other_byte_order_are_read(adata, v1, wanted, kind):
    x = getattr(sparse, kind)(adata.X)
    x.data, x.indices, x.indptr = (part.astype(part.dtype.newbyteorder()) for part in (x.data, x.indices, x.indptr))
    assert not x.data.dtype.isnative
    adata.X = x
    embed(adata, v1)
    np.testing.assert_allclose(adata.obsm[KEY], wanted, rtol=1e-5, atol=1e-6)
    assert not adata.X.data.dtype.isnative


def test_dense_numbers_of_the_other_byte_order_are_read(adata, v1, wanted):
    adata.X = adata.X.toarray().astype(np.dtype("f4").newbyteorder())
    assert same(adata, v1, wanted)


@pytest.mark.parametrize("size", [1e300, 1e37])
def test_numbers_too_large_are_refused_without_further_warnings(adata, v1, size, unchanged):
    adata.X = sparse.csr_matrix(adata.X.astype(np.float64) * size)
    with unchanged(adata), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the totals of .X are those of bulk samples")
        with pytest.raises(ValueError, match=r"holds \d+e\+\d+ .*, too large to compute with"):
            embed(adata, v1)


def test_value_that_is_nearly_a_count_is_written_out(adata, v1):
    adata.X = adata.X.astype(np.float64) * 1.0000001
    with pytest.raises(ValueError, match=r"holds \d\.\d*0000\d+ \(cell .*, not a raw count"):
        embed(adata, v1)


def test_bulk_samples_that_are_no_counts_bring_an_error_and_no_warning(adata, v1):
    adata.X = sparse.csr_matrix(adata.X / adata.X.sum(1) * 1e6)
    with pytest.raises(ValueError, match="not a raw count"):
        embed(adata, v1)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"conditions": "human"}, TypeError, "`conditions` is 'human'; expected a dictionary"),
        ({"conditions": ["species"]}, TypeError, r"`conditions` is \['species'\]; expected a dictionary"),
        ({"device": None}, ValueError, "`device` is None; expected 'auto'"),
        ({"device": "meta"}, ValueError, "`device` is 'meta', but this PyTorch finds no such device"),
        ({"gene_key": ["a"]}, ValueError, r"var has no column \['a'\]"),
    ],
)
def test_arguments_of_another_type_are_named(adata, v1, given, kind, message, unchanged):
    with unchanged(adata), pytest.raises(kind, match=message):
        embed(adata, v1, **given)


def test_as_many_cells_are_named_as_there_are(adata, v1):
    adata.X = sparse.csr_matrix(np.where(np.arange(12)[:, None] < 3, 0, adata.X.toarray()))
    with pytest.warns(UserWarning, match=r"^3 of 12 .* knows \('cell0', 'cell1', 'cell2'\); their rows"):
        embed(adata, v1)
    adata.X = sparse.csr_matrix(np.where(np.arange(12)[:, None] < 4, 0, adata.X.toarray()))
    with pytest.warns(UserWarning, match=r"^4 of 12 .* knows \('cell0', 'cell1', 'cell2', \.\.\.\); their"):
        embed(adata, v1)


def test_weights_that_are_no_numbers_are_not_taken_for_short_cells(adata, v1, unchanged):
    lcm = v1.to("cpu", "float32").lcm
    broken = dataclasses.replace(v1, lcm=copy.deepcopy(lcm))
    broken.lcm.state_dict()["backbone.blocks.0.ff.down.weight"][0, 0] = float("nan")
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"not finite, such as in 'backbone\.blocks\.0\.ff\.down\.weight'"),
    ):
        embed(adata, broken)


def test_versions_of_ids_that_authors_do_not_take_off_are_told_with_the_way(adata, v1, wanted, unchanged):
    adata.var_names = [f"{name}.7" for name in adata.var_names]
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"395 are ids with a version.*sclcm\.pp\.unify_genes\(adata\)"),
    ):
        embed(adata, v1)
    assert same(unify_genes(adata), v1, wanted)
