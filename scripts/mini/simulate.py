"""Training batches as functions of their step: cells simulated from profiles, and thinned labelled cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from corpus import PROFILES, TRAIN, WHOLE, Cells, ancestors, load, log_values, moments
from scipy import sparse

from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.sentences import Encoding, encode
from sclcm.engine.infer import to_tensors
from sclcm.engine.training import TrainingBatch

if TYPE_CHECKING:
    from pathlib import Path

    from sclcm.genes.vocabulary import GeneVocabulary

PANEL_SHARE, PANEL_GENES = 0.45, (250, 5_000)
OWN_TOTAL_SHARE = 0.6
DEPTH = (500, 12_000)
STUDY_NOISE, CELL_NOISE = 0.35, 0.3
THINNED_SHARE, THINNED_TO = 0.6, (0.25, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """The training data, and the classes that its labels make: one a profile, one a label of a labelled set.

    Parameters
    ----------
    vocabulary
        The genes.
    profiles
        Average expression of cell types.
    sets
        Sets of cells.
    class_id
        Cell Ontology id of each class, or an empty text.
    class_label
        Its label as the authors spell it.
    class_study
        The study it was seen in.
    set_class
        Set -> class of each cell, -1 without a label.
    """

    vocabulary: GeneVocabulary
    profiles: list[Cells]
    sets: dict[str, Cells]
    class_id: np.ndarray
    class_label: np.ndarray
    class_study: np.ndarray
    set_class: dict[str, np.ndarray]
    rows: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def n_profiles(self) -> int:
        """Number of profiles; their classes come first."""
        return len(self.rows)


def read_corpus(data: Path, vocabulary: GeneVocabulary) -> Corpus:
    """Read the training sets."""
    profiles = [load(name, data, vocabulary) for name in PROFILES]
    sets = {name: load(name, data, vocabulary) for name in TRAIN}
    ids = [each for profile in profiles for each in profile.ontology_id]
    labels = [each for profile in profiles for each in profile.label]
    studies = [each for profile in profiles for each in profile.study]
    set_class = {}
    for name, cells in sets.items():
        classes = set_class[name] = np.full(len(cells.label), -1)
        good = cells.labelled()
        for label in sorted(set(cells.label[good])):
            of = good & (cells.label == label)
            ontology_id = cells.ontology_id[of][0]
            if len(set(cells.label[good])) < 2 and not ontology_id:
                continue
            classes[of] = len(ids)
            ids.append(ontology_id)
            labels.append(label)
            studies.append(name)
    rows = []
    for profile in profiles:
        counts = profile.chunk.counts
        for start, stop in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            rows.append((counts.indices[start:stop], counts.data[start:stop].astype(float)))
    return Corpus(
        vocabulary=vocabulary,
        profiles=profiles,
        sets=sets,
        class_id=np.array(ids),
        class_label=np.array(labels),
        class_study=np.array(studies),
        set_class=set_class,
        rows=rows,
    )


def relations(corpus: Corpus, data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which classes are right for a cell of a class, which are open, and which are rivals in its own study."""
    n = len(corpus.class_id)
    right, open_ = np.eye(n, dtype=bool), np.zeros((n, n), dtype=bool)
    up = [ancestors(term, data) if term else frozenset() for term in corpus.class_id]
    for i, own in enumerate(corpus.class_id):
        for j, other in enumerate(corpus.class_id):
            if i == j:
                continue
            if not own or not other:
                open_[i, j] = not own  # a class outside the ontology is compared within its study only
            elif own in up[j]:
                right[i, j] = True  # the same type, or a kind of it
            elif other in up[i]:
                open_[i, j] = True  # coarser: neither right nor wrong
    rivals = corpus.class_study[:, None] == corpus.class_study[None]
    return torch.tensor(right), torch.tensor(open_), torch.tensor(rivals)


