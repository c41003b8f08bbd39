"""The code that the README and the documentation show: all of it runs, or is a command that the command line knows.

A page's blocks run section by section, on the data and the files of authors that the section is about: for those the
packaged fixtures stand in. What cannot run here has a comment before it, `<!-- not run: why -->`.
"""

from __future__ import annotations

import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import anndata as ad
import numpy as np
import pytest
import typer

import sclcm
from sclcm.cli import app

ROOT = Path(__file__).parents[1]
REFERENCE = Path(str(files("sclcm.reference")))
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?P<skip><!-- not run: .+? -->\n+)?^```(?P<language>python|bash)\n(?P<code>.*?)^```", re.M | re.S)


def file(place):
    """Return the path of a packaged file as it stands in code."""
    return repr(str(REFERENCE / place))


# Whose cells a section is about, by its heading, and what stands in for files and values that are not in the package.
ABOUT = {
    "Models": (None, {'"folder/with/the/authors/files"': file("geneformer/v1/checkpoint")}),
    "What the cells are": (
        "nicheformer",
        {'"folder/with/the/authors/files"': file("nicheformer/checkpoint")},
    ),
    "scGPT": ("scgpt", {'"folder"': file("scgpt/checkpoint")}),
    "CellFM": ("cellfm", {'"folder", ': f"{file('cellfm/checkpoint')}, enc_num_heads=4, nonz_len=150, "}),
    "CellPLM": ("cellplm", {'"folder"': file("cellplm/checkpoint")}),
    "scMulan": ("scmulan", {'"folder"': file("scmulan/checkpoint")}),
    "scFoundation": ("scfoundation", {'"folder"': file("scfoundation/checkpoint")}),
    "tGPT": ("tgpt", {'"folder"': file("tgpt/checkpoint")}),
    "GeneCompass": ("genecompass", {'"folder"': file("genecompass/checkpoint/GeneCompass_tiny")}),
    "scBERT": (
        "scbert",
        {'"folder"': file("scbert/checkpoint"), '"folder/mine_best.pth"': file("scbert/checkpoint/finetune_best.pth")},
    ),
    "Nicheformer": ("nicheformer", {'"folder"': file("nicheformer/checkpoint"), '"MERFISH"': '"CosMx"'}),
    "UCE": ("uce", {'"folder", ': f"{file('uce/checkpoint')}, nhead=4, sample_size=96, pad_length=176, "}),
    "scTranslator": (
        "sctranslator",
        {'"folder"': file("sctranslator/checkpoint"), '["CD3E", "CD19", "CD14"]': '["ABCA1", "ACTN4"]'},
    ),
    "Gene vectors of text": (
        "genept",
        {
            f'"folder/with/{name}"': file(f"genept/{name}")
            for name in ("GPT_3_5_gene_embeddings.pickle", "ensem_emb_gpt3.5all.pickle")
        },
    ),
}


def sections(page):
    """Yield heading and blocks of each section that has code that is to run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for part in re.split(r"^(?=#+ )", text, flags=re.M):
        blocks = [found for found in BLOCK.finditer(part) if not found["skip"]]
        if blocks:
            yield part.partition("\n")[0].lstrip("# "), [(block["language"], block["code"]) for block in blocks]


def cases(language):
    for page in PAGES:
        for heading, blocks in sections(page):
            if chosen := [code for kind, code in blocks if kind == language]:
                yield pytest.param(heading, chosen, id=f"{page}-{heading[:20]}")


@pytest.fixture
def _at_ease(monkeypatch, tmp_path):
    """Tiny models know few genes, and an encoder of text is made up."""
    monkeypatch.setattr(sclcm.settings, "min_genes_matched", 1)
    monkeypatch.setattr(sclcm.settings, "min_share", 0.0)
    monkeypatch.setattr(sclcm.settings, "progress", False)
    monkeypatch.chdir(tmp_path)
    encoder = ModuleType("sentence_transformers")
    encoder.SentenceTransformer = type(
        "SentenceTransformer",
        (),
        {"__init__": lambda _, name: None, "encode": lambda _, texts: np.ones((len(texts), 4), dtype=np.float32)},
    )
    monkeypatch.setitem(sys.modules, "sentence_transformers", encoder)


def cells(family):
    """Return the cells of a section, with the columns and slots that users have."""
    adata = (
        sclcm.datasets.pbmc68k_reduced()[:40].copy()
        if family is None
        else ad.read_h5ad(REFERENCE / family / "input.h5ad")
    )
    adata.obs["donor"] = adata.obs["fov"] = "one"
    adata.obs["technology"] = "CosMx"
    adata.obsm["spatial"] = np.random.default_rng(0).random((adata.n_obs, 2))
    adata.layers["log1p"] = adata.X.copy() if family == "genept" else np.log1p(adata.X)
    return adata


@pytest.mark.usefixtures("_at_ease")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("heading", "blocks"), list(cases("python")))
def test_code_runs(heading, blocks):
    family, others = next((about for name, about in ABOUT.items() if heading.startswith(name)), (None, {}))
    adata = cells(family)
    namespace = {"sclcm": sclcm, "np": np, "adata": adata, "summaries": dict.fromkeys(adata.var_names, "a gene")}
    for code in blocks:
        for shown, meant in others.items():
            code = code.replace(shown, meant)  # noqa: PLW2901
        exec(compile(code, heading, "exec"), namespace)


@pytest.mark.parametrize(("heading", "blocks"), list(cases("bash")))
def test_commands_are_known(heading, blocks):
    group = typer.main.get_command(app)
    for command in re.split(r"&&|\n", "\n".join(blocks)):
        words = shlex.split(command, comments=True)
        if words[:1] != ["sclcm"] or "--version" in words:
            continue
        found, rest = group, words[1:]
        while hasattr(found, "commands"):
            assert rest[0] in found.commands, command
            found, rest = found.commands[rest[0]], rest[1:]
        found.make_context("sclcm", rest)


def test_most_sections_on_models_have_code_that_runs():
    assert sum(1 for _ in cases("python")) >= 15
