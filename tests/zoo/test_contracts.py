"""What every family promises, tested on its packaged checkpoint and input: a new family needs no new tests."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

import sclcm
from sclcm._settings import settings
from sclcm.encoding.depth import StoredTotal
from sclcm.encoding.normalize import LogNormalizeToMedian
from sclcm.engine.infer import to_tensors
from sclcm.models import convert, describe, load
from sclcm.models._measure import stated
from sclcm.models._pass import open_input
from sclcm.models._verify import _packaged, _run_of, find_fixtures, reference_families
from sclcm.nn.set_configs import MixtureReadout

if TYPE_CHECKING:
    from pathlib import Path

    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._spec import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:.* cells express no gene that:UserWarning")

CLOSE = 1e-6
"""Largest difference of two vectors of one cell, as a share of their length, where shapes of batches differ."""


def _places():
    """Return the family and the folder of each fixture, by a name."""
    found = [(family, folder) for family in reference_families() for folder in find_fixtures(_packaged(family))]
    return {
        "/".join((family, *folder.relative_to(_packaged(family)).parts)): (family, folder) for family, folder in found
    }


PLACES = _places()


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A packaged checkpoint with its input, and the arguments that they need."""

    family: str
    checkpoint: Path
    given: dict[str, Any]
    model: Pretrained
    cells: anndata.AnnData
    batch_key: str | None

    @property
    def recipes(self) -> list[str]:
        """Recipes of the submodel that is loaded."""
        mine = self.model.submodel
        return [name for name, recipe in self.model.recipes.items() if not recipe.submodels or mine in recipe.submodels]

    def input(self, recipe: str = "embed") -> anndata.AnnData:
        """Return a copy of the input in the unit that a recipe reads."""
        adata = self.cells.copy()
        depth = self.reading(recipe).encoding.depth
        if depth is not None and isinstance(depth.total, StoredTotal):
            adata.obs[depth.total.column] = np.asarray(adata.X.sum(1)).ravel()
        if self.reading(recipe).needs == "log1p":
            adata.X = logged(adata.X)
        return adata

    def reading(self, recipe: str) -> Pretrained:
        """Return the model, reading matrices as a recipe does."""
        return self.model.reading(self.model.recipe(recipe))

    def embed(self, adata, recipe: str | Recipe = "embed", *, model=None, **given) -> np.ndarray:
        """Return the vectors of cells."""
        keys = {"recipe": recipe, "batch_key": self.batch_key, "key_added": "found", **given}
        if adata.isbacked:
            sclcm.tl.embed(adata, model or self.model, **keys)
            return adata.obsm["found"]
        return sclcm.tl.embed(adata, model or self.model, copy=True, **keys).obsm["found"]


@functools.cache
def _case(name: str) -> Case:
    family, folder = PLACES[name]
    checkpoint = folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder
    given = stated(family, _run_of(folder))
    model = load(checkpoint, family=family, device="cpu", dtype="float32", **given)
    cells = anndata.read_h5ad(folder / "input.h5ad")
    return Case(
        family=family,
        checkpoint=checkpoint,
        given=given,
        model=model,
        cells=cells,
        batch_key=_batch_key(cells, model),
    )


def _batch_key(cells, model) -> str | None:
    """Put cells into batches where a model asks for them: interleaved, of sizes that differ."""
    n_batches = 3 if model.token_unit == "cell" else model.n_conditions
    if n_batches is None:
        return None
    cells.obs["group"] = np.arange(cells.n_obs) ** 2 % min(n_batches, 3)
    return "group"


@pytest.fixture(params=PLACES)
def case(request):
    return _case(request.param)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Fixtures have few genes, of which a model knows fewer."""
    before = settings.progress, settings.min_genes_matched
    settings.progress, settings.min_genes_matched = False, 20
    yield
    settings.progress, settings.min_genes_matched = before


def logged(x):
    """Return log1p of counts per 10,000."""
    totals = np.maximum(np.asarray(x.sum(1)).ravel(), 1)
    return sparse.csr_matrix(sparse.diags_array(1e4 / totals) @ x).log1p().astype(np.float32)


def difference(found, wanted):
    """Largest difference of rows, as a share of their length."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == np.float32
    size = np.linalg.norm(wanted, axis=1)
    return (np.linalg.norm(found - wanted, axis=1) / np.where(size > 0, size, 1)).max(initial=0)


