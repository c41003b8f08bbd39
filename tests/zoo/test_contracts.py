"""What every family promises, tested on its packaged checkpoint and input: a new family needs no new tests."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclcm
from sclcm._settings import settings
from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.keymap import KeyMapError
from sclcm.encoding.depth import StoredTotal
from sclcm.encoding.normalize import LogNormalizeToMedian
from sclcm.engine.infer import to_tensors
from sclcm.models import convert, describe, load
from sclcm.models._measure import stated
from sclcm.models._pass import open_input
from sclcm.models._verify import _packaged, _run_of, find_fixtures, reference_families
from sclcm.nn.set_configs import MixtureReadout
from sclcm.zoo._recipes import GeneRecipe
from sclcm.zoo._registry import get_spec
from sclcm.zoo._submodels import InSubmodels

if TYPE_CHECKING:
    from pathlib import Path

    from sclcm.models._pretrained import Pretrained

pytestmark = pytest.mark.filterwarnings("ignore:.* cells express no gene that:UserWarning")

CLOSE = 1e-6
"""Largest difference of two vectors of one cell, as a share of their length, where shapes of batches differ."""

UNREAD = {
    "scgpt/checkpoint_perturb": "models fine-tuned on perturbations hold a decoder of values that has no rules yet"
}
"""Fine-tuned models of fixtures that cannot be loaded, and why."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model of a fixture: its family, its fixture, its folder, its submodel, where its file has several."""

    family: str
    fixture: Path
    folder: Path
    submodel: str | None = None

    @property
    def main(self) -> Path:
        """The pre-trained checkpoint, which has the dictionaries; tables lie beside the input."""
        return self.fixture / "checkpoint" if (self.fixture / "checkpoint").is_dir() else self.fixture

    @property
    def given(self) -> dict[str, Any]:
        """What the files do not say."""
        asked = {} if self.submodel is None else {"submodel": self.submodel}
        return {**stated(self.family, _run_of(self.fixture)), "vocabulary": self.main, **asked}

    def load(self) -> Pretrained:
        return load(self.folder, family=self.family, device="cpu", dtype="float32", **self.given)


def _places():
    """Return all models of all fixtures, by a name: pre-trained ones, their submodels and fine-tuned ones."""
    found = {}
    for family in reference_families():
        spec = get_spec(family)
        for fixture in find_fixtures(_packaged(family)):
            name = "/".join((family, *fixture.relative_to(_packaged(family)).parts))
            first = Place(family=family, fixture=fixture, folder=fixture)
            found[name] = first = dataclasses.replace(first, folder=first.main)
            if isinstance(spec.config, InSubmodels):
                more = spec.config.names[1:]
                found |= {f"{name}:{submodel}": dataclasses.replace(first, submodel=submodel) for submodel in more}
            weights = [find_one(first.main, spec.weights)]
            for folder in sorted(folder for folder in fixture.rglob("*") if folder.is_dir()):
                if _holds_others(folder, spec, weights):
                    found[f"{name}/{folder.name}"] = dataclasses.replace(first, folder=folder)
    return found


def _holds_others(folder, spec, known) -> bool:
    """Whether a folder holds weights that are not known yet; they are afterwards."""
    try:
        weights = find_one(folder, spec.weights)
    except (FileNotFoundError, ValueError):
        return False
    is_new = weights not in known
    known.append(weights)
    return is_new


