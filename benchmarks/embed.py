"""How fast are cells embedded, against the authors' way? Prints one table of ratios, taken in one run.

    python benchmarks/embed.py [--model geneformer|scgpt] [--cells 16] [--repeats 3] [--threads 2] [--h5ad counts.h5ad]
        [--device cuda --peer-cells 100 --only forward]

What scGPT and its peer are, `_scgpt.py` says. Geneformer: the model is of the size of V1-10M with random weights,
written by transformers in the authors' format; both sides read it from there. Cells express 500 to 3,000 genes: drawn,
or real ones from a file.

Peer, at its authors' settings: cells in descending order of length, batches padded to their longest cell, the mask
passed, all hidden states asked for, mean over tokens of the second to last layer; `BertForMaskedLM` with PyTorch's
fused attention. "With its head" is what upstream does: it loads the masked-token model, and so computes scores for
25,426 tokens at each position and throws them away. "Without" is the same model without that. Upstream's batch of 100
cells needs tens of GB with the head; both sides get batches of at most 8 cells here.

Tokeniser peer: as upstream describes its own: 512 cells at a time, sparse arithmetic by counts and medians, a quicksort
of each cell, then a `datasets` table written to disk and read back for the forward pass.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from _setting import alternate, machine, peak_memory, read_cells, save_json, smallest_cosine, table, write_checkpoint
from scipy import sparse

import sclcm
from sclcm._settings import settings
from sclcm.engine.infer import CellVectors, run
from sclcm.models._pass import open_input

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = ("forward", "encoding", "end to end")
PEER_CELLS = 8
"""Cells in a batch of the peer, and of ours where batches are compared."""


def upstream_tokens(adata, folder: Path, *, tokens: dict[str, int], medians: dict[str, float]) -> Path:
    """Tokenise as upstream describes it, and write a data set."""
    from datasets import Dataset

    known = np.array([gene in tokens for gene in adata.var["ensembl_id"]])
    genes = adata.var["ensembl_id"].to_numpy()[known]
    ids = np.array([tokens[gene] for gene in genes])
    factors = np.array([medians[gene] for gene in genes])
    cells: list[np.ndarray] = []
    for start in range(0, adata.n_obs, 512):
        part = adata[start : start + 512]
        totals = part.obs["n_counts"].to_numpy()[:, None]
        values = sparse.csr_matrix(part.X[:, known] / totals * 10_000 / factors)
        cells += [ids[values[i].indices][np.argsort(-values[i].data)] for i in range(values.shape[0])]

    def crop(cell: dict[str, list[int]]) -> dict[str, object]:
        kept = cell["input_ids"][:2048]
        return {"input_ids": kept, "length": len(kept)}

    table_ = Dataset.from_dict({"input_ids": cells}).map(crop)
    table_.save_to_disk(str(folder))
    return folder


def upstream_batches(folder: Path, n_cells: int = PEER_CELLS):
    """Read the data set back as upstream's extractor does: shuffled, sorted by length, padded batch by batch."""
    from datasets import load_from_disk

    stored = load_from_disk(str(folder))
    stored = stored.add_column("cell", range(len(stored))).shuffle(seed=42).sort("length", reverse=True)
    stored.set_format(type="torch")
    for start in range(0, len(stored), n_cells):
        part = stored.select(range(start, min(start + n_cells, len(stored))))
        width = int(max(part["length"]))
        ids = torch.stack([torch.nn.functional.pad(cell, (0, width - len(cell))) for cell in part["input_ids"]])
        mask = torch.arange(width) < torch.as_tensor(part["length"][:]).unsqueeze(1)
        yield part["cell"][:].numpy(), ids, mask.long()


