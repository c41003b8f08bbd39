"""GenePT: vectors of NCBI's summary of each gene, weighted by expression (doi:10.1101/2023.10.16.562533)."""

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

OTHER = ("ensem_emb_*.pickle",)

SPEC = ModelSpec(
    name="genept",
    title="GenePT: vectors of NCBI's summary of each gene, weighted by expression",
    reference="Chen and Zou, bioRxiv 2023",
    card=ModelCard(
        gene_encoding="fixed vectors of text: NCBI's summary of each gene, embedded by ada-002; symbols",
        value_encoding="weight of the gene's vector",
        backbone="none",
        objective="none: vectors are used as they are",
        corpus="text about genes",
        tasks=("cell embedding", "gene classification", "annotation by nearest neighbours"),
        input="log-normalised expression, used as it is; gene symbols",
    ),
    vocabulary=VectorGenes(
        files=("GPT_3_5_gene_embeddings*.pickle",),
        others=(OTHER,),
        ids="symbol",
        gene_columns=("gene_symbol", "gene_name", "feature_name"),
    ),
    arrays={"scelmo": VectorTable(files=OTHER)},
    encoding=Encoding(select=InOrder(), value=Normalized(), max_tokens=None),
    architecture=LCMConfig(
        d_model=Shape("vectors", 1), gene=FixedVectors(n_tokens=Shape("vectors")), backbone=NoBackbone()
    ),
    keys=KeyMap(Rename("vectors", "embed.gene.weight")),
    # GenePT-w: the paper scales it to length one, the authors' notebooks do not ("aa").
    recipes={
        "embed": Recipe(pooling=ExpressionSum(over="genes"), l2_normalize=True),
        "aa": Recipe(pooling=ExpressionSum(over="genes")),
    },
    weights=("GPT_3_5_gene_embeddings*.pickle",),
    config=VectorFile(tensor="vectors"),
    checkpoints={
        "gpt-3.5": Checkpoint(
            description="vectors of 1,536 numbers of NCBI's summaries of genes",
            license="as the record on Zenodo states; the authors' repository has no licence file",
            source="zenodo.org/records/10030426, which github.com/yiqunchen/GenePT names",
            files=("GPT_3_5_gene_embeddings.pickle",),
        ),
    },
    needs="expression",
    accepts_bulk=True,
)
