"""scGPT of the size of whole-human, and its authors' way of embedding, for `embed.py --model scgpt`.

Peer, at its authors' settings: embedding and norm of genes, a small network of values, `torch.nn.TransformerEncoder` in
evaluation with its fast path, batches of 64 cells in the order of the data, padded to the longest (at most 1,200
tokens), values binned cell by cell through `numpy.quantile` and `numpy.digitize`, long cells sampled at random.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from _setting import alternate, gene_ids, smallest_cosine
from torch import Tensor, nn

import sclcm
from sclcm.engine.infer import CellVectors, run
from sclcm.models._pass import open_input

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_TOKENS = 60_697
WIDTH, HEADS, BLOCKS, LONGEST, BATCH = 512, 8, 12, 1_200, 64
ARGS = {"embsize": WIDTH, "nheads": HEADS, "d_hid": WIDTH, "nlayers": BLOCKS, "dropout": 0.2, "n_layers_cls": 3}
ARGS |= {"n_bins": 51, "max_seq_len": LONGEST, "pad_value": -2, "mask_value": -1, "pad_token": "<pad>"}


class Peer(nn.Module):
    """The parts of upstream's model that an embedding runs through, under upstream's names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"embedding": nn.Embedding(N_TOKENS, WIDTH), "enc_norm": nn.LayerNorm(WIDTH)})
        values = {"linear1": nn.Linear(1, WIDTH), "linear2": nn.Linear(WIDTH, WIDTH), "norm": nn.LayerNorm(WIDTH)}
        self.value_encoder = nn.ModuleDict(values)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, WIDTH, 0.2, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, BLOCKS)

    def forward(self, ids_bl: Tensor, value_bl: Tensor) -> Tensor:
        """Return the vector of the first token, scaled to length one."""
        genes_bld = self.encoder["enc_norm"](self.encoder["embedding"](ids_bl))
        hidden_bld = torch.relu(self.value_encoder["linear1"](value_bl.unsqueeze(-1).clamp(max=512)))
        values_bld = self.value_encoder["norm"](self.value_encoder["linear2"](hidden_bld))
        out_bld = self.transformer_encoder(genes_bld + values_bld, src_key_padding_mask=ids_bl == N_TOKENS - 3)
        return nn.functional.normalize(out_bld[:, 0], dim=-1)


