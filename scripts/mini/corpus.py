"""The data that sclcm-mini is trained and judged on: which sets, one vocabulary, labels, statistics.

The sets are public; each is an .h5ad with raw counts, `var` with `ensembl_id` and `gene_symbol`, and `obs` with
`cell_type` where it is known. Sets are split whole, by data set: what is judged on was never seen, in any way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

import sclcm
from sclcm.data.genes import choose_gene_names
from sclcm.data.matrix import choose_matrix
from sclcm.data.stream import iter_chunks
from sclcm.genes.vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from scipy import sparse

    from sclcm.encoding.chunks import CellChunk

ALL = 0
TRAIN = {  # name: most cells taken
    "pbmc3k": ALL,
    "pbmc_7sources": ALL,
    "pbmc_hao2021_1k": ALL,
    "malt_citeseq_1k": ALL,
    "malt_rna_1100": ALL,
    "onek1k_subset_4types": 2_500,
    "onek1k_subset_bcell": 1_000,
    "papalexi_thp1_crispr_300g": 500,
    "pbmc_eccite_500": ALL,
    "pbmc_10k_protein_200": ALL,
    "copykat_breast_tumour_302": ALL,
    "ipsc_tung_140": ALL,
    "pbmc_v3_1071": ALL,
    "celltypist_sample_559": ALL,
    "ipsc_cardiac_day2_590": ALL,
    "ipsc_cardiac_day5_500": ALL,
    "fetal_cortex_pollen_64": ALL,
    "lung_tumour_dc_913": ALL,
    "bone_marrow_manton_50": ALL,
    "esc_retinal_ganglion_66": ALL,
    "oligodendroglioma_184": ALL,
}
PROFILES = ("profiles_human_tissues", "profiles_immune_brain")
VALIDATION = {"pbmc4k_soupx": ALL, "aj064_tissue_800": ALL, "pdac_moncada_1926": ALL, "fetal_cortex_culture": 1_500}
TEST = {
    "gut_crohn_kong_1020": ALL,
    "tcells_compocyte_861": ALL,
    "lung_tumour_merfish_3177": 1_500,
    "cell_lines_hashing_2k": ALL,
    "pbmc68k_reduced": ALL,
}
NO_LABEL = {"unlabelled", "?", "NA", "nan", "unknown", "mito", "Doublet", "Negative"}
SPECIALS = ("<pad>", "<cls>")
WHOLE = 8_000
"""A set that measures so many genes of the vocabulary counts as the whole transcriptome."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A data set over the vocabulary.

    Parameters
    ----------
    name
        Its name.
    chunk
        Counts and totals of all cells.
    measured
        Which features it measures.
    label
    ontology_id
        Cell type as the authors spell it, and its Cell Ontology id; empty where there is none.
    study
    tissue
        Of a profile; the name of the set otherwise.
    """

    name: str
    chunk: CellChunk
    measured: np.ndarray
    label: np.ndarray
    ontology_id: np.ndarray
    study: np.ndarray
    tissue: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """Library sizes."""
        return np.asarray(self.chunk.obs["n_counts"], dtype=float)

    def labelled(self, *, least: int = 10) -> np.ndarray:
        """Which cells have a label that at least so many cells have."""
        names, counts = np.unique(self.label, return_counts=True)
        good = {name for name, n in zip(names, counts, strict=True) if n >= least and name not in NO_LABEL}
        return np.array([name in good for name in self.label])


def read(name: str, data: Path, most: int = ALL) -> ad.AnnData:
    """Read a set, at most so many cells of it, drawn once and for all."""
    if name == "pbmc68k_reduced":
        adata = sclcm.datasets.pbmc68k_reduced()
        adata.obs["cell_type"] = adata.obs["bulk_labels"].astype(str)
        adata.var["ensembl_id"], adata.var["gene_symbol"] = "", adata.var_names
    else:
        adata = ad.read_h5ad(data / f"{name}.h5ad")
    if most and adata.n_obs > most:
        adata = adata[np.sort(np.random.default_rng(0).choice(adata.n_obs, most, replace=False))].copy()
    if "n_counts" not in adata.obs:
        adata.obs["n_counts"] = np.asarray(adata.X.sum(1)).ravel()
    return adata


def make_vocabulary(data: Path) -> GeneVocabulary:
    """Genes seen often enough in the training sets: coding, immune receptor and common long non-coding ones.

    Mitochondrial genes, Y and XIST are left out: they tell quality and sex rather than type.
    """
    genes = pd.read_csv(data / "reference" / "human_genes.tsv.gz", sep="\t")
    kinds = ["protein_coding", "lncRNA", "IG_C_gene", "IG_V_gene", "TR_C_gene", "TR_V_gene"]
    genes = genes[genes.biotype.isin(kinds) & ~genes.chromosome.isin(["MT", "Y"]) & (genes.symbol != "XIST")]
    genes = genes.drop_duplicates("ensembl_id").set_index("ensembl_id").sort_index()
    everything = _vocabulary(genes.index.tolist())
    seen = np.zeros(everything.n_features)
    for name, weight in [*((name, 1) for name in TRAIN), *((name, 5) for name in PROFILES)]:
        counts = load(name, data, everything).chunk.counts
        seen += weight * np.bincount(counts.indices, minlength=everything.n_features)
    needed = np.where(genes.biotype == "lncRNA", 100, 20)
    return _vocabulary(genes.index[seen >= needed].tolist())


def _vocabulary(genes: list[str]) -> GeneVocabulary:
    tokens = {name: i for i, name in enumerate([*SPECIALS, *genes])}
    return GeneVocabulary.from_mapping(tokens, specials=SPECIALS, ids="ensembl")


def load(name: str, data: Path, vocabulary: GeneVocabulary) -> Cells:
    """Read a set over a vocabulary, by the package's own alignment."""
    adata = read(name, data, {**TRAIN, **VALIDATION, **TEST}.get(name, ALL))
    source = choose_matrix(adata)
    alignment, _ = choose_gene_names(source.var, vocabulary, gene_key=None, species="human")
    (chunk,) = iter_chunks(
        source, alignment, adata.obs, chunk_size=adata.n_obs, obs_columns=["n_counts"], check="any", consumer="training"
    )
    measured = np.zeros(vocabulary.n_features, dtype=bool)
    measured[alignment.feature_index] = True
    empty = pd.Series(name, index=adata.obs_names)
    label = adata.obs.get("cell_type", pd.Series("unlabelled", index=adata.obs_names)).astype(str).to_numpy()
    ontology = _ontology(data)
    return Cells(
        name=name,
        chunk=chunk,
        measured=measured,
        label=label,
        ontology_id=np.array([ontology.get(each, "") for each in label]),
        study=adata.obs.get("study", empty).astype(str).to_numpy(),
        tissue=adata.obs.get("tissue", empty).astype(str).to_numpy(),
    )


