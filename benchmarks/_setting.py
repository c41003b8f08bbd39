"""What the benchmarks share: a random Geneformer V1-10M, realistic cells, upstream's way, timing."""

from __future__ import annotations

import gc
import json
import pickle
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

N_GENES = 25_424
V1_10M = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 2048,
    "vocab_size": N_GENES + 2,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.02,
    "attention_probs_dropout_prob": 0.02,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
}


def gene_ids() -> list[str]:
    """Ensembl-like ids in ascending order."""
    return [f"ENSG{number:011d}" for number in range(1, N_GENES + 1)]


def write_checkpoint(folder: Path) -> None:
    """Write a random model of the size of V1-10M in the authors' own format, by transformers itself."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**V1_10M)).save_pretrained(folder)
    genes = gene_ids()
    median = np.random.default_rng(0).lognormal(0.5, 0.6, N_GENES)
    dump(folder / "token_dictionary.pkl", {"<pad>": 0, "<mask>": 1, **{gene: i + 2 for i, gene in enumerate(genes)}})
    dump(folder / "gene_median_dictionary.pkl", dict(zip(genes, median.tolist(), strict=True)))
    dump(folder / "ensembl_mapping_dict.pkl", {gene: gene for gene in genes})


def dump(path: Path, content: object) -> None:
    """Pickle plain data, as the authors publish it."""
    with path.open("wb") as file:
        pickle.dump(content, file)


def realistic_cells(n_cells: int, *, seed: int = 0) -> ad.AnnData:
    """Counts of cells that express 500 to 3,000 genes, drawn by a long-tailed popularity of genes."""
    rng = np.random.default_rng(seed)
    popularity = rng.lognormal(0, 1.6, N_GENES)
    popularity /= popularity.sum()
    rows = []
    for n_expressed in rng.integers(500, 3_001, n_cells):
        genes = rng.choice(N_GENES, n_expressed, replace=False, p=popularity)
        counts = 1 + rng.poisson(popularity[genes] * 8_000 * rng.lognormal(0, 0.5, n_expressed))
        rows.append(sparse.csr_matrix((counts.astype(np.float32), (np.zeros(n_expressed, int), genes)), (1, N_GENES)))
    matrix = sparse.vstack(rows, format="csr")
    adata = ad.AnnData(matrix)
    adata.var_names = gene_ids()
    adata.obs_names = [f"cell{i}" for i in range(n_cells)]
    adata.var["ensembl_id"] = gene_ids()
    adata.obs["n_counts"] = np.asarray(matrix.sum(1)).ravel()
    return adata


def read_cells(path: str | None, n_cells: int) -> ad.AnnData:
    """Real cells from a file with raw counts and `var["ensembl_id"]`, or realistic ones."""
    if path is None:
        return realistic_cells(n_cells)
    adata = ad.read_h5ad(path)
    adata = adata[:, adata.var["ensembl_id"].astype(str) != ""].copy()
    expressed = np.diff(sparse.csr_matrix(adata.X).indptr)
    adata = adata[(expressed >= 500) & (expressed <= 3_000)][:n_cells].copy()
    adata.obs["n_counts"] = np.asarray(adata.X.sum(1)).ravel()
    return adata


def alternate(ways: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each way, run in turn so that a noisy machine harms all alike; the first round is a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(code: str, *arguments: str) -> float:
    """MB of memory that a script of its own had at most."""
    command = [sys.executable, "-c", code, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return float(out.stdout.strip().splitlines()[-1])


def own_peak() -> float:
    """MB of memory that this process has had at most, not counting what it inherited."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    """Count the peak of memory from here on: what building a model took is left out."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def finished(way: Callable[[], object], device: str) -> Callable[[], object]:
    """A way that is done only when the accelerator is."""
    if not device.startswith("cuda"):
        return way

    def done() -> None:
        way()
        torch.cuda.synchronize(device)

    return done


def machine(device: str = "cpu") -> str:
    """Processor or accelerator, threads and versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    if device.startswith("cuda"):
        cpu = f"{torch.cuda.get_device_name(device)}, {cpu}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("sclcm", "torch", "transformers", "numpy", "scipy"))
    return f"{cpu}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {packages}"


def smallest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of corresponding rows."""
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def table(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows])


def save_json(path: str | None, content: object) -> None:
    """Keep the numbers for the documentation."""
    if path is not None:
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