def write_checkpoint(folder: Path) -> Peer:
    """Write a random model in the authors' own format, and return the peer with the same weights."""
    torch.manual_seed(0)
    peer = Peer().eval()
    for parameter in peer.parameters():  # weights of an untrained model are too alike to tell cells apart
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.05)
    torch.save(peer.state_dict(), folder / "best_model.pt")
    genes = gene_ids()
    genes += [f"OTHER{i}" for i in range(N_TOKENS - 3 - len(genes))]
    names = [*genes, "<pad>", "<cls>", "<eoc>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "args.json").write_text(json.dumps(ARGS))
    return peer


def upstream_bins(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bin as upstream describes it."""
    edges = np.quantile(values, np.linspace(0, 1, 50))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return np.ceil(rng.random(len(values)) * (right - left) + left)


def upstream_batches(adata) -> Iterator[tuple[Tensor, Tensor]]:
    """Collate as upstream does: 64 cells in the order of the data, padded to the longest."""
    rng = np.random.default_rng(0)
    for start in range(0, adata.n_obs, BATCH):
        cells = []
        for row in adata.X[start : start + BATCH].toarray():
            genes = np.flatnonzero(row)
            values = upstream_bins(row[genes], rng)
            if len(genes) >= LONGEST:
                kept = rng.permutation(len(genes))[: LONGEST - 1]
                genes, values = genes[kept], values[kept]
            cells.append((genes, values))
        width = 1 + max(len(genes) for genes, _ in cells)
        ids, values_bl = torch.full((len(cells), width), N_TOKENS - 3), torch.full((len(cells), width), -2.0)
        ids[:, 0] = N_TOKENS - 2
        for cell, (genes, values) in enumerate(cells):
            ids[cell, 1 : 1 + len(genes)] = torch.from_numpy(genes)
            values_bl[cell, 1 : 1 + len(genes)] = torch.from_numpy(values).float()
        yield ids, values_bl


@torch.no_grad()
def upstream_forward(peer: Peer, batches) -> np.ndarray:
    """Embed batch by batch."""
    return np.concatenate([peer(ids, values).numpy() for ids, values in batches])


def forward_rows(folder: Path, peer: Peer, adata, *, repeats: int) -> list[dict[str, object]]:
    """Forward alone, both sides on the tokens and values that our encoding gives."""
    model = sclcm.models.load(folder, family="scgpt", device="cpu", dtype="float32")
    batches = list(open_input(adata, model).batches(model, batch_size=None))
    rows, theirs = in_order(batches)
    found: dict[str, np.ndarray] = {}

    def ours(dtype: str):
        cast = model.to("cpu", dtype)
        recipe, out = cast.recipes["embed"], np.zeros((adata.n_obs, WIDTH), np.float32)
        found[f"sclcm {dtype}"] = out
        vectors = CellVectors(out=out, pooling=recipe.pooling, l2_normalize=recipe.l2_normalize)
        return lambda: list(run(cast.lcm, batches, [vectors], device=cast.device, n_blocks=None))

    def upstream() -> None:
        found["upstream's way"] = upstream_forward(peer, theirs)[np.argsort(rows)]

    ways = {"upstream's way": upstream, "sclcm float32": ours("float32"), "sclcm bfloat16": ours("bfloat16")}
    return table_rows("forward", adata.n_obs, alternate(ways, repeats=repeats), found=found)


def in_order(batches) -> tuple[np.ndarray, list[tuple[Tensor, Tensor]]]:
    """Put our batches into upstream's: 64 cells, padded to the longest, in the order of the data."""
    cells = {}
    for batch in batches:
        for i, row in enumerate(batch.rows):
            length = int(batch.mask[i].sum())
            cells[int(row)] = batch.token_ids[i, :length], batch.values["value"][i, :length]
    order, out = sorted(cells), []
    for start in range(0, len(order), BATCH):
        part = [cells[row] for row in order[start : start + BATCH]]
        width = max(len(ids) for ids, _ in part)
        ids, values = torch.full((len(part), width), N_TOKENS - 3), torch.full((len(part), width), -2.0)
        for i, (tokens, channel) in enumerate(part):
            ids[i, : len(tokens)], values[i, : len(tokens)] = torch.from_numpy(tokens), torch.from_numpy(channel)
        out.append((ids, values))
    return np.array(order), out


def encoding_rows(folder: Path, adata, repeats: int) -> list[dict[str, object]]:
    """Counts to padded batches of tokens."""
    model = sclcm.models.load(folder, family="scgpt", device="cpu", dtype="float32")
    ways = {
        "upstream's way": lambda: list(upstream_batches(adata)),
        "sclcm": lambda: list(open_input(adata, model).batches(model, batch_size=None)),
    }
    return table_rows("encoding", adata.n_obs, alternate(ways, repeats=repeats), found={})


def end_to_end_rows(folder: Path, peer: Peer, adata, *, repeats: int) -> list[dict[str, object]]:
    """From an AnnData to vectors."""
    model = {
        dtype: sclcm.models.load(folder, family="scgpt", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")
    }
    ways = {
        "upstream's way": lambda: upstream_forward(peer, upstream_batches(adata)),
        "sclcm float32": lambda: sclcm.tl.embed(adata, model["float32"], device="cpu", dtype="float32"),
        "sclcm bfloat16": lambda: sclcm.tl.embed(adata, model["bfloat16"], device="cpu", dtype="bfloat16"),
    }
    return table_rows("end to end", adata.n_obs, alternate(ways, repeats=repeats), found={})


def table_rows(
    what: str, n_cells: int, seconds: dict[str, float], *, found: dict[str, np.ndarray]
) -> list[dict[str, object]]:
    """Cells per second, the ratio to upstream, and how alike the vectors are where there are any."""
    upstream = "upstream's way"
    rows = []
    for name, time in seconds.items():
        row: dict[str, object] = {what: name, "cells/s": f"{n_cells / time:.2f}"}
        row["against upstream"] = f"{seconds[upstream] / time:.2f}x"
        if found:
            row["smallest cosine"] = f"{smallest_cosine(found[name], found[upstream]):.6f}"
        rows.append(row)
    return rows


def results(folder: Path, few, many, *, repeats: int) -> dict[str, list[dict[str, object]]]:
    """Run everything."""
    peer = write_checkpoint(folder)
    return {
        "forward": forward_rows(folder, peer, few, repeats=repeats),
        "encoding": encoding_rows(folder, many, repeats),
        "end to end": end_to_end_rows(folder, peer, few, repeats=repeats),
    }