def cosines_of(found, wanted):
    """Return the cosine of each row with its like; rows of zeros are left out."""
    real = np.linalg.norm(wanted, axis=1) > 0
    a, b = found[real].astype(np.float64), wanted[real].astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# ---- a cell's vector is its own ----


def test_order_of_cells_does_not_matter(case):
    order = np.random.default_rng(0).permutation(case.cells.n_obs)
    for recipe in case.recipes:
        adata = case.input(recipe)
        found = case.embed(adata[order].copy(), recipe)
        assert difference(found, case.embed(adata, recipe)[order]) <= CLOSE, recipe


def test_order_of_cells_does_not_matter_to_a_bit_in_batches_of_one(case):
    if case.model.token_unit == "cell":
        pytest.skip("the sums over a set are in the order of its cells")
    order = np.random.default_rng(0).permutation(case.cells.n_obs)
    for recipe in case.recipes:
        adata = case.input(recipe)
        found = case.embed(adata[order].copy(), recipe, batch_size=1)
        assert np.array_equal(found, case.embed(adata, recipe, batch_size=1)[order]), recipe


def test_size_of_batches_does_not_matter(case):
    for recipe in case.recipes:
        adata = case.input(recipe)
        wanted = case.embed(adata, recipe)
        for size in (1, 3):
            assert difference(case.embed(adata, recipe, batch_size=size), wanted) <= CLOSE, (recipe, size)


def reads_whole_data(case, recipe):
    """Whether a recipe, as declared, scales cells by the median of all of them."""
    steps = case.reading(recipe).encoding.normalize
    return any(isinstance(step, LogNormalizeToMedian) for step in steps)


def test_other_cells_do_not_matter(case):
    groups = np.arange(case.cells.n_obs) if case.batch_key is None else case.cells.obs[case.batch_key].to_numpy()
    if case.model.token_unit == "gene":
        groups = np.arange(case.cells.n_obs)
    for recipe in case.recipes:
        if reads_whole_data(case, recipe):
            continue
        adata = case.input(recipe)
        wanted = case.embed(adata, recipe)
        for rows in (groups == groups[0], groups == groups[-1], np.isin(groups, groups[1:3])):
            assert difference(case.embed(adata[rows].copy(), recipe), wanted[rows]) <= CLOSE, recipe


# ---- what is read ----


def test_order_of_genes_does_not_matter(case):
    order = np.random.default_rng(1).permutation(case.cells.n_vars)
    for recipe in case.recipes:
        if case.reading(recipe).encoding.by_var:
            continue
        adata = case.input(recipe)
        assert difference(case.embed(adata[:, order].copy(), recipe), case.embed(adata, recipe)) <= CLOSE, recipe


def with_zeros(x):
    """Store some zeros of a matrix, and two parts of some entries."""
    some = sparse.random_array(x.shape, density=0.2, rng=np.random.default_rng(0), format="coo")
    both = sparse.coo_matrix(
        (np.concatenate([x.tocoo().data, 0 * some.data]), np.hstack([x.tocoo().coords, some.coords])), shape=x.shape
    )
    indptr = np.concatenate([[0], np.cumsum(np.bincount(both.row, minlength=x.shape[0]))])
    by_row = np.argsort(both.row, kind="stable")
    found = sparse.csr_matrix((both.data[by_row].astype(x.dtype), both.col[by_row], indptr), shape=x.shape)
    assert found.nnz == x.nnz + some.nnz
    return found