@lru_cache
def _ontology(data: Path) -> dict[str, str]:
    table = pd.read_csv(data / "reference" / "cell_type_ontology.tsv.gz", sep="\t", dtype=str, keep_default_na=False)
    return dict(zip(table.label, table.cl_id, strict=True))


@lru_cache
def ontology_terms(data: Path) -> pd.DataFrame:
    """Terms of the Cell Ontology by id: `name`, `parents`."""
    table = pd.read_csv(data / "reference" / "cl_terms.tsv.gz", sep="\t", dtype=str, keep_default_na=False)
    return table.set_index("cl_id")


@cache
def ancestors(term: str, data: Path) -> frozenset[str]:
    """A term and all that it is a kind of."""
    terms = ontology_terms(data)
    if term not in terms.index:
        return frozenset({term})
    parents = [each for each in terms.parents[term].replace("|", "/").split("/") if each]
    return frozenset({term}).union(*(ancestors(parent, data) for parent in parents))


def log_values(counts: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix:
    """log1p of counts per 10,000 of the library."""
    out = counts.astype(np.float32, copy=True)
    out.data = np.log1p(out.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(out.indptr))).astype(np.float32)
    return out


def moments(values: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of each gene."""
    return np.asarray(values.mean(0)).ravel(), np.asarray(values.multiply(values).mean(0)).ravel()