def statistics(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of log1p of counts per 10,000: half from real sets, half from simulated profile cells."""
    sums, squares, weights = [], [], []
    for cells in corpus.sets.values():
        if cells.measured.sum() >= WHOLE:
            mean, square = moments(log_values(cells.chunk.counts, cells.totals))
            weight = np.sqrt(len(cells.label)) * cells.measured
            sums.append(mean * weight)
            squares.append(square * weight)
            weights.append(weight)
    total = np.sum(weights, 0) + 1e-9
    simulated = [
        simulate(corpus, np.arange(corpus.n_profiles), np.random.default_rng([0, k]), noise=0.0) for k in range(3)
    ]
    values = sparse.vstack([log_values(chunk.counts, chunk.totals) for chunk in simulated]).tocsr()
    mean_s, square_s = moments(values)
    mean = 0.5 * np.sum(sums, 0) / total + 0.5 * mean_s
    return mean, 0.5 * np.sum(squares, 0) / total + 0.5 * square_s - mean**2


def simulate(
    corpus: Corpus,
    rows: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = STUDY_NOISE,
    panel: Panel | None = None,
) -> CellChunk:
    """Draw a cell of each profile: Poisson counts at a random depth, genes scaled by study and by cell at random."""
    n_features = corpus.vocabulary.n_features
    studies: dict[str, np.ndarray] = {}
    cells, totals = [], []
    for row in rows:
        genes, rate = corpus.rows[row]
        if noise:
            study = studies.setdefault(corpus.class_study[row], np.exp(rng.normal(0, noise, n_features)))
            rate = rate * study[genes] * np.exp(CELL_NOISE * rng.standard_normal(len(genes), dtype=np.float32))
        depth = np.exp(rng.uniform(*np.log(DEPTH)))
        counts = rng.poisson(rate * (depth / rate.sum())).astype(np.float32)
        cells.append(_sparse(genes, counts, n_features))
        totals.append(counts.sum())
    return _finish(sparse.vstack(cells).tocsr(), np.array(totals), panel)


def thin(corpus: Corpus, name: str, picked: np.ndarray, *, rng: np.random.Generator, panel: Panel | None) -> CellChunk:
    """Take labelled cells, some of them with a share of their counts only."""
    cells = corpus.sets[name]
    counts, totals = cells.chunk.counts[picked].copy(), cells.totals[picked].copy()
    for i in range(len(picked)):
        if rng.random() < THINNED_SHARE:
            kept = rng.uniform(*THINNED_TO)
            part = slice(counts.indptr[i], counts.indptr[i + 1])
            counts.data[part] = rng.binomial(np.rint(counts.data[part]).astype(int), kept)
            totals[i] = max(totals[i] * kept, counts.data[part].sum())
    return _finish(counts, totals, panel)


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """A panel of genes, and whether the library size is known or the sum over the panel stands for it."""

    genes: np.ndarray
    own_total: bool


def draw_panel(weights: np.ndarray, rng: np.random.Generator) -> Panel | None:
    """A random panel of genes, some more likely than others, or none."""
    if rng.random() > PANEL_SHARE:
        return None
    size = int(np.exp(rng.uniform(*np.log(PANEL_GENES))))
    genes = np.zeros(len(weights), dtype=bool)
    genes[rng.choice(len(weights), size, replace=False, p=weights / weights.sum())] = True
    return Panel(genes=genes, own_total=rng.random() < OWN_TOTAL_SHARE)


def panel_weights(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Panels hold genes that vary and are seen."""
    return (variance / (mean + 0.05) + 1e-3) * (mean + 0.01) ** 0.3


def _sparse(genes: np.ndarray, counts: np.ndarray, n_features: int) -> sparse.csr_matrix:
    kept = counts > 0
    return sparse.csr_matrix((counts[kept], genes[kept], [0, kept.sum()]), (1, n_features))


def _finish(counts: sparse.csr_matrix, totals: np.ndarray, panel: Panel | None) -> CellChunk:
    counts = counts.astype(np.float32)
    if panel is not None:
        counts = sparse.csr_matrix(counts.multiply(panel.genes[None].astype(np.float32)))
        if panel.own_total:
            totals = np.asarray(counts.sum(1)).ravel()
    counts.eliminate_zeros()
    counts.sort_indices()
    sums = np.asarray(counts.sum(1, dtype=np.float64)).ravel()
    totals = np.maximum(totals, sums)
    return CellChunk(
        start=0, counts=counts, totals=sums, n_genes=np.diff(counts.indptr), obs={"n_counts": totals.astype(float)}
    )


def join(chunks: list[CellChunk]) -> CellChunk:
    """One chunk of several."""
    return CellChunk(
        start=0,
        counts=sparse.vstack([chunk.counts for chunk in chunks]).tocsr(),
        totals=np.concatenate([chunk.totals for chunk in chunks]),
        n_genes=np.concatenate([chunk.n_genes for chunk in chunks]),
        obs={"n_counts": np.concatenate([chunk.obs["n_counts"] for chunk in chunks])},
    )


def neighbours(corpus: Corpus, *, k: int = 8) -> dict[str, np.ndarray]:
    """The nearest cells of each cell within its set, by principal components of log values; shape `(cells, k)`."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.neighbors import NearestNeighbors

    found = {}
    for name, cells in corpus.sets.items():
        if len(cells.label) < 100:
            continue
        values = log_values(cells.chunk.counts, cells.totals)
        mean, square = moments(values)
        varied = np.argsort(-(square - mean**2) / (mean + 0.1))[:1_500]
        space = TruncatedSVD(min(30, len(cells.label) // 5), random_state=0).fit_transform(values[:, varied])
        search = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(space)
        found[name] = search.kneighbors(space, return_distance=False)[:, 1:]
    return found


def profile_values(corpus: Corpus, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Standardised values of the profiles, and which genes their studies measured; shape `(profiles, features)`."""
    values, known = [], []
    for profile in corpus.profiles:
        logs = log_values(profile.chunk.counts, profile.totals).toarray()
        measured = np.zeros(logs.shape, dtype=bool)
        for study in np.unique(profile.study):
            rows = profile.study == study
            measured[rows] = (logs[rows] > 0).any(0)
        values.append((logs - arrays["mean"]) / arrays["deviation"] * measured)
        known.append(measured)
    return np.vstack(values).astype(np.float32), np.vstack(known)


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchMaker:
    """Step -> batch.

    Parameters
    ----------
    corpus
        The data.
    encoding
    arrays
        How counts become tokens, and with which statistics.
    weights
        How likely a gene is to be in a panel, or to be predicted.
    near
        Neighbours of the cells of each set.
    n_simulated
    n_real
        Cells of each kind in a batch; as many neighbours as real cells come on top.
    n_genes
        Genes predicted in a batch.
    objectives
        The objectives that want targets.
    seed
        Of all that is random.
    """

    corpus: Corpus
    encoding: Encoding
    arrays: dict[str, np.ndarray]
    weights: np.ndarray
    near: dict[str, np.ndarray]
    n_simulated: int
    n_real: int
    n_genes: int
    objectives: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "profiles", profile_values(self.corpus, self.arrays))
        logs = {
            name: log_values(self.corpus.sets[name].chunk.counts, self.corpus.sets[name].totals) for name in self.near
        }
        object.__setattr__(self, "logs", logs)

    def __call__(self, step: int) -> TrainingBatch:
        """Make the batch of a step."""
        rng = np.random.default_rng([self.seed, abs(step), step < 0])
        corpus = self.corpus
        rows = rng.integers(0, corpus.n_profiles, self.n_simulated)
        names = list(self.near)
        size = np.array([np.sqrt(len(self.near[name])) for name in names])
        name = names[rng.choice(len(names), p=size / size.sum())]
        first = rng.choice(len(self.near[name]), min(self.n_real, len(self.near[name])), replace=False)
        second = self.near[name][first, rng.integers(0, self.near[name].shape[1], len(first))]
        chunks = [simulate(corpus, rows, rng, panel=draw_panel(self.weights, rng))]
        chunks += [thin(corpus, name, c, rng=rng, panel=draw_panel(self.weights, rng)) for c in (first, second)]
        cells = np.concatenate([first, second])
        sentences = encode(join(chunks), self.encoding, vocabulary=corpus.vocabulary, arrays=self.arrays)
        batch = pad_sentences(sentences, np.arange(sentences.n_cells), pad=corpus.vocabulary.specials["<pad>"])
        class_b = torch.as_tensor(np.concatenate([rows, corpus.set_class[name][cells]]))
        targets: dict[str, dict[str, torch.Tensor]] = {"label": {"class_b": class_b}, "pairs": {}}
        if "genes" in self.objectives:
            targets["genes"] = self._genes(rows, name, cells, rng=rng)
        targets = {objective: targets[objective] for objective in self.objectives}
        return TrainingBatch(
            tokens=to_tensors(batch, torch.device("cpu")),
            targets=targets,
            cells={"pairs": slice(len(rows), None)},
        )

    def _genes(
        self, rows: np.ndarray, name: str, cells: np.ndarray, *, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """Some genes, their standardised values in the full cells, and which were measured."""
        genes = rng.choice(len(self.weights), self.n_genes, replace=False, p=self.weights / self.weights.sum())
        values, known = self.profiles  # type: ignore[attr-defined]
        real = self.logs[name][cells][:, genes].toarray()  # type: ignore[attr-defined]
        real = (real - self.arrays["mean"][genes]) / self.arrays["deviation"][genes]
        measured = np.broadcast_to(self.corpus.sets[name].measured[genes], real.shape)
        value_bg = np.concatenate([values[rows][:, genes], real * measured]).astype(np.float32)
        known_bg = np.concatenate([known[rows][:, genes], measured]).astype(np.float32)
        return {
            "genes_g": torch.as_tensor(genes),
            "value_bg": torch.as_tensor(value_bg),
            "known_bg": torch.as_tensor(known_bg),
        }
