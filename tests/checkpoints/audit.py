"""Run as a program: read every file of a folder and print each audit event that reading data does not explain."""

from __future__ import annotations

import sys
from pathlib import Path

# What reading a file and mapping it into memory cause; anything else, `import` and `exec` above all, is reported.
ALLOWED = {"open", "mmap.__new__", "object.__getattr__", "os.listdir", "os.scandir", "builtins.id"}


def main(folder: Path) -> None:
    """Read each file twice: once to let lazy imports happen on honest ones, once under the audit hook."""
    from sclcm.checkpoints.readers import read_array, read_json, read_tensors, read_torch

    events: list[str] = []
    listening = False

    def hook(event: str, args: tuple[object, ...]) -> None:
        if listening and (event not in ALLOWED or (event == "open" and args[1] not in {"r", "rb", None})):
            events.append(f"{event} {str(args)[:200]}")

    def read(path: Path) -> None:
        reader = {".json": read_json, ".npy": read_array, ".npz": read_array}.get(path.suffix, read_torch)
        for attempt in (reader, read_tensors):
            try:
                attempt(path)
            except (ValueError, KeyError) as error:
                outcomes.append(type(error).__name__)
            else:
                outcomes.append("read")

    outcomes: list[str] = []
    for path in sorted(folder.glob("honest*")):
        read(path)
    sys.addaudithook(hook)
    outcomes.clear()
    paths = sorted(folder.iterdir())
    listening = True
    for path in paths:
        read(path)
    listening = False
    sys.stdout.write("\n".join([*events, f"{len(paths)} files, {outcomes.count('read')} read"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
