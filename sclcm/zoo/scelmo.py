"""scELMo: gene vectors of what a language model says of each gene, weighted by expression."""

from __future__ import annotations

from sclcm._sizes import Shape
from sclcm.checkpoints.keymap import KeyMap, Rename
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import LCMConfig
from sclcm.nn.fixed_configs import FixedVectors
from sclcm.nn.table_configs import ExpressionSum, NoBackbone
from sclcm.zoo._card import ModelCard
from sclcm.zoo._gene_vectors import VectorFile, VectorGenes, VectorTable
from sclcm.zoo._spec import Checkpoint, ModelSpec, Recipe

OTHER = ("GPT_3_5_gene_embeddings*.pickle",)
BOTH = ("genept", "vectors")

SPEC = ModelSpec(
    name="scelmo",
    title="scELMo: vectors of a language model's description of each gene, weighted by expression",
    reference="Liu et al., bioRxiv 2023",
    card=ModelCard(
        gene_encoding="fixed vectors of text: GPT-3.5's description of each gene, embedded by ada-002; symbols",
        value_encoding="weight of the gene's vector",
        backbone="none",
        objective="none: vectors are used as they are",
        corpus="text about genes",
        tasks=("cell embedding", "clustering", "batch correction", "annotation by fine-tuning", "in-silico treatment"),
        input="expression in any unit, used as it is; gene symbols",
    ),
    vocabulary=VectorGenes(
        files=("ensem_emb_*.pickle",),
        others=(OTHER,),
        ids="symbol",
        gene_columns=("gene_symbol", "gene_name", "feature_name"),
    ),
    arrays={"genept": VectorTable(files=OTHER)},
    encoding=Encoding(select=InOrder(), value=Normalized(), max_tokens=None),
    architecture=LCMConfig(
        d_model=Shape("vectors", 1), gene=FixedVectors(n_tokens=Shape("vectors")), backbone=NoBackbone()
    ),
    keys=KeyMap(Rename("vectors", "embed.gene.weight")),
    # The authors' names: "aa" divides by the number of genes of the data, "wa" by the sum of the cell's values. The
    # last two read GenePT's table beside the own one, where its file is there.
    recipes={
        "embed": Recipe(pooling=ExpressionSum(over="total")),
        "wa": Recipe(pooling=ExpressionSum(over="total")),
        "aa": Recipe(pooling=ExpressionSum(over="genes")),
        "sum": Recipe(pooling=ExpressionSum(over="total", tables=BOTH)),
        "concat": Recipe(pooling=ExpressionSum(over="total", tables=BOTH, combine="concat")),
    },
    weights=("ensem_emb_*.pickle",),
    config=VectorFile(tensor="vectors"),
    checkpoints={
        "gpt-3.5": Checkpoint(
            description="vectors of 1,536 numbers of GPT-3.5's descriptions of genes",
            license="none stated: the authors' repository has no licence file",
            source="the data that the README of github.com/HelloWorldLTY/scELMo links to",
            files=("ensem_emb_gpt3.5all.pickle",),
        ),
    },
    needs="expression",
    accepts_bulk=True,
)
