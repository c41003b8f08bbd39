"""Train sclcm-mini and write the folder that ships in `sclcm/weights`.

    python scripts/mini/train.py --data FOLDER --work FOLDER [--out sclcm/weights/sclcm-mini]

Three stages, each of which resumes from its checkpoint in `--work`: without blocks, to learn which genes tell cell
types apart; without blocks again, with values scaled by that; then the whole Transformer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from corpus import WHOLE, log_values, make_vocabulary
from prototypes import make_prototypes
from safetensors.torch import save_file
from simulate import BatchMaker, Corpus, neighbours, panel_weights, read_corpus, relations, statistics

from sclcm._sizes import ReleaseFacts, resolve_sizes
from sclcm.engine.training import Pretraining, Schedule, fit
from sclcm.nn.lcm import LCM
from sclcm.nn.objectives import GeneReconstruction, LabelPrototypes, PairContrast, Projection
from sclcm.zoo.sclcm_mini import SPEC

CONFIG = {"d_model": 128, "n_heads": 4, "n_blocks": 2, "d_hidden": 256, "d_out": 64, "max_tokens": 193}
FLOOR = 1.0
N_GENES, ROW_WEIGHT, SEED = 768, 0.6, 0
CELLS = {"telling": (96, 48), "bag": (64, 24), "blocks": (64, 16)}
WEIGHTS = {"telling": {"label": 1.0}, "bag": {"label": 1.0}, "blocks": {"label": 1.0, "pairs": 0.2, "genes": 0.5}}
TEMPERATURE = 0.06
STAGES = {
    "telling": Schedule(learning_rate=2e-3, n_steps=600, decay_from=0.4, table_rate=0.4),
    "bag": Schedule(learning_rate=2e-3, n_steps=600, decay_from=0.4, table_rate=0.4),
    "blocks": Schedule(learning_rate=1.2e-3, n_steps=600, decay_from=0.4, table_rate=0.4),
}


def build(n_tokens: int) -> LCM:
    """A model whose blocks start close to doing nothing."""
    torch.manual_seed(SEED)
    facts = ReleaseFacts(config=CONFIG, shapes={"embed.gene.weight": (n_tokens, CONFIG["d_model"])})
    lcm = LCM(resolve_sizes(SPEC.architecture, facts))
    small = 0.02 / (2 * CONFIG["n_blocks"]) ** 0.5
    for block in lcm.backbone.blocks:
        torch.nn.init.normal_(block.attn.out.weight, std=small)
        torch.nn.init.normal_(block.ff.down.weight, std=small)
    return lcm


def start_genes(lcm: LCM, corpus: Corpus, arrays: dict[str, np.ndarray]) -> None:
    """Set gene vectors from the leading directions of standardised values: profiles, and some cells of each set."""

    def values(cells, rows: np.ndarray) -> np.ndarray:
        logs = log_values(cells.chunk.counts[rows], cells.totals[rows]).toarray()
        return (logs - arrays["mean"]) / arrays["deviation"]

    rng = np.random.default_rng(SEED)
    parts = []
    for profile in corpus.profiles:
        for study in np.unique(profile.study):
            rows = np.flatnonzero(profile.study == study)
            measured = np.asarray((profile.chunk.counts[rows] > 0).sum(0)).ravel() > 0
            parts.append(values(profile, rows) * measured)
    for cells in corpus.sets.values():
        if cells.measured.sum() >= WHOLE:
            rows = rng.choice(len(cells.label), min(100, len(cells.label)), replace=False)
            parts.append(values(cells, rows) * cells.measured * 0.4)
    table = np.vstack(parts).astype(np.float32)
    table -= table.mean(0)
    strength, axes = np.linalg.eigh(table @ table.T)
    leading = np.argsort(-strength)[: CONFIG["d_model"]]
    vectors = table.T @ axes[:, leading] / np.sqrt(np.maximum(strength[leading], 1e-6)) * strength[leading] ** 0.25
    vectors /= np.sqrt((vectors**2).mean())
    vectors = np.clip(vectors, -6, 6)
    vectors *= 0.3 / np.sqrt((vectors**2).mean())
    turn = np.linalg.qr(rng.normal(size=(CONFIG["d_model"], CONFIG["d_model"])))[0]
    with torch.no_grad():
        ids = torch.tensor(corpus.vocabulary.token_ids, dtype=torch.long)
        lcm.embed.gene.weight[ids] = torch.as_tensor((vectors @ turn).astype(np.float32))


def importance(lcm: LCM, corpus: Corpus, mean: np.ndarray) -> np.ndarray:
    """How far a gene moves a cell in the trained embedding, relative to a typical gene; 0.05 to 1.5."""
    ids = torch.tensor(corpus.vocabulary.token_ids, dtype=torch.long)
    moved = lcm.embed.gene.weight.detach()[ids].numpy()
    size = np.linalg.norm(moved - moved.mean(0), axis=1)
    size = np.where(mean > 1e-5, size, np.median(size))
    return np.clip(size / np.median(size[mean > 0.02]) * 0.6, 0.05, 1.5)


def stage(name: str, module: Pretraining, make: BatchMaker, *, work: Path) -> None:
    """Run a stage, or go on with it."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    precision = "bf16-mixed" if module.n_blocks is None else "32-true"
    fit(module, make, folder, every=100, precision=precision)
    module.eval()


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=Path("sclcm/weights/sclcm-mini"))
    given = parser.parse_args()
    vocabulary = make_vocabulary(given.data)
    corpus = read_corpus(given.data, vocabulary)
    right, open_, rivals = relations(corpus, given.data)
    mean, variance = statistics(corpus)
    arrays = {"mean": mean, "deviation": np.sqrt(variance + FLOOR**2)}
    near = neighbours(corpus)
    for name, schedule in STAGES.items():
        if name != "blocks":
            lcm = build(vocabulary.n_tokens)
            start_genes(lcm, corpus, arrays)
            ids = torch.tensor(vocabulary.token_ids, dtype=torch.long)
            projection = Projection(CONFIG["d_model"])
            objectives = {
                "label": LabelPrototypes(CONFIG["d_model"], right, open_, rivals_cc=rivals, row_weight=ROW_WEIGHT),
                "pairs": PairContrast(TEMPERATURE),
                "genes": GeneReconstruction(CONFIG["d_model"], lcm.embed.gene.weight.detach()[ids] * 0.3),
            }
        make = BatchMaker(
            corpus=corpus,
            encoding=resolve_sizes(SPEC.encoding, ReleaseFacts(config=CONFIG)),
            arrays=arrays,
            weights=panel_weights(mean, variance),
            near=near,
            n_simulated=CELLS[name][0],
            n_real=CELLS[name][1],
            objectives=tuple(WEIGHTS[name]),
            n_genes=N_GENES,
            seed=SEED,
        )
        module = Pretraining(
            lcm,
            objectives=objectives,
            weights=WEIGHTS[name],
            schedule=schedule,
            pooling=SPEC.recipes["mean"].pooling,
            head=None,
            projection=projection,
            projected=frozenset({"label", "pairs"}),
            n_blocks=None if name == "blocks" else 0,
        )
        stage(name, module, make, work=given.work)
        if name == "telling":
            arrays = {**arrays, "deviation": arrays["deviation"] / importance(lcm, corpus, mean)}
    set_head(module, make)
    write_release(given.out, lcm, make, data=given.data)


