"""`ModelCard`: what people compare families by, in words, beside what a spec declares for the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One row of the table of families; `sclcm models describe` prints it, docs/models.md is generated from it.

    Parameters
    ----------
    gene_encoding
        What stands for a gene.
    value_encoding
        What stands for expression.
    extra_tokens
        Tokens of a sentence that are no genes; empty if there are none.
    backbone
        What mixes the tokens.
    objective
        What pre-training minimised.
    corpus
        What it was trained on.
    tasks
        What the authors use it for.
    input
        What the authors' input contract asks for.
    """

    gene_encoding: str
    value_encoding: str
    extra_tokens: str = ""
    backbone: str
    objective: str
    corpus: str
    tasks: tuple[str, ...]
    input: str
