"""sclcm-mini: a small Transformer over the most telling genes of a cell, trained on public human cells; comes along."""

from __future__ import annotations

from sclcm._sizes import Config, Shape
from sclcm.checkpoints.keymap import Keep, KeyMap
from sclcm.encoding.normalize import LogNormalize, Standardize
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import BackboneConfig, FeedForward, LCMConfig, ScaledGene, SoftmaxAttention, TableEncoder
from sclcm.nn.readouts import LinearHead, MeanPooling
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import Checkpoint, ModelSpec, PrototypeSource, Recipe, StoredArray, VocabularySource

SPEC = ModelSpec(
    name="sclcm-mini",
    title="sclcm-mini: a small Transformer over the most telling genes of a cell",
    reference="sclcm developers, 2026 (scripts/mini in the repository trains it)",
    card=ModelCard(
        gene_encoding="learned table, Ensembl ids",
        value_encoding="the gene's vector times its standardised log count",
        extra_tokens="<cls>",
        backbone="Transformer encoder: pre-norm, full softmax attention",
        objective="cell types, two views of a cell, values of genes",
        corpus="public human cells of 21 sets and 504 average profiles",
        tasks=("cell embedding", "zero-shot annotation"),
        input="raw counts; symbols or Ensembl ids",
    ),
    vocabulary=VocabularySource(files=("vocabulary.json",), ids="ensembl", specials=("<pad>", "<cls>"), pad="<pad>"),
    arrays={"mean": StoredArray(tensor="mean"), "deviation": StoredArray(tensor="deviation")},
    # The deviation has the importance of a gene divided into it, so that telling genes rank first and count more.
    encoding=Encoding(
        normalize=(
            LogNormalize(target_sum=1e4, total_key="n_counts"),
            Standardize(mean="mean", deviation="deviation", clip=8.0),
        ),
        select=ByRank(),
        value=Normalized(),
        prefix=("<cls>",),
        max_tokens=Config("max_tokens"),
        total_key="n_counts",
    ),
    architecture=LCMConfig(
        d_model=Config("d_model"),
        gene=TableEncoder(n_tokens=Shape("embed.gene.weight")),
        value=ScaledGene(),
        backbone=BackboneConfig(
            n_blocks=Config("n_blocks"),
            attention=SoftmaxAttention(n_heads=Config("n_heads")),
            feed_forward=FeedForward(d_hidden=Config("d_hidden"), activation="gelu"),
            norm="pre",
        ),
        heads={"cell": LinearHead(d_in=Config("d_model"), d_out=Config("d_out"), bias=False)},
    ),
    keys=KeyMap(Keep()),
    recipes={
        "embed": Recipe(pooling=MeanPooling(), layer=-1, head="cell"),
        "mean": Recipe(pooling=MeanPooling(), layer=-1),
    },
    weights=("model.safetensors",),
    prototypes=PrototypeSource(file="prototypes.json", tensor="prototypes"),
    checkpoints={
        "v1": Checkpoint(
            description="human cells of 21 public sets and 504 average profiles; genes as Ensembl ids",
            n_parameters=2_792_832,
            license="BSD-3-Clause",
            bundled="sclcm-mini",
        )
    },
)
