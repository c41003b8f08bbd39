from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from sclcm.data.counts import inspect_matrix
from sclcm.data.matrix import open_matrix

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Case:
    make: Callable[[np.ndarray, np.random.Generator], np.ndarray | sparse.spmatrix]
    kind: str
    target_sum: float | None = None
    invertible: bool = False
    log_base: str | None = None


def per(counts: np.ndarray, total: float) -> np.ndarray:
    sums = counts.sum(axis=1, keepdims=True)
    return counts / np.where(sums > 0, sums, 1) * total


def log_per(counts: np.ndarray, total: float = 1e4) -> np.ndarray:
    return np.log1p(per(counts, total)).astype(np.float32)


def z_scores(counts: np.ndarray) -> np.ndarray:
    logs = np.log1p(per(counts, 1e4))
    return (logs - logs.mean(axis=0)) / (logs.std(axis=0) + 1e-3)


def thinned(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells downsampled to one common total."""
    total = int(counts.sum(axis=1).min())
    draw = rng.multivariate_hypergeometric
    return np.stack([draw(row.astype(np.int64), total, method="marginals") for row in counts])


def without_small_counts(counts: np.ndarray) -> np.ndarray:
    """In every other cell the smallest count is 2, not 1."""
    counts = counts.copy()
    counts[::2][counts[::2] == 1] = 2
    counts[::2, 0] = 3
    return counts


def tpm(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return per(counts / rng.uniform(0.3, 8, counts.shape[1]), 1e6).astype(np.float32)


def with_fractions(counts: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    values = counts.astype(np.float32)
    chosen = (rng.random(counts.shape) < share) & (counts > 0)
    values[chosen] -= rng.uniform(0.05, 0.95, int(chosen.sum())).astype(np.float32)
    return values


def size_factored(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return counts / rng.lognormal(0, 0.4, (counts.shape[0], 1))


def panel(values: np.ndarray) -> np.ndarray:
    return values[:, ::3]


ZOO = {
    # raw counts in many guises
    "float32 counts": Case(make=lambda c, _: c.astype(np.float32), kind="counts", invertible=True),
    "int64 counts": Case(make=lambda c, _: c.astype(np.int64), kind="counts", invertible=True),
    "uint16 counts, csc": Case(
        make=lambda c, _: sparse.csc_matrix(c.astype(np.uint16)), kind="counts", invertible=True
    ),
    "panel of counts": Case(make=lambda c, _: panel(c), kind="counts", invertible=True),
    "counts of one cell": Case(make=lambda c, _: c[:1], kind="counts", invertible=True),
    "counts of one gene": Case(make=lambda c, _: c[:, [int(c.sum(axis=0).argmax())]], kind="counts", invertible=True),
    "one count in all": Case(make=lambda c, _: np.eye(1, 5), kind="counts", invertible=True),
    "equal totals from downsampling": Case(make=thinned, kind="counts", invertible=True),
    "counts with empty cells": Case(make=lambda c, _: np.vstack([c, 0 * c]), kind="counts", invertible=True),
    "reads of a plate": Case(make=lambda c, _: c * 57 + (c > 0), kind="counts", invertible=True),
    "binomial counts": Case(make=lambda c, r: r.binomial(20, 0.2, c.shape), kind="counts", invertible=True),
    "poisson counts": Case(make=lambda c, r: r.poisson(1.0, c.shape), kind="counts", invertible=True),
    "sparse poisson counts": Case(make=lambda c, r: r.poisson(0.1, c.shape), kind="counts", invertible=True),
    "counts as bool in a small panel": Case(make=lambda c, _: c[:, :30] > 0, kind="counts", invertible=True),
    # per N
    "cp10k": Case(make=lambda c, _: per(c, 1e4), kind="counts_per_n", target_sum=1e4, invertible=True),
    "cp10k of one cell": Case(make=lambda c, _: per(c[:1], 1e4), kind="counts_per_n", target_sum=1e4, invertible=True),
    "cpm": Case(make=lambda c, _: per(c, 1e6), kind="counts_per_n", target_sum=1e6, invertible=True),
    "shares": Case(make=lambda c, _: per(c, 1.0), kind="counts_per_n", target_sum=1.0, invertible=True),
    "per median": Case(make=lambda c, _: per(c, 2183.0), kind="counts_per_n", target_sum=2183.0, invertible=True),
    "panel of cp10k": Case(make=lambda c, _: panel(per(c, 1e4)), kind="counts_per_n", invertible=True),
    "rounded cp10k": Case(make=lambda c, _: np.rint(per(c, 1e4)), kind="counts_per_n", target_sum=1e4),
    # log1p of them
    "log1p cp10k": Case(
        make=lambda c, _: log_per(c), kind="log1p_counts_per_n", target_sum=1e4, invertible=True, log_base="e"
    ),
    "log1p cp10k, float64": Case(
        make=lambda c, _: log_per(c).astype(float),
        kind="log1p_counts_per_n",
        target_sum=1e4,
        invertible=True,
        log_base="e",
    ),
    "log1p cp10k, three decimals": Case(
        make=lambda c, _: log_per(np.minimum(c, 100)).round(3),
        kind="log1p_counts_per_n",
        target_sum=1e4,
        invertible=True,
        log_base="e",
    ),
    "log1p cp10k, half precision": Case(
        make=lambda c, _: log_per(np.minimum(c, 40)).astype(np.float16),
        kind="log1p_counts_per_n",
        target_sum=1e4,
        invertible=True,
        log_base="e",
    ),
    "log1p cpm": Case(
        make=lambda c, _: log_per(c, 1e6), kind="log1p_counts_per_n", target_sum=1e6, invertible=True, log_base="e"
    ),
    "log1p per median": Case(
        make=lambda c, _: log_per(c, 2183.0),
        kind="log1p_counts_per_n",
        target_sum=2183.0,
        invertible=True,
        log_base="e",
    ),
    "log1p cp10k of one cell": Case(
        make=lambda c, _: log_per(c[:1]), kind="log1p_counts_per_n", target_sum=1e4, invertible=True, log_base="e"
    ),
    "log1p cp10k, smallest count 2": Case(
        make=lambda c, _: log_per(without_small_counts(c)),
        kind="log1p_counts_per_n",
        target_sum=1e4,
        invertible=True,
        log_base="e",
    ),
    "panel of log1p cp10k": Case(
        make=lambda c, _: panel(log_per(c)), kind="log1p_counts_per_n", invertible=True, log_base="e"
    ),
    "log1p of size factors": Case(
        make=lambda c, r: np.log1p(size_factored(c, r)).astype(np.float32),
        kind="log1p_counts_per_n",
        invertible=True,
        log_base="e",
    ),
    "log1p cp10k of corrected counts": Case(
        make=lambda c, r: log_per(with_fractions(c, r, 0.9)), kind="log1p_counts_per_n", target_sum=1e4, log_base="e"
    ),
    "log1p of counts": Case(
        make=lambda c, _: np.log1p(c).astype(np.float32), kind="log1p", invertible=True, log_base="e"
    ),
    "log1p of a panel of corrected counts": Case(
        make=lambda c, r: panel(log_per(with_fractions(c, r, 0.9))), kind="log1p", log_base="e"
    ),
    # other logarithms and roots
    "log2 cp10k": Case(
        make=lambda c, _: np.log2(per(c, 1e4) + 1), kind="other", target_sum=1e4, invertible=True, log_base="2"
    ),
    "log10 cp10k": Case(
        make=lambda c, _: np.log10(per(c, 1e4) + 1), kind="other", target_sum=1e4, invertible=True, log_base="10"
    ),
    "log2 of size factors": Case(
        make=lambda c, r: np.log2(size_factored(c, r) + 1), kind="other", invertible=True, log_base="2"
    ),
    "log2 of counts": Case(make=lambda c, _: np.log2(c + 1.0), kind="other", invertible=True, log_base="2"),
    "log1p twice": Case(make=lambda c, _: np.log1p(log_per(c)), kind="other", target_sum=1e4, invertible=True),
    "square roots": Case(make=lambda c, _: np.sqrt(c), kind="other", invertible=True),
    "rounded logarithms": Case(make=lambda c, _: np.rint(log_per(c * 20 + (c > 0) * 3)), kind="other"),
    # scaled
    "z scores": Case(make=lambda c, _: z_scores(c), kind="scaled"),
    "clipped z scores": Case(make=lambda c, _: np.clip(z_scores(c), -10, 10), kind="scaled"),
    "unit variance": Case(make=lambda c, _: panel(log_per(c)) / (panel(log_per(c)).std(axis=0) + 1e-9), kind="scaled"),
    # bulk
    "tpm": Case(make=tpm, kind="bulk", target_sum=1e6),
    "bulk counts": Case(make=lambda c, r: r.poisson(20_000, (6, 2000)), kind="bulk"),
    "bulk cpm": Case(make=lambda c, r: per(r.poisson(20_000, (6, 2000)), 1e6), kind="bulk", target_sum=1e6),
    "fpkm": Case(make=lambda c, r: tpm(c, r) * r.uniform(0.6, 1.4, (c.shape[0], 1)), kind="bulk"),
    # neither
    "estimated counts": Case(make=lambda c, r: with_fractions(c, r, 0.2), kind="other"),
    "a few fractions": Case(make=lambda c, r: with_fractions(c, r, 0.002), kind="other"),
    "ambient removed": Case(make=lambda c, _: np.maximum(c - 0.03 * (c > 0), 0), kind="other"),
    "rounding noise": Case(make=lambda c, _: np.expm1(np.log1p(c.astype(np.float32))), kind="other", invertible=True),
    "binarised": Case(make=lambda c, _: c > 0, kind="other"),
    "missing as -1": Case(make=lambda c, _: np.where(c == 0, -1, c), kind="other"),
    "nan": Case(make=lambda c, _: np.where(c == 1, np.nan, c), kind="other"),
    "infinite": Case(make=lambda c, _: np.where(c == 1, np.inf, c), kind="other"),
    "smooth values": Case(make=lambda c, r: r.gamma(0.5, 40, c.shape), kind="other"),
    # nothing
    "zeros": Case(make=lambda c, _: 0 * c, kind="empty"),
    "explicit zeros": Case(
        make=lambda c, _: sparse.csr_matrix((np.zeros(3), np.arange(3), [0, 1, 2, 3]), shape=(3, 9)), kind="empty"
    ),
    "no cells": Case(make=lambda c, _: c[:0], kind="empty"),
    "no genes": Case(make=lambda c, _: c[:, :0], kind="empty"),
}


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Over-dispersed counts like those of a droplet assay: 120 cells x 1,500 genes, totals about 2,000 to 9,000."""
    rng = np.random.default_rng(7)
    share = rng.lognormal(0, 1.6, 1500)
    depth = rng.lognormal(8.4, 0.4, (120, 1))
    return rng.poisson(depth * share / share.sum() * rng.gamma(2, 0.5, (120, 1500)))


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_is_told_right(name: str, counts: np.ndarray):
    case = ZOO[name]
    report = inspect_matrix(open_matrix(ad.AnnData(case.make(counts, np.random.default_rng(1)))))
    found = (report.kind, report.invertible, report.log_base)
    assert found == (case.kind, case.invertible, case.log_base), str(report)
    assert (report.target_sum or 0) == pytest.approx(case.target_sum or 0, rel=1e-4)