LAYOUTS = {
    "dense": lambda x: x.toarray(),
    "csc": sparse.csc_matrix,
    "csr array": sparse.csr_array,
    "float64": lambda x: x.astype(np.float64),
    "with zeros": with_zeros,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_matrix_does_not_matter(case, layout):
    for recipe in case.recipes:
        adata = case.input(recipe)
        wanted = case.embed(adata, recipe)
        adata.X = LAYOUTS[layout](adata.X)
        assert np.array_equal(case.embed(adata, recipe), wanted), recipe


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_matrix.toarray])
def test_file_gives_the_vectors_of_memory(case, layout, tmp_path):
    adata = case.input()
    wanted = case.embed(adata)
    adata.X = layout(adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert np.array_equal(case.embed(backed), wanted)
    backed.file.close()


# ---- saved models ----


def same_model(case, found):
    for name in ("name", "family", "recipes", "gene_recipes", "needs", "pad", "mask", "gene_columns"):
        assert getattr(found, name) == getattr(case.model, name), name
    for recipe in case.recipes:
        adata = case.input(recipe)
        assert np.array_equal(case.embed(adata, recipe, model=found), case.embed(adata, recipe)), recipe
    assert np.array_equal(found.gene_vectors(), case.model.gene_vectors(), equal_nan=True)


def test_saved_model_gives_the_same_bits(case, tmp_path):
    case.model.save(tmp_path / "saved")
    same_model(case, load(tmp_path / "saved", device="cpu"))


def test_converted_model_gives_the_same_bits(case, tmp_path):
    convert(case.checkpoint, tmp_path / "converted", family=case.family, **case.given)
    same_model(case, load(tmp_path / "converted", device="cpu", dtype="float32"))


# ---- calls that fail ----


def test_matrix_that_does_not_hold_what_a_recipe_reads_is_refused(case, unchanged):
    for recipe in case.recipes:
        adata, needs = case.cells.copy(), case.reading(recipe).needs
        if needs == "expression":
            adata.X, message = -adata.X, r"holds -.*cell .*gene "
        elif needs == "counts":
            adata.X, message = logged(adata.X), r"not a raw count.*needs raw counts.*`"
        else:
            message = "holds raw counts.*reads log1p of counts per 10,000.*use "
        with unchanged(adata), pytest.raises(ValueError, match=message):
            sclcm.tl.embed(adata, case.model, recipe=recipe, batch_key=case.batch_key)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("row", [0, -1])
def test_entry_that_is_no_expression_is_refused_by_cell_and_gene(case, unchanged, value, row):
    adata = case.cells.copy()
    x = adata.X.toarray()
    x[row, -1] = value
    adata.X = sparse.csr_matrix(x)
    message = rf"holds {value:g}.*cell '{adata.obs_names[row]}', gene '{adata.var_names[-1]}'"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        sclcm.tl.embed(adata, case.model, batch_key=case.batch_key)


def test_layer_and_recipe_that_are_not_there_are_refused(case, unchanged):
    adata = case.cells.copy()
    adata.obsm["X_pca"] = np.ones((adata.n_obs, 2))
    with unchanged(adata), pytest.raises(KeyError, match="no layer 'absent'"):
        sclcm.tl.embed(adata, case.model, layer="absent", batch_key=case.batch_key)
    with unchanged(adata), pytest.raises(ValueError, match=r"`recipe` is 'absent'; .* has .*'embed'"):
        sclcm.tl.embed(adata, case.model, recipe="absent", batch_key=case.batch_key)


def test_genes_that_the_model_does_not_know_are_refused(case, unchanged):
    adata = case.cells.copy()
    adata.var = adata.var[[]].set_axis([f"nonsense{i}" for i in range(adata.n_vars)])
    message = rf"knows 0 of the {adata.n_vars} genes of the data.*'nonsense0'.*`gene_key`"
    for call in (sclcm.tl.embed, sclcm.tl.embed_genes):
        keys = {"batch_key": case.batch_key} if call is sclcm.tl.embed else {}
        with unchanged(adata), pytest.raises(ValueError, match=message):
            call(adata, case.model, **keys)


# ---- recipes and number types ----


def test_recipes_give_finite_vectors_of_their_width_or_name_what_they_lack(case):
    assert set(case.model.recipes) <= set(describe(case.family)["recipes"])
    for recipe, declared in case.model.recipes.items():
        if recipe in case.recipes:
            adata, model = case.input(recipe), case.model
        else:
            with pytest.raises(ValueError, match=f"`load.*submodel={declared.submodels[0]!r}"):
                sclcm.tl.embed(case.cells, case.model, recipe=recipe, batch_key=case.batch_key)
            where = {"family": case.family, "device": "cpu", "dtype": "float32"}
            model = load(case.checkpoint, submodel=declared.submodels[0], **where, **case.given)
            adata = dataclasses.replace(case, model=model).input(recipe)
        found = case.embed(adata, recipe, model=model)
        assert found.shape == (adata.n_obs, model.width(model.recipe(recipe))), recipe
        assert np.isfinite(found).all(), recipe


def chooses(case, recipe):
    """Whether a recipe, as declared, takes the most probable of some choices, which may be as probable as the next."""
    declared = case.model.recipe(recipe)
    head = case.model.architecture.heads.get(declared.head)
    return declared.decoding is not None or (isinstance(head, MixtureReadout) and head.clusters != "weighted")


def near(case, recipe, found, wanted):
    assert found.dtype == np.float32
    assert np.isfinite(found).all(), recipe
    cosines = cosines_of(found, wanted)
    if chooses(case, recipe):
        cosines = np.sort(cosines)[max(1, len(cosines) // 10) :]
    assert cosines.min() > 0.98, recipe


def test_half_precision_is_near(case):
    for recipe in case.recipes:
        adata = case.input(recipe)
        near(case, recipe, case.embed(adata, recipe, dtype="bfloat16"), case.embed(adata, recipe))


def test_autocast_is_near(case):
    for recipe in case.recipes:
        adata = case.input(recipe)
        wanted = case.embed(adata, recipe)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near(case, recipe, case.embed(adata, recipe), wanted)


def batch_of(case):
    """Return a batch of sentences, on the CPU."""
    data = open_input(case.input(), case.model, batch_key=case.batch_key)
    return to_tensors(next(data.batches(case.model, batch_size=None)), torch.device("cpu"))


def real(x_bld, tokens):
    """Return the vectors of real tokens, shape `(tokens, width)`."""
    return x_bld.flatten(0, 1) if tokens.mask_bl is None else x_bld[tokens.mask_bl]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@torch.inference_mode()
def test_compiled_model_gives_the_same_numbers(case):
    if case.model.token_unit == "cell" or not case.model.lcm.n_blocks:
        pytest.skip("no model of sentences of genes")
    tokens = batch_of(case)
    wanted = real(case.model.lcm(tokens), tokens)
    torch.compiler.reset()
    compiled = torch.compile(case.model.lcm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(real(compiled(tokens), tokens), wanted, rtol=1e-5, atol=1e-5)


# ---- what is written ----


def test_result_is_written_with_its_origin_and_can_be_read_back(case, unchanged, tmp_path):
    adata = case.input()
    with unchanged(adata, but=("obsm", "uns")):
        assert sclcm.tl.embed(adata, case.model, batch_key=case.batch_key) is None
    assert (len(adata.obsm) - len(case.cells.obsm), len(adata.uns) - len(case.cells.uns)) == (1, 1)
    key = next(iter(adata.obsm.keys() - case.cells.obsm.keys()))
    base = next(iter(adata.uns.keys() - case.cells.uns.keys()))
    assert key == f"X_{base}"
    assert isinstance(adata.obsm[key], np.ndarray)
    assert adata.obsm[key].dtype == np.float32
    assert np.array_equal(adata.obsm[key], case.embed(case.input()))
    params = adata.uns[base]["params"]
    assert (params["model"], params["family"]) == (case.model.name, case.family)
    assert (params["checkpoint_sha256"], params["recipe"]) == (case.model.sha256, "embed")
    assert 0 < params["matched_gene_share"] <= 1
    assert 0 < params["matched_count_share"] <= 1
    assert {"sclcm_version", "torch_version"} <= params.keys()
    assert all(isinstance(value, str | bool | int | float | dict) for value in params.values())
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(found.obsm[key], adata.obsm[key])
    assert found.uns[base]["params"] == params