def upstream_forward(model, batches) -> np.ndarray:
    """Embed as upstream does: all hidden states, mean over the tokens of the second to last layer."""
    rows, vectors = [], []
    device = next(model.parameters()).device
    for cells, ids, mask in batches:
        weight = mask.to(device).unsqueeze(-1)
        with torch.no_grad():
            out = model(input_ids=ids.to(device), attention_mask=weight[..., 0], output_hidden_states=True)
            hidden = out.hidden_states[-2]
        rows.append(cells)
        vectors.append(((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy())
    return np.concatenate(vectors)[np.argsort(np.concatenate(rows))]


def dictionaries(folder: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Tokens and medians of the checkpoint."""
    from sclcm.checkpoints.readers import read_pickle

    return read_pickle(folder / "token_dictionary.pkl"), read_pickle(folder / "gene_median_dictionary.pkl")


def forward_rows(folder: Path, adata, given: argparse.Namespace) -> list[dict[str, object]]:
    """Forward alone, on tokens that are there already."""
    from transformers import BertForMaskedLM

    peer = BertForMaskedLM.from_pretrained(folder, attn_implementation="sdpa").eval().to(given.device)
    model = sclcm.models.load(folder, device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as scratch:
        tokens, medians = dictionaries(folder)
        stored = upstream_tokens(adata, Path(scratch) / "set", tokens=tokens, medians=medians)
        cells = list(upstream_batches(stored, given.peer_cells))
    model = model.to(given.device)
    batches = list(open_input(adata, model).batches(model, batch_size=None))
    found: dict[str, np.ndarray] = {}

    def ours(dtype: str):
        cast = model.to(given.device, dtype)
        out = found[dtype] = np.zeros((adata.n_obs, 256), np.float32)
        vectors = CellVectors(out=out, pooling=model.recipes["embed"].pooling)
        return lambda: list(run(cast.lcm, batches, [vectors], device=cast.device, n_blocks=5))

    def theirs(part):
        return lambda: found.__setitem__("peer", upstream_forward(part, cells))

    ways = {
        "upstream, with its head": theirs(peer),
        "upstream, without": theirs(peer.bert),
        "sclcm float32": ours("float32"),
        "sclcm bfloat16": ours("bfloat16"),
    }
    seconds = alternate(ways, repeats=given.repeats)
    return [
        {
            "forward": name,
            "cells/s": f"{adata.n_obs / time:.2f}",
            "against upstream": f"{seconds['upstream, with its head'] / time:.2f}x",
            "against it without head": f"{seconds['upstream, without'] / time:.2f}x",
            "smallest cosine": f"{smallest_cosine(found.get(name.split()[-1], found['peer']), found['peer']):.6f}",
        }
        for name, time in seconds.items()
    ]


def encoding_rows(folder: Path, adata, repeats: int) -> list[dict[str, object]]:
    """Counts to padded batches of tokens, in memory against by a data set on disk; gene names remembered and not."""
    tokens, medians = dictionaries(folder)
    model = sclcm.models.load(folder, device="cpu", dtype="float32")
    # Alignments are remembered by vocabulary: one that is new has to look every name up again.
    unused = [replace(model, vocabulary=replace(model.vocabulary)) for _ in range(repeats + 2)]
    shuffled = adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()
    shuffled.X.sort_indices()  # as files have them

    def ours(data, pretrained) -> None:
        list(open_input(data, pretrained).batches(pretrained, batch_size=PEER_CELLS))

    with tempfile.TemporaryDirectory() as scratch:
        ways = {
            "upstream's way": lambda: list(
                upstream_batches(upstream_tokens(adata, Path(scratch) / "set", tokens=tokens, medians=medians))
            ),
            "sclcm, first call": lambda: ours(adata, unused.pop()),
            "sclcm, further calls": lambda: ours(adata, model),
            "sclcm, genes in another order": lambda: ours(shuffled, model),
        }
        seconds = alternate(ways, repeats=repeats)
        busy = {name: processor_seconds(way) for name, way in ways.items()}
    first = seconds["upstream's way"]
    return [
        {
            "encoding": name,
            "cells/s": f"{adata.n_obs / time:.0f}",
            "against upstream": f"{first / time:.1f}x",
            "processor time (us a cell)": f"{1e6 * busy[name] / adata.n_obs:.0f}",
        }
        for name, time in seconds.items()
    ]


def processor_seconds(way: Callable[[], object]) -> float:
    """Seconds that all threads together computed."""
    start = time.process_time()
    way()
    return time.process_time() - start


MEMORY = """
import sys
import torch
from _setting import own_peak, read_cells
torch.set_num_threads(2)
way, folder, n_cells = sys.argv[1], sys.argv[2], int(sys.argv[3])
adata = read_cells(None, n_cells)
if way == "sclcm":
    import sclcm
    sclcm.settings.progress = False
    sclcm.tl.embed(adata, folder, dtype="float32", device="cpu")
else:
    from pathlib import Path
    import tempfile
    import embed
    from transformers import BertForMaskedLM
    with tempfile.TemporaryDirectory() as scratch:
        tokens, medians = embed.dictionaries(Path(folder))
        stored = embed.upstream_tokens(adata, Path(scratch) / "set", tokens=tokens, medians=medians)
        embed.upstream_forward(BertForMaskedLM.from_pretrained(folder).eval(), embed.upstream_batches(stored))
print(own_peak())
"""


def end_to_end_rows(folder: Path, adata, repeats: int) -> list[dict[str, object]]:
    """`tl.embed` from AnnData to `.obsm`, against tokenising to disk, reading back and the forward pass."""
    from transformers import BertForMaskedLM

    tokens, medians = dictionaries(folder)
    peer = BertForMaskedLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    model = {dtype: sclcm.models.load(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}

    with tempfile.TemporaryDirectory() as scratch:

        def upstream() -> None:
            stored = upstream_tokens(adata, Path(scratch) / "set", tokens=tokens, medians=medians)
            upstream_forward(peer, upstream_batches(stored))

        ways = {
            "upstream's way": upstream,
            "sclcm float32": lambda: sclcm.tl.embed(adata, model["float32"], device="cpu", dtype="float32"),
            "sclcm bfloat16": lambda: sclcm.tl.embed(adata, model["bfloat16"], device="cpu", dtype="bfloat16"),
        }
        seconds = alternate(ways, repeats=repeats)
    memory = {
        "upstream's way": peak_memory(MEMORY, "upstream", str(folder), str(adata.n_obs)),
        "sclcm float32": peak_memory(MEMORY, "sclcm", str(folder), str(adata.n_obs)),
    }
    first = seconds["upstream's way"]
    return [
        {
            "end to end": name,
            "cells/s": f"{adata.n_obs / time:.2f}",
            "against upstream": f"{first / time:.2f}x",
            "peak memory (MB)": f"{memory[name]:.0f}" if name in memory else "",
        }
        for name, time in seconds.items()
    ]


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("geneformer", "scgpt"), default="geneformer")
    parser.add_argument("--cells", type=int, default=16, help="cells for the forward pass")
    parser.add_argument("--encoded", type=int, default=4_096, help="cells for the encoding")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where the forward pass is timed")
    parser.add_argument(
        "--peer-cells", type=int, default=PEER_CELLS, help="cells in a batch of the peer's forward pass"
    )
    parser.add_argument("--only", nargs="+", default=list(TABLES), choices=TABLES, help="tables to make")
    parser.add_argument("--h5ad", help="real cells: raw counts, var['ensembl_id']")
    parser.add_argument("--json", help="file to write the tables to")
    given = parser.parse_args()
    if given.model == "scgpt" and given.h5ad:
        parser.error("--h5ad goes with --model geneformer; the drawn cells have the genes of the drawn vocabulary")
    torch.set_num_threads(given.threads)
    settings.progress = False
    import datasets

    datasets.disable_progress_bars()
    few, many = read_cells(given.h5ad, given.cells), read_cells(given.h5ad, given.encoded)
    results: dict[str, object] = {
        "machine": machine(given.device),
        "cells": f"{'real' if given.h5ad else 'drawn'}, median {int(np.median(np.diff(few.X.indptr)))} genes",
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.model == "scgpt":
            import _scgpt

            results |= _scgpt.results(folder, few, many, repeats=given.repeats)
        else:
            write_checkpoint(folder)
            results |= {
                "forward": forward_rows(folder, few, given) if "forward" in given.only else [],
                "encoding": encoding_rows(folder, many, given.repeats) if "encoding" in given.only else [],
                "end to end": end_to_end_rows(folder, few, given.repeats) if "end to end" in given.only else [],
            }
    print(results["machine"], results["cells"], sep="\n")
    for name in TABLES:
        if results[name]:
            print(f"\n{table(results[name])}")
    save_json(given.json, results)


if __name__ == "__main__":
    main()
