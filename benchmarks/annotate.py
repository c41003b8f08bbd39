"""How fast are cells annotated by a model that says their types? Prints one table of ratios, taken in one run.

    python benchmarks/annotate.py [--blocks 24] [--cells 6] [--repeats 2] [--threads 2] [--device cpu]

The model is of the size of scMulan's (blocks of width 1,120 with 20 heads, 2,222 tokens) with random weights, written
in the authors' format and read by both sides from the same file. Cells express 300 to 900 of the model's 2,000 genes.

Peer, from what is published of the authors' way: cell by cell, each of the three steps a forward pass over the whole
sentence, without a cache; plain linear layers, PyTorch's fused attention with a causal flag, heads at the last token.
Data are normalised and cut to the model's genes beforehand for the peer, but not for us: `tl.annotate` is timed from
raw counts to columns of `.obs`.

Both sides compute on `--device`; on an accelerator the peer stays in float32, as published.

What each of our means gives is shown by leaving it out: "cell by cell" runs batches of one cell.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from _setting import alternate, machine, save_json, table
from scipy import sparse
from torch import nn
from torch.nn import functional

import sclcm
from sclcm._settings import settings
from sclcm.genes.table import load_table

N_GENES, N_TYPES, WIDTH, N_HEADS, N_BINS = 2_000, 109, 1_120, 20, 10
STOP, TASK = "<E>", "<PCT>"


class Block(nn.Module):
    """Pre-norm block without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(WIDTH, 3 * WIDTH, bias=False), "c_proj": nn.Linear(WIDTH, WIDTH, bias=False)}
        )
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(WIDTH, 4 * WIDTH, bias=False), "c_proj": nn.Linear(4 * WIDTH, WIDTH, bias=False)}
        )

    def forward(self, x):
        """Attention and feed-forward, each added to what came in."""
        q, k, v = (
            part.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)
            for part in self.attn["c_attn"](self.ln_1(x)).split(WIDTH, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class Peer(nn.Module):
    """The published network, its tensors named as in the authors' files."""

    def __init__(self, n_blocks: int, n_tokens: int) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(n_tokens, WIDTH),
                "wee": nn.Embedding(N_BINS + 1, WIDTH),
                "h": nn.ModuleList(Block() for _ in range(n_blocks)),
                "ln_f": nn.LayerNorm(WIDTH, bias=False),
            }
        )
        self.lm_head, self.epx_head = (nn.Linear(WIDTH, n_tokens, bias=False) for _ in range(2))

    def forward(self, ids, values):
        """Return the scores of the next token, and a value for each token."""
        x = self.transformer["wte"](ids) + self.transformer["wee"](values)
        for block in self.transformer["h"]:
            x = block(x)
        x = self.transformer["ln_f"](x)
        return self.lm_head(x[:, -1]), self.epx_head(x[:, -1])


def tokens() -> tuple[list[str], list[str]]:
    """Genes, and all tokens in order of their ids: the end, genes, cell types, the task, reserved ones."""
    symbols = sorted({symbol for symbol in load_table("human").symbols if symbol.isalnum()})[:N_GENES]
    types = [f"type {i}" for i in range(N_TYPES)]
    words = [f"word {i}" for i in range(2_222 - 2 - N_GENES - N_TYPES)]
    return symbols, [STOP, *symbols, *types, *words, TASK]


def write_release(folder: Path, n_blocks: int) -> None:
    """Write random weights, lists and tables in the authors' format."""
    genes, all_tokens = tokens()
    torch.manual_seed(0)
    peer = Peer(n_blocks, len(all_tokens))
    for parameter in peer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():  # so that types are said, as a trained model says them
        peer.lm_head.weight[N_GENES + 1 : N_GENES + 1 + N_TYPES] *= 4
    args = {"vocab_size": len(all_tokens), "n_layer": n_blocks, "n_head": N_HEADS, "n_embd": WIDTH, "dropout": 0.0}
    content = {"model": peer.state_dict(), "model_args": {**args, "bias": False, "expression_level": N_BINS, "ele": 1}}
    torch.save(content, folder / "ckpt_scMulan.pt")
    types = set(all_tokens[N_GENES + 1 : N_GENES + 1 + N_TYPES])
    lists = {"gene_set": genes, "token_set": all_tokens, "cell_type": types, "MCT": {"type 0"}}
    torch.save(lists, folder / "meta_info.pt")
    rows = ["Approved symbol\tLocus group\tEnsembl gene ID", *(f"{gene}\t\t" for gene in genes)]
    (folder / "total_gene_list_42117.txt").write_text("\n".join(rows) + "\n")
    (folder / "GeneSymbolRef_upd0731.csv").write_text(
        ",Approved symbol,Status,Alias symbol,Previous symbol\n0,A1BG,Approved,NOSUCHGENE,\n"
    )


