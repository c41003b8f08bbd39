"""How fast is each family, and what does a token cost as sentences grow? Prints one table, both sides in turn.

    python benchmarks/zoo.py [--families tgpt scbert] [--repeats 3] [--tokens 16384] [--threads 2] [--json results.json]
        [--device cuda --sentences 16 --half]

Every family at its smallest published size, as `tests/zoo/full_size` lists its tensors, with random weights in float32;
one cell at a time or as many as `--sentences` says, without padding, from token ids and values to token vectors (and
through the decoder, where a family has one). With `--half` ours is timed in bfloat16, too; the peer stays in float32,
as the authors publish it.

The peer is what the authors' code stands on, where a public library has it, at the same width, depth and heads:
transformers' BERT and GPT-2 with PyTorch's fused attention, PyTorch's own encoder with its fast path, or the library of
random features. It starts from token vectors; for the ratio ours does, too, except where a decoder reads ids. Memory
is the peak of a process of its own while one side, built already, reads such sentences of the longest length; on an
accelerator, what such a pass takes there beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import _peers
import torch
from _setting import alternate, finished, machine, peak_memory, save_json, table

from sclcm._sizes import ReleaseFacts, resolve_sizes
from sclcm.engine.sets import Pieces, through_blocks
from sclcm.models._build import build_lcm
from sclcm.models._device import copy_to
from sclcm.nn.tokens import CellTensors, TokenTensors
from sclcm.zoo._registry import get_spec
from sclcm.zoo._spec import StoredArray, with_variants
from sclcm.zoo._submodels import InSubmodels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sclcm.nn.lcm import LCM

LISTS = Path(__file__).parents[1] / "tests" / "zoo" / "full_size"
UNSTATED = {"nheads": 8, "n_head": 20, "nhead": 20, "dropout": 0.0}
"""What a listing says nowhere: scGPT's eight heads, scMulan's twenty, UCE's twenty."""


WHOLE = ("position_ids", "homologous_index", "steps")
"""Tensors of whole numbers whose type is not listed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family at one size.

    Parameters
    ----------
    listing
        Start of the name of the listed checkpoint.
    lengths
        Tokens of a sentence.
    peer
        Makes the peer of the width and the configuration, or `None` where no public library has it.
    token_is_cell
        Whether a sentence is a set of cells, and its length their number.
    """

    listing: str
    lengths: tuple[int, ...] = (256, 1024, 2048)
    peer: Callable[[Mapping[str, Any]], _peers.Forward] | None = None
    token_is_cell: bool = False


CASES = {
    "geneformer": Case(
        listing="Geneformer-V1-10M", peer=lambda c: _peers.bert(256, 6, n_heads=4, d_hidden=512, activation="relu")
    ),
    "genecompass": Case(listing="GeneCompass_Small", peer=lambda c: _peers.bert(768, 6, n_heads=12, d_hidden=3072)),
    "tgpt": Case(
        listing="transcriptome-gpt-1024-8-16-64",
        lengths=(16, 64, 256),
        peer=lambda c: _peers.gpt2(c["n_embd"], c["n_layer"], n_heads=c["n_head"]),
    ),
    "nicheformer": Case(
        listing="nicheformer",
        lengths=(512, 1024, 1500),
        peer=lambda c: _peers.encoder(c["dim_model"], c["nlayers"], n_heads=c["nheads"], d_hidden=c["dim_feedforward"]),
    ),
    "scbert": Case(
        listing="panglao_pretrain.pth",
        lengths=(1024, 4096, 16_907),
        peer=lambda c: _peers.performer(
            c["dim"], c["depth"], n_heads=c["heads"], head_width=c["dim_head"], n_features=c["nb_features"]
        ),
    ),
    "scgpt": Case(listing="whole-human", peer=lambda c: _peers.encoder(512, 12, n_heads=8, d_hidden=512)),
    "scmulan": Case(
        listing="ckpt_scMulan.pt",
        lengths=(256, 1024),
        peer=lambda c: _peers.gpt2(c["n_embd"], c["n_layer"], n_heads=20),
    ),
    "uce": Case(
        listing="UCE 4-layer",
        lengths=(256, 1536),
        peer=lambda c: _peers.encoder(c["d_model"], c["nlayers"], n_heads=c["nhead"], d_hidden=c["d_hid"]),
    ),
    "cellfm": Case(listing="CellFM-80M"),
    "cellplm": Case(listing="20230926_85M", lengths=(256, 1024, 4096), token_is_cell=True),
    "scfoundation": Case(
        listing="models.ckpt", lengths=(256, 1024, 2048), peer=lambda _: _peers.encoder_and_performer()
    ),
    # Its bridge mixes whole sentences of this length, and refuses any other.
    "sctranslator": Case(listing="scTranslator", lengths=(20_000,), peer=lambda _: _peers.two_performers()),
}


