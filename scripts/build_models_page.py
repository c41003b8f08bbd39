"""Write the table of families into docs/models.md, from what the specs of the zoo declare.

    python scripts/build_models_page.py

What stands between the two marks in that page is replaced; a test holds the page against the specs.
"""

from __future__ import annotations

from pathlib import Path

from sclcm.models import describe
from sclcm.zoo._registry import family_names, get_spec

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- families: written by scripts/build_models_page.py -->", "<!-- families: end -->"
HEAD = (
    "family", "gene encoding", "value encoding", "extra tokens", "backbone", "objective", "parameters", "corpus",
    "species", "tasks", "input", "weights", "their licence", "reference",
)  # fmt: skip


def short(n_parameters: int) -> str:
    """Return a number of parameters as people say it."""
    return f"{n_parameters / 1e9:.2g} B" if n_parameters >= 1e9 else f"{n_parameters / 1e6:.3g} M"


def distinct(values: list[str]) -> str:
    """Join what differs, in order."""
    return "; ".join(dict.fromkeys(value for value in values if value))


def origin(model: dict) -> str:
    """Say how one comes by the weights."""
    if model["bundled"]:
        return "come with the package"
    if not model["files"]:
        return "none are published"
    return "fetched from the model hub" if model["fetchable"] else "by hand"


def row(family: str, checkpoints: list[dict]) -> str:
    """Return the row of one family."""
    first = checkpoints[0]
    cells = (
        f"`{family}`",
        first["gene_encoding"],
        first["value_encoding"],
        first["extra_tokens"] or "none",
        first["backbone"],
        first["objective"],
        distinct([short(model["n_parameters"]) for model in checkpoints if model["n_parameters"]]) or "not stated",
        first["corpus"],
        ", ".join(first["species"]),
        ", ".join(first["tasks"]),
        first["input"],
        distinct([origin(model) for model in checkpoints]),
        distinct([model["license"] for model in checkpoints]),
        first["reference"],
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |"


def families() -> dict[str, list[dict]]:
    """Return the descriptions of every model, by family; one without published weights has one of its own."""
    return {
        family: [describe(f"{family}.{key}") for key in get_spec(family).checkpoints] or [describe(family)]
        for family in family_names()
    }


def table() -> str:
    """Return the table of all families in Markdown."""
    rows = [row(family, checkpoints) for family, checkpoints in families().items()]
    return "\n".join(["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *rows])


def page(text: str) -> str:
    """Return a page with the table of today between the marks."""
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n\n{table()}\n\n{text[after:]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
