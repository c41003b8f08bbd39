"""How much faster does a converted folder load than the authors' own files?

    python benchmarks/load.py [--repeats 15] [--json results.json]

Random models of the published sizes are written as their authors write them: Geneformer V1-10M as `pytorch_model.bin`
with pickled dictionaries, scGPT whole-human as a torch file with JSON. Each is converted, and both are loaded in turn
in one process, with all files in the system's cache. `load` alone leaves the weights of a converted folder in their
file and the digest for later; the second comparison asks for both: it reads every weight and computes the digest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import _scgpt
import torch
from _setting import alternate, machine, save_json, table, write_checkpoint
from safetensors.torch import load_file

import sclcm


def write_geneformer(folder: Path) -> None:
    """Write V1-10M as its authors do, with the weights in the pickled form of that time."""
    folder.mkdir()
    write_checkpoint(folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def write_scgpt(folder: Path) -> None:
    """Write scGPT of the whole-human size."""
    folder.mkdir()
    _scgpt.write_checkpoint(folder)


def load(folder: Path, family: str | None) -> sclcm.models.Pretrained:
    """Load a model."""
    return sclcm.models.load(folder, family=family, device="cpu", dtype="float32")


def load_and_touch(folder: Path, family: str | None) -> str:
    """Load a model, read every weight, and compute its digest."""
    model = load(folder, family)
    for parameter in model.lcm.parameters():
        parameter.sum()
    return model.sha256


def rows(name: str, folder: Path, family: str, *, repeats: int) -> list[dict[str, object]]:
    """Compare the authors' files with the converted folder."""
    converted = sclcm.models.convert(folder, folder.with_name(f"{folder.name}-converted"), family=family)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    found = []
    for what, way in {"load": load, "load, read all, digest": load_and_touch}.items():
        ways = {
            "native": lambda way=way: way(folder, family),
            "converted": lambda way=way: way(converted, None),
        }
        seconds = alternate(ways, repeats=repeats)
        found.append(
            {
                "model": name,
                "MB": f"{size:.0f}",
                "what": what,
                "authors' files (ms)": f"{1000 * seconds['native']:.0f}",
                "converted (ms)": f"{1000 * seconds['converted']:.0f}",
                "ratio": f"{seconds['native'] / seconds['converted']:.1f}x",
            }
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, family, write in (
            ("Geneformer V1-10M", "geneformer", write_geneformer),
            ("scGPT whole-human", "scgpt", write_scgpt),
        ):
            folder = Path(scratch) / family
            write(folder)
            found += rows(name, folder, family, repeats=given.repeats)
    print(machine())
    print(table(found))
    save_json(given.json, found)


if __name__ == "__main__":
    main()