def draw_cells(n_cells: int) -> ad.AnnData:
    """Counts of cells that express 300 to 900 of the genes."""
    rng = np.random.default_rng(0)
    popularity = rng.lognormal(0, 1.2, N_GENES)
    popularity /= popularity.sum()
    counts = np.zeros((n_cells, N_GENES), np.float32)
    for row, n_expressed in zip(counts, np.linspace(300, 900, n_cells).astype(int), strict=True):
        expressed = rng.choice(N_GENES, n_expressed, replace=False, p=popularity)
        row[expressed] = 1 + rng.poisson(popularity[expressed] * 4_000)
    adata = ad.AnnData(sparse.csr_matrix(rng.permutation(counts)))
    adata.var_names = tokens()[0]
    adata.obs_names = [f"cell{i}" for i in range(n_cells)]
    return adata


def upstream_labels(peer: Peer, normalized: sparse.csr_matrix) -> list[str]:
    """Annotate cell by cell: three steps, each over the whole sentence."""
    all_tokens = tokens()[1]
    stop, task = all_tokens.index(STOP), all_tokens.index(TASK)
    device = next(peer.parameters()).device
    labels = []
    for cell in range(normalized.shape[0]):
        row = normalized[cell].toarray().ravel()
        expressed = np.flatnonzero(row)[::-1]
        bins = np.digitize(row[expressed], np.linspace(0, row.max(), N_BINS + 1), right=True)
        ids = torch.tensor([[*(expressed + 1).tolist(), task]], device=device)
        values = torch.tensor([[*bins.tolist(), 0]], device=device)
        for _ in range(3):
            with torch.no_grad():
                scores, means = peer(ids, values)
            scores[0, ids[0, :-1]] = -torch.inf
            scores[scores < scores.topk(1).values] = -torch.inf
            token = torch.multinomial(torch.softmax(scores, dim=-1), 1)
            value = means.gather(1, token).round().clamp(0, 10).long()
            ids, values = torch.cat([ids, token], dim=1), torch.cat([values, value], dim=1)
            if int(token) == stop:
                break
        label = all_tokens[int(ids[0, -2])]
        labels.append(label if label.startswith("type") else "unknown")
    return labels


def rows_of(folder: Path, adata: ad.AnnData, given: argparse.Namespace) -> list[dict[str, object]]:
    """Time both sides in turn."""
    peer = Peer(given.blocks, len(tokens()[1])).eval().to(given.device)
    peer.load_state_dict(torch.load(folder / "ckpt_scMulan.pt", weights_only=True)["model"])
    totals = np.asarray(adata.X.sum(1))
    normalized = sparse.csr_matrix(np.log1p(adata.X.toarray() / totals * 1e4).astype(np.float32))
    model = sclcm.models.load(folder, family="scmulan", device="cpu", dtype="float32")
    models = {dtype: model.to(given.device, dtype) for dtype in ("float32", "bfloat16")}
    found: dict[str, list[str]] = {}

    def ours(name: str, dtype: str, batch_size: int | None):
        def run() -> None:
            labelled = sclcm.tl.annotate(
                adata, models[dtype], device=given.device, dtype=dtype, batch_size=batch_size, copy=True
            )
            found[name] = labelled.obs["scmulan_label"].astype(str).tolist()

        return run

    ways = {
        "upstream's way": lambda: found.__setitem__("upstream's way", upstream_labels(peer, normalized)),
        "sclcm float32, cell by cell": ours("sclcm float32, cell by cell", "float32", 1),
        "sclcm float32": ours("sclcm float32", "float32", None),
        "sclcm bfloat16": ours("sclcm bfloat16", "bfloat16", None),
    }
    seconds = alternate(ways, repeats=given.repeats)
    wanted, slowest = found["upstream's way"], seconds["upstream's way"]
    return [
        {
            "annotation": name,
            "seconds a cell": f"{time / adata.n_obs:.2f}",
            "against upstream": f"{slowest / time:.2f}x",
            "same label": f"{sum(a == b for a, b in zip(found[name], wanted, strict=True))} of {len(wanted)}",
        }
        for name, time in seconds.items()
    ]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24, help="blocks of the model; fewer favour us a little")
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="file to write the table to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings.progress = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_release(folder, given.blocks)
        adata = draw_cells(given.cells)
        lengths = np.diff(adata.X.indptr)
        results = {
            "machine": machine(given.device),
            "cells": f"{given.cells} drawn, {lengths.min()} to {lengths.max()} genes; {given.blocks} blocks",
            "annotation": rows_of(folder, adata, given),
        }
    print(results["machine"], results["cells"], f"\n{table(results['annotation'])}", sep="\n")
    save_json(given.json, results)


if __name__ == "__main__":
    main()
