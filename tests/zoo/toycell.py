"""ToyCell, a family that nobody published: values through an MLP, a Transformer encoder, values as its objective."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Shape
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename
from sclcm.encoding.normalize import LogNormalize
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import BackboneConfig, FeedForward, LCMConfig, ScalarMLP, SoftmaxAttention, TableEncoder
from sclcm.nn.readouts import FirstToken, MeanPooling
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import Checkpoint, ModelSpec, Recipe, VocabularySource

BLOCK, OURS = "layers.{}.", "backbone.blocks.{}."

SPEC = ModelSpec(
    name="toycell",
    title="ToyCell: a Transformer over the expressed genes of a cell",
    reference="nobody, never",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="log counts, through an MLP",
        extra_tokens="<cls>",
        backbone="Transformer encoder",
        objective="masked values",
        corpus="none",
        tasks=("cell embedding",),
        input="raw counts, gene symbols",
    ),
    vocabulary=VocabularySource(
        files=("toy_genes.json",), ids="symbol", specials=("<pad>", "<cls>", "<mask>"), pad="<pad>", mask="<mask>"
    ),
    encoding=Encoding(
        normalize=(LogNormalize(target_sum=1e4),),
        select=InOrder(),
        value=Normalized(),
        prefix=("<cls>",),
        max_tokens=Config("max_len"),
    ),
    architecture=LCMConfig(
        d_model=Config("embsize"),
        gene=TableEncoder(n_tokens=Shape("encoder.weight")),
        value=ScalarMLP(d_hidden=Shape("value.0.weight")),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "o.weight"),
            attention=SoftmaxAttention(n_heads=Config("nheads")),
            feed_forward=FeedForward(d_hidden=Shape("layers.0.up.weight")),
            norm="pre",
        ),
    ),
    keys=KeyMap(
        Drop("step"),
        Rename("encoder.weight", "embed.gene.weight"),
        Rename("value.0.weight", "embed.value.mlp.up.weight"),
        Rename("value.0.bias", "embed.value.mlp.up.bias"),
        Rename("value.2.weight", "embed.value.mlp.down.weight"),
        Rename("value.2.bias", "embed.value.mlp.down.bias"),
        Join((BLOCK + "q.weight", BLOCK + "k.weight", BLOCK + "v.weight"), OURS + "attn.qkv.weight"),
        Join((BLOCK + "q.bias", BLOCK + "k.bias", BLOCK + "v.bias"), OURS + "attn.qkv.bias"),
        Rename(BLOCK + "o.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "o.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "up.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "up.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "down.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "down.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
    ),
    recipes={"embed": Recipe(pooling=FirstToken()), "mean": Recipe(pooling=MeanPooling(), l2_normalize=True)},
    weights=("model.safetensors",),
    checkpoints={
        "none": Checkpoint(
            description="never trained", license="BSD-3-Clause", source="nowhere", files=("toy_genes.json",)
        )
    },
)