PLACES = _places()


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A packaged model with its input, and the arguments that they need."""

    place: Place
    model: Pretrained
    cells: anndata.AnnData
    batch_key: str | None

    @property
    def family(self) -> str:
        return self.place.family

    @property
    def recipes(self) -> list[str]:
        """Recipes of the submodel that is loaded."""
        mine = self.model.submodel
        return [name for name, recipe in self.model.recipes.items() if not recipe.submodels or mine in recipe.submodels]

    @property
    def default(self) -> str:
        """The first recipe of the submodel that is loaded."""
        return self.recipes[0]

    @property
    def readings(self) -> list[str]:
        """Recipes that read matrices each in another way."""
        ways = {}
        for name in self.recipes:
            reading = self.reading(name)
            ways.setdefault((repr(reading.encoding), reading.needs), name)
        return list(ways.values())

    def reading(self, recipe: str | GeneRecipe | None) -> Pretrained:
        """Return the model, reading matrices as a recipe does."""
        if recipe is None:
            return self.reading(self.default) if self.recipes else self.model
        return self.model.reading(recipe if isinstance(recipe, GeneRecipe) else self.model.recipe(recipe))

    def input(self, recipe: str | GeneRecipe | None = None, cells: anndata.AnnData | None = None) -> anndata.AnnData:
        """Return a copy of the input, or of other cells, in the unit that a recipe reads, with the columns it reads."""
        adata = (self.cells if cells is None else cells).copy()
        reading = self.reading(recipe)
        depth = reading.encoding.depth
        if depth is not None and isinstance(depth.total, StoredTotal):
            adata.obs[depth.total.column] = np.asarray(adata.X.sum(1)).ravel()
        if reading.needs == "log1p":
            adata.X = logged(adata.X)
        return adata

    def embed(self, adata, recipe: str | None = None, *, model=None, **given) -> np.ndarray:
        """Return the vectors of cells."""
        keys = {"recipe": recipe or self.default, "batch_key": self.batch_key, "key_added": "found", **given}
        if adata.isbacked:
            sclcm.tl.embed(adata, model or self.model, **keys)
            return adata.obsm["found"]
        return sclcm.tl.embed(adata, model or self.model, copy=True, **keys).obsm["found"]

    def wanted(self, recipe: str | None = None) -> np.ndarray:
        """Return the vectors of the input."""
        return _wanted(self, recipe or self.default)


@functools.cache
def _case(name: str) -> Case:
    place = PLACES[name]
    model = place.load()
    cells = anndata.read_h5ad(place.fixture / "input.h5ad")
    return Case(place=place, model=model, cells=cells, batch_key=_batch_key(cells, model))


@functools.cache
def _wanted(case: Case, recipe: str) -> np.ndarray:
    found = case.embed(case.input(recipe), recipe)
    found.setflags(write=False)
    return found


def _batch_key(cells, model) -> str | None:
    """Put cells into batches where a model asks for them: interleaved, of sizes that differ."""
    n_batches = 3 if model.token_unit == "cell" else model.n_conditions
    if n_batches is None:
        return None
    cells.obs["group"] = np.arange(cells.n_obs) ** 2 % min(n_batches, 3)
    return "group"


def _embeds(place) -> bool:
    """Whether any recipe for cells is for the submodel, of a family that has some."""
    declared = get_spec(place.family).recipes.values()
    return place.submodel is None or any(place.submodel in recipe.submodels for recipe in declared)


READ = [name for name in PLACES if name not in UNREAD]


@pytest.fixture(params=[name for name in READ if _embeds(PLACES[name])])
def case(request):
    return _case(request.param)


@pytest.fixture(params=READ)
def gene_case(request):
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


@pytest.mark.parametrize("name", UNREAD)
def test_model_that_is_not_read_yet(name, request):
    request.applymarker(pytest.mark.xfail(strict=True, reason=UNREAD[name], raises=KeyMapError))
    PLACES[name].load()


# ---- a cell's vector is its own ----


def test_order_of_cells_does_not_matter(case):
    order = np.random.default_rng(0).permutation(case.cells.n_obs)
    for recipe in case.recipes:
        found = case.embed(case.input(recipe)[order].copy(), recipe)
        assert difference(found, case.wanted(recipe)[order]) <= CLOSE, recipe


def test_size_of_batches_does_not_matter(case):
    for recipe in case.recipes:
        for size in (1, 3):
            found = case.embed(case.input(recipe), recipe, batch_size=size)
            assert difference(found, case.wanted(recipe)) <= CLOSE, (recipe, size)


def test_order_of_cells_does_not_matter_to_a_bit_in_batches_of_one(case):
    if case.model.token_unit == "cell":
        pytest.skip("the sums over a set are in the order of its cells")
    order = np.random.default_rng(0).permutation(case.cells.n_obs)
    for recipe in case.recipes:
        adata = case.input(recipe)
        found = case.embed(adata[order].copy(), recipe, batch_size=1)
        assert np.array_equal(found, case.embed(adata, recipe, batch_size=1)[order]), recipe


def reads_whole_data(case, recipe):
    """Whether a recipe, as declared, scales cells by the median of all of them."""
    steps = case.reading(recipe).encoding.normalize
    return any(isinstance(step, LogNormalizeToMedian) for step in steps)


def test_cells_outside_the_set_do_not_matter(case):
    """Where tokens are genes, a cell is a set of its own."""
    sets = np.arange(case.cells.n_obs)
    if case.model.token_unit == "cell":
        sets = case.cells.obs[case.batch_key].to_numpy()
    for recipe in case.recipes:
        if reads_whole_data(case, recipe):
            continue
        adata, wanted = case.input(recipe), case.wanted(recipe)
        for rows in (sets == sets[0], sets == sets[-1], np.isin(sets, sets[1:4])):
            assert difference(case.embed(adata[rows].copy(), recipe), wanted[rows]) <= CLOSE, recipe


def odd_cells(case):
    """Return cells of one known gene, of none, and of all genes, few and many counts, beside one of the input."""
    known = np.flatnonzero(np.isfinite(genes_of(case)[0][1]).all(1))
    x = np.zeros((5, case.cells.n_vars), dtype=np.float32)
    x[0] = case.cells.X[[0]].toarray()
    x[1, known[-1]] = 1
    x[3:] = np.arange(case.cells.n_vars) % 3 + 1
    x[4, known[0]] = 3000
    obs = case.cells.obs.iloc[[0] * 5].set_axis([f"odd{i}" for i in range(5)])
    if case.model.token_unit == "cell":
        obs[case.batch_key] = np.arange(5)
    return anndata.AnnData(sparse.csr_matrix(x), obs=obs, var=case.cells.var)


@pytest.mark.filterwarnings("ignore:.* cells have too few tokens:UserWarning", "ignore:.* bulk samples:UserWarning")
def test_odd_cells_are_like_others(case):
    is_cell = case.model.token_unit == "cell"
    for recipe in case.recipes:
        adata = case.input(recipe, odd_cells(case))
        found = case.embed(adata, recipe)
        assert np.isfinite(found[[0, 2, 3, 4]]).all(), recipe
        assert is_cell or not found[2].any(), recipe
        if reads_whole_data(case, recipe):
            continue
        alone = np.concatenate([case.embed(adata[[row]].copy(), recipe) for row in range(5)])
        assert np.array_equal(np.isnan(found), np.isnan(alone)), recipe
        # A cell that is a set of its own is all that the norms of such a model see, and rounding is what they enlarge.
        bound = 2 * CLOSE if is_cell else CLOSE
        assert difference(np.nan_to_num(found), np.nan_to_num(alone)) <= bound, recipe
        assert is_cell or difference(found[:1], case.wanted(recipe)[:1]) <= bound, recipe


# ---- what is read ----


def test_order_of_genes_does_not_matter(case):
    order = np.random.default_rng(1).permutation(case.cells.n_vars)
    for recipe in case.readings:
        if case.reading(recipe).encoding.by_var:
            continue
        found = case.embed(case.input(recipe)[:, order].copy(), recipe)
        assert difference(found, case.wanted(recipe)) <= CLOSE, recipe


def with_zeros(x):
    """Store some zeros of a matrix beside its entries, in no order."""
    some = sparse.random_array(x.shape, density=0.2, rng=np.random.default_rng(0), format="coo")
    both = np.hstack([x.tocoo().coords, some.coords])
    data = np.concatenate([x.tocoo().data, 0 * some.data]).astype(x.dtype)
    by_row = np.argsort(both[0], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(both[0], minlength=x.shape[0]))])
    found = sparse.csr_matrix((data[by_row], both[1][by_row], indptr), shape=x.shape)
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
    for recipe in case.readings:
        adata = case.input(recipe)
        adata.X = LAYOUTS[layout](adata.X)
        assert np.array_equal(case.embed(adata, recipe), case.wanted(recipe)), recipe


def test_columns_of_one_gene_are_summed_where_the_model_does_so(case):
    vocabulary = case.model.vocabulary
    if (vocabulary.universe or vocabulary).merge != "sum" or case.reading(case.default).encoding.by_var:
        pytest.skip("columns of one gene are not summed, or have places of their own")
    adata = case.input()
    key = sclcm.tl.embed(adata, case.model, recipe=case.default, batch_key=case.batch_key, key_added="k", copy=True)
    key = key.uns["k"]["params"]["gene_key"]
    names = np.asarray(adata.var_names if key == "var_names" else adata.var[key])
    half = sparse.csr_matrix(adata.X) / 2
    half = half.floor() if case.model.needs == "counts" else half
    var = pd.DataFrame({"mine": np.tile(names, 2)}, index=[f"g{i}" for i in range(2 * len(names))])
    both = anndata.AnnData(sparse.hstack([half, adata.X - half], format="csr"), obs=adata.obs, var=var)
    assert np.array_equal(case.embed(both, gene_key="mine"), case.wanted())


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_matrix.toarray])
def test_file_gives_the_vectors_of_memory(case, layout, tmp_path):
    adata = case.input()
    adata.X = layout(adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert np.array_equal(case.embed(backed), case.wanted())
    backed.file.close()


def test_layer_and_raw_and_names_in_a_column_are_read_like_x(case):
    adata = case.input()
    adata.layers["here"], adata.raw = adata.X.copy(), adata.copy()
    adata.X = np.full(adata.shape, 0.5, dtype=np.float32)
    assert np.array_equal(case.embed(adata, layer="here"), case.wanted())
    assert np.array_equal(case.embed(adata[:, :5].copy(), use_raw=True), case.wanted())
    adata = case.input()
    key = sclcm.tl.embed(adata, case.model, recipe=case.default, batch_key=case.batch_key, key_added="k", copy=True)
    key = key.uns["k"]["params"]["gene_key"]
    names = adata.var_names if key == "var_names" else adata.var[key]
    adata.var = pd.DataFrame({"mine": np.asarray(names)}, index=[f"g{i}" for i in range(adata.n_vars)])
    assert np.array_equal(case.embed(adata, gene_key="mine"), case.wanted())


# ---- saved models ----


def same_model(case, found):
    for name in ("name", "family", "submodel", "recipes", "gene_recipes", "needs", "pad", "mask", "gene_columns"):
        assert getattr(found, name) == getattr(case.model, name), name
    for recipe in case.recipes:
        assert np.array_equal(case.embed(case.input(recipe), recipe, model=found), case.wanted(recipe)), recipe
    assert np.array_equal(found.gene_vectors(), case.model.gene_vectors(), equal_nan=True)


def test_saved_model_gives_the_same_bits(case, tmp_path):
    case.model.save(tmp_path / "saved")
    same_model(case, load(tmp_path / "saved", device="cpu"))


def test_converted_model_gives_the_same_bits(case, tmp_path):
    convert(case.place.folder, tmp_path / "converted", family=case.family, **case.place.given)
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
        sclcm.tl.embed(adata, case.model, recipe=case.default, batch_key=case.batch_key)


def test_layer_and_recipe_that_are_not_there_are_refused(case, unchanged):
    adata = case.cells.copy()
    adata.obsm["X_pca"] = np.ones((adata.n_obs, 2))
    with unchanged(adata), pytest.raises(KeyError, match="no layer 'absent'"):
        sclcm.tl.embed(adata, case.model, layer="absent", recipe=case.default, batch_key=case.batch_key)
    with unchanged(adata), pytest.raises(ValueError, match=r"`recipe` is 'absent'; .* has .*'embed'"):
        sclcm.tl.embed(adata, case.model, recipe="absent", batch_key=case.batch_key)


def test_genes_that_the_model_does_not_know_are_refused(case, unchanged):
    adata = case.cells.copy()
    adata.var = adata.var[[]].set_axis([f"nonsense{i}" for i in range(adata.n_vars)])
    message = rf"knows 0 of the {adata.n_vars} genes of the data.*'nonsense0'.*`gene_key`"
    for call in (sclcm.tl.embed, sclcm.tl.embed_genes):
        keys = {"recipe": case.default, "batch_key": case.batch_key} if call is sclcm.tl.embed else {}
        with unchanged(adata), pytest.raises(ValueError, match=message):
            call(adata, case.model, **keys)


# ---- vectors of genes ----

HOW = ("vocabulary", "fixed", "contextual", "measured", "by_place", "decoder")


def ways(case):
    """Return how genes may be embedded; models say themselves what they cannot do."""
    mine = case.model.submodel
    recipes = [each for each in case.model.gene_recipes.values() if each.head is None]
    of_decoder = [recipe for recipe in recipes if not recipe.submodels or mine in recipe.submodels]
    return [*((how, None) for how in HOW[:-1]), *(("decoder", recipe) for recipe in of_decoder or [None])]


def embed_genes(case, adata, way, **given):
    """Return the vectors of genes, or `None` where a model says that it has none."""
    how, recipe = way
    asked = {} if recipe is None else {"recipe": recipe}
    batch = {} if how in ("vocabulary", "fixed") else {"batch_key": case.batch_key}
    keys = {"model": case.model, "how": how, "key_added": "found", "copy": True, **asked, **batch, **given}
    try:
        return sclcm.tl.embed_genes(adata, **keys).varm["found"]
    except ValueError as error:
        if f"{case.model.name!r}" not in str(error) and "`load(..., submodel=" not in str(error):
            raise
        return None


@functools.cache
def genes_of(case):
    """Return the ways in which genes of the input have vectors, with those."""
    found = [(way, embed_genes(case, case.input(way[1]), way)) for way in ways(case)]
    return [(way, vectors) for way, vectors in found if vectors is not None]


def gene_difference(found, wanted):
    """Largest difference of vectors of genes, as a share of their length; the same genes have none."""
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    return difference(np.nan_to_num(found), np.nan_to_num(wanted))


def test_genes_have_finite_vectors_or_none(gene_case):
    assert "vocabulary" in [how for (how, _), _ in genes_of(gene_case)]
    for way, vectors in genes_of(gene_case):
        assert vectors.dtype == np.float32
        assert len(vectors) == gene_case.cells.n_vars
        known = np.isfinite(vectors).all(1)
        assert 0 < known.sum() < len(known), way
        assert np.isnan(vectors[~known]).all(), way


def test_neither_order_nor_size_of_batches_matters_to_genes(gene_case):
    rng = np.random.default_rng(2)
    genes, cells = rng.permutation(gene_case.cells.n_vars), rng.permutation(gene_case.cells.n_obs)
    for way, wanted in genes_of(gene_case):
        adata = gene_case.input(way[1])
        if way[0] not in ("vocabulary", "fixed"):  # which read no cells
            found = embed_genes(gene_case, adata, way, batch_size=3)
            assert gene_difference(found, wanted) <= CLOSE, way
        if way[0] not in ("vocabulary", "fixed", "by_place"):  # the last goes by the first cell
            assert gene_difference(embed_genes(gene_case, adata[cells].copy(), way), wanted) <= CLOSE, way
        if not gene_case.reading(way[1]).encoding.by_var:
            assert gene_difference(embed_genes(gene_case, adata[:, genes].copy(), way), wanted[genes]) <= CLOSE, way


def test_saved_model_gives_genes_the_same_bits(gene_case, tmp_path):
    gene_case.model.save(tmp_path / "saved")
    saved = load(tmp_path / "saved", device="cpu")
    for way, wanted in genes_of(gene_case):
        found = embed_genes(gene_case, gene_case.input(way[1]), way, model=saved)
        assert np.array_equal(found, wanted, equal_nan=True), way


def test_way_that_a_model_does_not_have_is_refused(gene_case, unchanged):
    has = [way for way, _ in genes_of(gene_case)]
    for way in ways(gene_case):
        if way not in has:
            adata = gene_case.input(way[1])
            with unchanged(adata):
                assert embed_genes(gene_case, adata, way, copy=False) is None


# ---- other tasks ----


def numbers_of_tasks(case, adata, **given):
    """Return what a model says of cells besides their vectors, by task; models say themselves what they cannot do."""
    keys = {"model": case.model, "key_added": "found", "copy": True, **given}
    found = {}
    if case.model.translation is not None:
        proteins = case.model.vocabulary.features[:7].tolist()
        found["translate"] = sclcm.tl.translate(adata, features=proteins, **keys).obsm["found"].to_numpy()
    else:
        for name, recipe in case.model.gene_recipes.items():
            mine = not recipe.submodels or case.model.submodel in recipe.submodels
            if recipe.head is not None and mine:
                found[name] = sclcm.tl.impute(adata, recipe=name, **keys).layers["found"]
    if case.model.labels is not None or case.model.prototypes is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No file names the", UserWarning)
            told = sclcm.tl.annotate(adata, batch_key=case.batch_key, **keys).obs
        found["annotate"] = told["found"].cat.codes.to_numpy(dtype=np.float32, copy=True)[:, None]
        found["annotate"] += told.filter(like="found_score").to_numpy(dtype=np.float32).sum(1, keepdims=True)
    return found


def test_neither_order_nor_size_of_batches_matters_to_other_tasks(gene_case):
    adata, order = gene_case.input(), np.random.default_rng(3).permutation(gene_case.cells.n_obs)
    wanted = numbers_of_tasks(gene_case, adata)
    if not wanted:
        pytest.skip("a model that gives vectors alone")
    turned, small = (numbers_of_tasks(gene_case, adata[order].copy()), numbers_of_tasks(gene_case, adata, batch_size=3))
    for task, values in wanted.items():
        for found, these in ((turned[task], values[order]), (small[task], values)):
            assert np.array_equal(np.isnan(found), np.isnan(these)), task
            assert np.isfinite(these).any(), task
            assert difference(np.nan_to_num(found), np.nan_to_num(these)) <= CLOSE, task


# ---- recipes and number types ----


def test_recipes_give_finite_vectors_of_their_width_or_name_what_they_lack(case, unchanged):
    assert set(case.model.recipes) <= set(describe(case.family)["recipes"])
    for recipe, declared in case.model.recipes.items():
        if recipe in case.recipes:
            assert case.wanted(recipe).shape == (case.cells.n_obs, case.model.width(declared)), recipe
            assert np.isfinite(case.wanted(recipe)).all(), recipe
            continue
        adata, message = case.cells.copy(), rf"`load\(.*submodel={declared.submodels[0]!r}\)`"
        with unchanged(adata), pytest.raises(ValueError, match=message):
            sclcm.tl.embed(adata, case.model, recipe=recipe, batch_key=case.batch_key)


def test_column_that_a_recipe_reads_is_asked_for(case, unchanged):
    for recipe in case.recipes:
        adata = case.input(recipe)
        columns = sorted(set(adata.obs) - set(case.cells.obs))
        adata.obs = case.cells.obs.copy()
        for column in columns:
            with unchanged(adata), pytest.raises(ValueError, match=f"no column {column!r}.*add it"):
                sclcm.tl.embed(adata, case.model, recipe=recipe)


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(case, dtype):
    for recipe in case.recipes:
        near(case, recipe, case.embed(case.input(recipe), recipe, dtype=dtype), case.wanted(recipe))


def test_autocast_is_near(case):
    for recipe in case.recipes:
        wanted = case.wanted(recipe)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near(case, recipe, case.embed(case.input(recipe), recipe), wanted)


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
    if case.place != next(place for place in PLACES.values() if place.fixture == case.place.fixture):
        pytest.skip("the network of the pre-trained model, which is compiled")
    tokens = batch_of(case)
    wanted = real(case.model.lcm(tokens), tokens)
    torch.compiler.reset()
    compiled = torch.compile(case.model.lcm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(real(compiled(tokens), tokens), wanted, rtol=1e-5, atol=1e-5)


# ---- what is written ----


def test_result_is_written_with_its_origin_and_can_be_read_back(case, unchanged, tmp_path):
    adata = case.input()
    with unchanged(adata, but=("obsm", "uns")):
        assert sclcm.tl.embed(adata, case.model, recipe=case.default, batch_key=case.batch_key) is None
    assert (len(adata.obsm) - len(case.cells.obsm), len(adata.uns) - len(case.cells.uns)) == (1, 1)
    key = next(iter(adata.obsm.keys() - case.cells.obsm.keys()))
    base = next(iter(adata.uns.keys() - case.cells.uns.keys()))
    assert key == f"X_{base}"
    assert isinstance(adata.obsm[key], np.ndarray)
    assert adata.obsm[key].dtype == np.float32
    assert np.array_equal(adata.obsm[key], case.wanted())
    params = adata.uns[base]["params"]
    assert (params["model"], params["family"]) == (case.model.name, case.family)
    assert (params["checkpoint_sha256"], params["recipe"]) == (case.model.sha256, case.default)
    assert 0 < params["matched_gene_share"] <= 1
    assert 0 < params["matched_count_share"] <= 1
    assert {"sclcm_version", "torch_version"} <= params.keys()
    assert all(isinstance(value, str | bool | int | float | dict) for value in params.values())
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(found.obsm[key], adata.obsm[key])
    assert found.uns[base]["params"] == params