def set_head(module: Pretraining, make: BatchMaker) -> None:
    """Make the head the leading directions of the training cells' vectors, not centred, so that angles stay."""
    with torch.no_grad():
        cells_bd = torch.cat([module.cells(make(-step).tokens) for step in range(1, 25)])
        _, axes = torch.linalg.eigh(cells_bd.T @ cells_bd)
        module.lcm.heads["cell"].out.weight.copy_(axes.T.flip(0)[: CONFIG["d_out"]])


def write_release(out: Path, lcm: LCM, make: BatchMaker, *, data: Path) -> None:
    """Write configuration, vocabulary, prototypes and weights, in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = make.corpus.vocabulary
    genes = zip(vocabulary.features.tolist(), vocabulary.token_ids.tolist(), strict=True)
    tokens = {**vocabulary.specials, **dict(genes)}
    prototypes = make_prototypes(lcm.eval(), make, data)
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in lcm.state_dict().items()}
    tensors |= {name: torch.as_tensor(array, dtype=torch.float32) for name, array in make.arrays.items()}
    tensors["prototypes"] = torch.as_tensor(prototypes.vectors).half()
    save_file(tensors, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    (out / "vocabulary.json").write_text(json.dumps(tokens, separators=(",", ":")) + "\n")
    (out / "prototypes.json").write_text(json.dumps(prototypes.to_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
