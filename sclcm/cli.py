"""The command line: arguments to public functions.

Heavy packages are imported inside the commands, so that `sclcm --help` is immediate.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.models._pretrained import Pretrained

_USER_ERRORS = (ImportError, KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


class _Commands(TyperGroup):
    """Show an error as one line and exit with status 1; `--debug`, anywhere on the line, shows where it arose.

    A reader of the output that stops early, such as `head`, is no error: the command ends quietly, with status 1.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = [argument for argument in args if argument != "--debug"]
        return super().parse_args(ctx, ["--debug", *rest] if len(rest) < len(args) else rest)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):  # typer itself sees to all three
            raise
        except _USER_ERRORS as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {_one_line(error)}", err=True)
            raise typer.Exit(1) from error


def _one_line(error: BaseException) -> str:
    # `str` of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
models_app = typer.Typer(no_args_is_help=True, help="List, describe and download models.", rich_markup_mode=None)
app.add_typer(models_app, name="models")

DType = Literal["auto", "float32", "bfloat16", "float16"]
Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="An .h5ad or .zarr file, or the name of a bundled data set.")
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[DType, typer.Option(help="Number type of the weights.")]
Layer = Annotated[str | None, typer.Option(help="Layer to read instead of .X.")]
UseRaw = Annotated[bool, typer.Option("--use-raw", help="Read .raw.X instead of .X.")]
GeneKey = Annotated[
    str | None, typer.Option(help="Column of .var with the gene names.  [default: found automatically]")
]
BatchKey = Annotated[
    str | None, typer.Option(help="Column of .obs with the batch of each cell, for models that need it.")
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        help="What the cells are, as NAME=COLUMN of .obs or NAME=VALUE, or NAME= if no value fits. Repeatable."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Largest number of cells in a batch.  [default: chosen by memory]")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random steps.")  # the range of numpy's seeds
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from sclcm._compat import package_version

        typer.echo(package_version())
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings and errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run large cellular models on AnnData files."""
    from sclcm._settings import settings

    settings.verbosity = "debug" if debug else "warning" if quiet else "info"
    settings.progress = settings.progress and not quiet


def _conditions(said: list[str]) -> dict[str, str | None]:
    pairs = [each.partition("=") for each in said]
    if wrong := [each for each, (_, sign, _) in zip(said, pairs, strict=True) if not sign]:
        msg = f"`--condition` is {wrong[0]!r}; expected name=value, such as assay=MERFISH."
        raise ValueError(msg)
    return {name: value or None for name, _, value in pairs}


@app.command()
def embed(
    source: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .h5ad or .zarr.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Name or path of the model.")] = "sclcm-mini",
    family: Annotated[str | None, typer.Option(help="Family of a model that is given as a path.")] = None,
    annotate: Annotated[bool, typer.Option("--annotate", help="Also label the cells with cell types.")] = False,
    umap: Annotated[Path | None, typer.Option(help="Also draw a UMAP into this file: .png, .pdf or .svg.")] = None,
    recipe: Annotated[str, typer.Option(help="One of the recipes listed by `sclcm models describe`.")] = "embed",
    layer: Layer = None,
    use_raw: UseRaw = False,
    gene_key: GeneKey = None,
    batch_key: BatchKey = None,
    condition: Conditions = None,
    batch_size: BatchSize = None,
    random_state: Seed = 0,
    device: Device = "auto",
    dtype: Precision = "auto",
    key_added: Annotated[
        str | None,
        typer.Option(help="Name under which the embedding is stored.  [default: X_ and the model's name]"),
    ] = None,
) -> None:
    """Embed the cells of a file, and optionally label and draw them."""
    _check_outputs(source, output, umap)
    from sclcm._keys import embed_keys
    from sclcm.models._load import load
    from sclcm.tl._embed import embed as embed_cells

    adata = _read(source)
    pretrained = load(model, family=family, device=device, dtype=dtype)
    _check_work(adata, pretrained, annotate=annotate, umap=umap is not None)
    embed_cells(
        adata,
        pretrained,
        recipe=recipe,
        layer=layer,
        use_raw=use_raw,
        gene_key=gene_key,
        batch_key=batch_key,
        conditions=_conditions(condition or []),
        batch_size=batch_size,
        random_state=random_state,
        device=device,
        dtype=dtype,
        key_added=key_added,
    )
    key = embed_keys(pretrained.name, key_added).obsm
    if annotate:
        from sclcm.tl._annotate import annotate as annotate_cells

        where = key if recipe == "embed" and pretrained.labels is None else None
        annotate_cells(
            adata,
            pretrained,
            use_rep=where,
            layer=layer,
            use_raw=use_raw,
            gene_key=gene_key,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
        )
    if umap is not None:
        from sclcm.tl._umap import umap as lay_out

        lay_out(adata, key, random_state=random_state)
    _write(adata, output)
    if umap is not None:
        _draw(adata, key, umap)
    typer.echo(f"{output}: {adata.n_obs:,} cells, embedding in obsm[{key!r}]")


@app.command()
def check(
    source: Input,
    layer: Layer = None,
    use_raw: UseRaw = False,
) -> None:
    """Tell what the matrix of a file holds, and where raw counts are."""
    from sclcm.pp._check_counts import check_counts

    typer.echo(str(check_counts(_read(source), layer=layer, use_raw=use_raw)))


@app.command()
def verify(
    family: Annotated[str | None, typer.Argument(help="Family to verify; all families by default.")] = None,
    fixture: Annotated[Path | None, typer.Option(help="Folder with other reference numbers of FAMILY.")] = None,
    dtype: Precision = "float32",
    device: Device = "cpu",
) -> None:
    """Check the results against the numbers of the authors' own code.

    The exit status is 1 if any of them differs.
    """
    from sclcm.models._verify import summary
    from sclcm.models._verify import verify as verify_family

    checks = []
    for result in verify_family(family, fixture=fixture, dtype=dtype, device=device):
        checks.append(result)
        typer.echo(str(result))
    typer.echo(summary(checks))
    raise typer.Exit(1 if any(result.status in {"FAIL", "UNKNOWN"} for result in checks) else 0)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Name of a model, or folder with the authors' files.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder to write: new, empty, or a saved model to replace.")
    ],
    family: Annotated[str | None, typer.Option(help="Family of the files, if it cannot be told from them.")] = None,
    dtype: Precision = "float32",
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A value that the files do not contain. Repeatable."),
    ] = None,
) -> None:
    """Save a model as safetensors and JSON, which load much faster.

    DST can then be given wherever a model is expected.
    """
    from sclcm.models._convert import convert as convert_model

    stated = dict(_stated(each) for each in given or ())
    folder = convert_model(source, target, family=family, dtype=dtype, **stated)
    size = sum(file.stat().st_size for file in folder.iterdir())
    typer.echo(f"{folder}: {size / 2**20:,.1f} MB")


def _stated(text: str) -> tuple[str, Any]:
    """Take `NAME=VALUE` apart; a value that is JSON is read as such, any other is text."""
    import json

    name, found, value = text.partition("=")
    if not found or not name.isidentifier() or name in {"source", "target", "family", "dtype", "device"}:
        msg = f"`--set` takes NAME=VALUE, such as `--set n_heads=8`, got {text!r}."
        raise typer.BadParameter(msg)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@models_app.command("list")
def list_models() -> None:
    """List the models that can be loaded by name."""
    from sclcm.models._load import list_models as known_models

    for name in known_models():
        typer.echo(name)


@models_app.command()
def describe(name: Annotated[str, typer.Argument(help="Name of a family or checkpoint.")]) -> None:
    """Describe a model: what it needs, how to get it, its recipes."""
    from sclcm.models._describe import describe as describe_model

    for key, value in describe_model(name).items():
        if value not in (None, "", [], {}):
            typer.echo(f"{key}:{_as_text(value)}")


@models_app.command()
def fetch(name: Annotated[str, typer.Argument(help="Name of a family or checkpoint.")]) -> None:
    """Download the files of a model, and print their folder.

    The model then works without a network.
    """
    from sclcm.models._load import fetch as fetch_model

    typer.echo(str(fetch_model(name)))


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return "".join(f"\n  {key}: {each}" for key, each in value.items())
    if isinstance(value, bool):
        return " yes" if value else " no"
    if isinstance(value, int):
        return f" {value:,}"
    return " " + (", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _read(source: str) -> AnnData:
    """Open a file, an .h5ad backed by its file, or make a bundled data set."""
    from importlib import import_module

    path = Path(source)
    if path.exists():
        from sclcm.data.opening import open_adata

        return open_adata(path)
    bundled = import_module("sclcm.datasets")
    name = source.replace("-", "_")
    if name in bundled.__all__:
        return getattr(bundled, name)()
    names = ", ".join(sorted(each.replace("_", "-") for each in bundled.__all__))
    msg = f"{source!r} is neither a file nor a bundled data set ({names})."
    raise FileNotFoundError(msg)


def _check_outputs(source: str, output: Path, picture: Path | None) -> None:
    """Refuse, before any work is done, what cannot be written."""
    _check_path("--output", output, (".h5ad", ".zarr"))
    if output.resolve() == Path(source).resolve():
        msg = f"`--output` is the input itself, {source!r}; choose another name."
        raise typer.BadParameter(msg)
    if picture is not None:
        _check_path("--umap", picture, (".png", ".pdf", ".svg"))


def _check_work(adata: AnnData, pretrained: Pretrained, *, annotate: bool, umap: bool) -> None:
    """Refuse, before the cells are embedded, what would fail after it."""
    if annotate:
        from sclcm.tl._annotate import require_labels

        require_labels(pretrained)
    if umap:
        from sclcm.tl._umap import require_cells

        require_cells(adata.n_obs)


def _check_path(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        msg = f"`{option}` must end in {' or '.join(suffixes)}, got {str(path)!r}."
        raise typer.BadParameter(msg)
    if not path.resolve().parent.is_dir():
        msg = f"there is no folder {str(path.parent)!r} for `{option}`; make it first."
        raise typer.BadParameter(msg)


def _draw(adata: AnnData, key: str, picture: Path) -> None:
    from sclcm.pl._umap import umap as draw

    draw(adata, key, save=picture)


def _write(adata: AnnData, output: Path) -> None:
    """Write the result; an .h5ad file appears when it is complete."""
    if output.suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2", category=UserWarning)
            adata.write_zarr(output)
        return
    from sclcm.checkpoints.files import write_atomically

    def store(path: Path) -> None:
        adata.write_h5ad(path)
        if adata.isbacked:
            adata.file.close()  # by now it is the new file, which is about to be moved

    write_atomically(output, store)


def main() -> None:
    """Run the command line."""
    app(prog_name="sclcm")


if __name__ == "__main__":  # as in `python -m sclcm.cli`
    main()