def listed(family: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The listing of the family's smallest checkpoint, and its configuration."""
    content = json.loads((LISTS / f"{family}.json").read_text())
    facts = next(facts for name, facts in content.items() if name.startswith(CASES[family].listing))
    return facts["state_dict"], _peers.config_of(facts)


def random_tensor(name: str, stored: list[Any]) -> torch.Tensor:
    """Small random weights of a listed shape, equal for equal shapes, since some are one tensor stored twice.

    Ones where a vector is a scale or a shift; whole numbers count.
    """
    dtype, shape = stored if stored and isinstance(stored[0], str) else ("float32", stored)
    if "int" in dtype or name.endswith(WHOLE):
        return torch.arange(math.prod(shape)).reshape(shape)
    torch.manual_seed(0)
    return torch.randn(shape) * 0.02 if len(shape) > 1 else torch.ones(shape)


def build(family: str) -> LCM:
    """Our model of the listed size."""
    shapes, config = listed(family)
    spec = get_spec(family)
    if isinstance(spec.config, InSubmodels):
        config = spec.config.settings(config)
    state = spec.keys.bare({name: random_tensor(name, stored) for name, stored in shapes.items()})
    facts = ReleaseFacts(
        config=config,
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        given={name: value for name, value in UNSTATED.items() if name not in config},
    )
    spec = with_variants(spec, facts, SimpleNamespace(specials=spec.vocabulary.specials))
    for source in spec.arrays.values():
        if isinstance(source, StoredArray):
            state.pop(source.tensor)
    return build_lcm(resolve_sizes(spec.architecture, facts), spec.keys.forward(state))


@dataclass(frozen=True, kw_only=True)
class How:
    """Where, and how many sentences side by side.

    Parameters
    ----------
    device
        The device.
    n_sentences
        Sentences read at a time.
    """

    device: str = "cpu"
    n_sentences: int = 1


def blocks(lcm: LCM, how: How) -> Callable[[int], object]:
    """Read random sentences of token vectors of a length: the part that the peer has, too."""
    width, dtype = int(lcm.config.d_model), lcm.embed.gene.weight.dtype  # type: ignore[arg-type]

    def read(length: int) -> object:
        with torch.inference_mode():
            x_bld = torch.randn(how.n_sentences, length, width, device=how.device, dtype=dtype)
            return lcm.backbone(x_bld, None)

    return read


def ours(family: str, how: How, lcm: LCM | None = None) -> Callable[[int], object]:
    """Read random sentences of a length."""
    lcm = build(family).to(how.device) if lcm is None else lcm
    if CASES[family].token_is_cell:
        return partial(read_cells, lcm, how.device)

    def read(length: int) -> object:
        ids = (torch.arange(5, length + 5, device=how.device) % 900).repeat(how.n_sentences, 1)
        zeros_b = torch.zeros(how.n_sentences, dtype=torch.long, device=how.device)
        tokens = TokenTensors(
            token_ids_bl=ids,
            mask_bl=None,
            gene_mask_bl=torch.ones_like(ids, dtype=torch.bool),
            value_bl=1.0 + ids % 4,
            condition_b=zeros_b,
            species_b=zeros_b,
            asked_ids_bm=torch.arange(1_000, device=how.device).repeat(how.n_sentences, 1),
        )
        with torch.inference_mode():
            x_bld = lcm(tokens)
            return x_bld if lcm.decoder is None else lcm.decode(x_bld, tokens)

    return read


def read_cells(lcm: LCM, device: str, n_cells: int) -> object:
    """Read one set of random cells that express 1,000 genes each."""
    ids = torch.randint(0, 15_000, (1_000 * n_cells,), device=device)
    cells = CellTensors(
        token_ids_v=ids,
        value_v=torch.ones(len(ids), device=device),
        start_n=torch.arange(0, len(ids), 1_000, device=device),
    )
    with torch.inference_mode():
        return through_blocks(lcm, lcm.cells(cells), n_blocks=None, pieces=Pieces(n_cells))


def theirs(family: str, how: How) -> Callable[[int], object] | None:
    """Read random sentences of token vectors of a length by the peer, where there is one."""
    make = CASES[family].peer
    if make is None:
        return None
    with torch.device(how.device):
        forward = make(listed(family)[1])
    width = as_width(family)

    def read(length: int) -> object:
        with torch.inference_mode():
            return forward(torch.randn(how.n_sentences, length, width, device=how.device))

    return read


def as_width(family: str) -> int:
    """Width of a token vector."""
    config = listed(family)[1]
    if family == "scfoundation":
        return config["model_config"]["mae_autobin"]["encoder"]["hidden_dim"]
    return next(
        config[key] for key in ("hidden_size", "n_embd", "dim_model", "dim", "embsize", "d_model") if key in config
    )


MEMORY = """
import sys
import torch
import zoo
from _setting import forget_peak, own_peak
torch.set_num_threads(2)
side, family, length, n_sentences = sys.argv[1:]
read = (zoo.ours if side == "ours" else zoo.theirs)(family, zoo.How(n_sentences=int(n_sentences)))
forget_peak()
read(int(length))
print(own_peak())
"""


def memory_of(read: Callable[[int], object], side: str, *, family: str, how: How) -> float:
    """MB at most, at the longest length."""
    longest = max(CASES[family].lengths)
    if not how.device.startswith("cuda"):
        return peak_memory(MEMORY, side, family, str(longest), str(how.n_sentences))
    torch.cuda.reset_peak_memory_stats(how.device)
    before = torch.cuda.memory_allocated(how.device)
    read(longest)
    return (torch.cuda.max_memory_allocated(how.device) - before) / 2**20


def rows_of(family: str, given: argparse.Namespace) -> list[dict[str, object]]:
    """Time all sides in turn, at each length."""
    case, how = CASES[family], How(device=given.device, n_sentences=given.sentences)
    lcm = build(family).to(how.device)
    sides = {"sclcm": ours(family, how, lcm), "peer": theirs(family, how)}
    compared = partial(blocks, how=how) if lcm.decoder is None else partial(ours, family, how)
    if sides["peer"] is not None:
        sides["compared"] = compared(lcm=lcm)
    if given.half:
        half = copy_to(lcm, device=torch.device(how.device), dtype=torch.bfloat16)
        sides["half"] = ours(family, how, half) if sides["peer"] is None else compared(lcm=half)
    present = {name: read for name, read in sides.items() if read is not None}
    longest, n_sets = max(case.lengths), 1 if case.token_is_cell else how.n_sentences
    memory = {
        name: memory_of(present[name], side, family=family, how=how)
        for name, side in (("sclcm", "ours"), ("peer", "theirs"))
        if name in present
    }
    rows = []
    for length in case.lengths:
        ways = {name: finished(partial(read, length), how.device) for name, read in present.items()}
        seconds = alternate(ways, repeats=max(given.repeats, given.tokens // (length * n_sets)))
        base = seconds["peer" if "peer" in present else "sclcm"]
        rows.append(
            {
                "family": family,
                "tokens": length,
                "cells/s": f"{(length if case.token_is_cell else n_sets) / seconds['sclcm']:.2f}",
                "us a token": f"{1e6 * seconds['sclcm'] / length / n_sets:{given.digits}}",
                "peer, us a token": f"{1e6 * seconds['peer'] / length / n_sets:{given.digits}}"
                if "peer" in seconds
                else "no library has it",
                "against the peer": f"{base / seconds['compared']:.2f}x" if "peer" in seconds else "",
                **({"bfloat16": f"{base / seconds['half']:.2f}x"} if given.half else {}),
                "peak memory (MB)": f"{memory['sclcm']:.0f}" if length == longest else "",
                "the peer's": f"{memory['peer']:.0f}" if length == longest and "peer" in memory else "",
            }
        )
    return rows


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16_384, help="read of each length at least")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sentences", type=int, default=1, help="read at a time")
    parser.add_argument("--half", action="store_true", help="time ours in bfloat16, too")
    parser.add_argument("--digits", default=".0f", help="how a time is written")
    parser.add_argument("--json", help="file to write the table to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: dict[str, object] = {"machine": machine(given.device), "zoo": []}
    for family in given.families:
        rows = rows_of(family, given)
        results["zoo"] += rows  # type: ignore[operator]
        print(table(rows) if family == given.families[0] else "\n".join(table(rows).splitlines()[2:]), flush=True)
    print(results["machine"], file=sys.stderr)
    save_json(given.json, results)


if __name__ == "__main__":
    main()
