"""SpaFormer: a Performer over the cells of a field of view, told where they lie (doi:10.48550/arXiv.2302.03038)."""

from __future__ import annotations

from sclcm._sizes import Count, Quotient, Shape
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename, Transpose
from sclcm.encoding.coordinates import FieldCoordinates
from sclcm.encoding.normalize import LogNormalizeKnown
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import BackboneConfig, KernelAttention, LayerNorm, LCMConfig
from sclcm.nn.set_configs import (
    ActivatedHead,
    BagOfGenes,
    ClosedFeedForward,
    ExpressionDecoder,
    GridPositions,
    TokenItself,
)
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import ModelSpec, Recipe
from sclcm.zoo._vocabularies import ListedGenes

TABLE = "encoder.emb.weight"
ATTENTION = "encoder.attlayers.{}."
FEATURES = "fast_attention.projection_matrix"
FIRST = "encoder.attlayers.0."
FORWARD = "encoder.fflayers.{}."
OURS = "backbone.blocks.{}."

SPEC = ModelSpec(
    name="spaformer",
    title="SpaFormer: a Performer over the cells of a field of view, told where they lie",
    reference="Wen et al., arXiv 2023",
    card=ModelCard(
        gene_encoding="learned table over the genes of a panel",
        value_encoding="sum of the genes' vectors, each times log1p of counts per 250",
        extra_tokens="none: a token is a cell, with a vector of its square on a grid",
        backbone="Performer over the cells of a field of view: post-norm, positive random features (FAVOR+)",
        objective="masked cells, half of whose values are hidden; reconstruction of log counts",
        corpus="none: trained anew on each data set (CosMx: lung, kidney, liver)",
        tasks=("imputation of spatial data", "clustering of cells"),
        input="raw counts of one panel; the field of view of each cell names its set, `.obsm['spatial']` its place",
    ),
    vocabulary=ListedGenes(files=("genes.json",), genes="genes", ids="symbol"),
    encoding=Encoding(
        normalize=(LogNormalizeKnown(target_sum=250),),
        select=InOrder(),
        value=Normalized(),
        max_tokens=None,
        coordinates=FieldCoordinates(key="spatial"),
    ),
    architecture=LCMConfig(
        d_model=Shape(TABLE),
        gene=BagOfGenes(n_tokens=Shape(TABLE, 1), bias=True),
        # A hundred squares from 0 to 1; of rows there are ten more, as training moves coordinates by up to a tenth.
        position=GridPositions(n_rows=110, n_columns=100, squares=100),
        embedding_norm=LayerNorm(),
        backbone=BackboneConfig(
            n_blocks=Count(ATTENTION + "to_q.weight"),
            attention=KernelAttention(
                n_heads=Quotient(of=Shape(FIRST + "to_q.weight"), by=Shape(FIRST + FEATURES, 1)),
                d_head=Shape(FIRST + FEATURES, 1),
                n_features=Shape(FIRST + FEATURES),
                stabilizer="head",
            ),
            feed_forward=ClosedFeedForward(d_hidden=Shape("encoder.fflayers.0.0.weight"), activation="gelu"),
            norm="post",
            dropout=0.2,
        ),
        heads={
            "latent": ActivatedHead(
                d_in=Shape("encoder.head.weight", 1), d_latent=Shape("encoder.head.weight"), activation="gelu"
            ),
            "expression": ExpressionDecoder(
                d_latent=Shape("decoder.0.weight", 1),
                d_inner=Shape("decoder.0.weight"),
                n_tokens=Shape("decoder.3.weight"),
            ),
        },
    ),
    keys=KeyMap(
        Drop("enc_mask_token"),  # never read
        Transpose(TABLE, "embed.gene.weight"),
        Rename("encoder.emb.bias", "embed.bias"),
        Rename("encoder.pe_enc.weight", "embed.position.weight"),
        Rename("encoder.norm0.weight", "embed.norm.weight"),
        Rename("encoder.norm0.bias", "embed.norm.bias"),
        Join(
            (ATTENTION + "to_q.weight", ATTENTION + "to_k.weight", ATTENTION + "to_v.weight"), OURS + "attn.qkv.weight"
        ),
        Rename(ATTENTION + FEATURES, OURS + "attn.projection"),
        Rename(ATTENTION + "to_out.weight", OURS + "attn.out.weight"),
        Rename(ATTENTION + "to_out.bias", OURS + "attn.out.bias"),
        Rename("encoder.norm1.{}.weight", OURS + "norm1.weight"),
        Rename("encoder.norm1.{}.bias", OURS + "norm1.bias"),
        Rename(FORWARD + "0.weight", OURS + "ff.up.weight"),
        Rename(FORWARD + "0.bias", OURS + "ff.up.bias"),
        Rename(FORWARD + "3.weight", OURS + "ff.down.weight"),
        Rename(FORWARD + "3.bias", OURS + "ff.down.bias"),
        Rename("encoder.norm2.{}.weight", OURS + "norm2.weight"),
        Rename("encoder.norm2.{}.bias", OURS + "norm2.bias"),
        Rename("encoder.head.weight", "heads.latent.out.weight"),
        Rename("encoder.head.bias", "heads.latent.out.bias"),
        Rename("decoder.0.weight", "heads.expression.up.weight"),
        Rename("decoder.0.bias", "heads.expression.up.bias"),
        Rename("decoder.1.weight", "heads.expression.activation.weight"),
        Rename("decoder.3.weight", "heads.expression.out.weight"),
        Rename("decoder.3.bias", "heads.expression.out.bias"),
    ),
    # Upstream saves no embedding; the latent vector is what its decoder reads.
    recipes={
        "embed": Recipe(pooling=TokenItself(), head="latent"),
        "backbone": Recipe(pooling=TokenItself()),
    },
    weights=("*.ckpt",),
    config=None,
    checkpoints={},
    sizes={
        "d_model": 128,
        "n_blocks": 2,
        "n_heads": 8,
        "d_head": 64,
        "n_features": 266,
        "d_hidden": 512,
        "d_in": 128,
        "d_latent": 20,
        "d_inner": 128,
    },
)
