"""BioFormers: a BERT over all genes of a cell, tokens for pairs of a gene and a bin (doi:10.1101/2023.11.29.569320)."""

from __future__ import annotations

from sclcm._sizes import Count, Given, Shape
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename
from sclcm.encoding.expand import StoreAll
from sclcm.encoding.fixed_bins import LogBins
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.nn.configs import (
    BackboneConfig,
    ConstantSegment,
    FeedForward,
    LayerNorm,
    LCMConfig,
    LearnedPositions,
    SoftmaxAttention,
)
from sclcm.nn.readouts import MeanPooling, TokenHead
from sclcm.nn.table_configs import GeneBinTable
from sclcm.zoo._card import ModelCard
from sclcm.zoo._gene_bins import GeneBinVocabulary
from sclcm.zoo._spec import ModelSpec, Recipe

NORM = LayerNorm(eps=1e-12)
N_BINS = Given("n_bins")
TABLE = "Bert.embeddings.word_embeddings.weight"
PLACES = "Bert.embeddings.position_embeddings.weight"
BLOCK = "Bert.encoder.layer.{}."
SELF = BLOCK + "attention.self."
OURS = "backbone.blocks.{}."

SPEC = ModelSpec(
    name="bioformers",
    title="BioFormers: a BERT over pairs of a gene and a bin, for all genes of a cell",
    reference="Amara-Belgadi et al., bioRxiv 2023",
    card=ModelCard(
        gene_encoding="learned table, a row for each gene and bin; highly variable genes, symbols",
        value_encoding="the count up to 8, bins of a third of a doubling above, as part of the token",
        backbone="BERT: post-norm, full softmax attention",
        objective="masked tokens, half of them of expressed genes; the loss is over all tokens",
        corpus="none: trained anew on each data set (PBMC, Adamson)",
        tasks=("prediction of masked expression", "gene networks", "perturbation"),
        input="raw counts of highly variable genes, gene symbols",
    ),
    vocabulary=GeneBinVocabulary(files=("gene_names.npy",), ids="symbol", n_bins=N_BINS, mask="<mask>"),
    # The width is written so upstream: a doubling above the cutoff is the fourth bin, not the third.
    encoding=Encoding(
        expand=StoreAll(),
        select=InOrder(),
        value=LogBins(cutoff=8.0, width=0.3333333, n_bins=N_BINS),
        max_tokens=Shape(PLACES),
    ),
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=GeneBinTable(n_tokens=Shape(TABLE), n_bins=N_BINS),
        position=LearnedPositions(n_positions=Shape(PLACES)),
        segment=ConstantSegment(n_segments=Shape("Bert.embeddings.token_type_embeddings.weight")),
        embedding_norm=NORM,
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "output.dense.weight"),
            attention=SoftmaxAttention(n_heads=Given("n_heads")),
            feed_forward=FeedForward(d_hidden=Shape("Bert.encoder.layer.0.intermediate.dense.weight")),
            norm="post",
            layer_norm=NORM,
            dropout=0.1,
        ),
        heads={"token": TokenHead(activation="gelu", layer_norm=NORM, n_tokens=Shape(TABLE))},
    ),
    keys=KeyMap(
        Drop("Bert.embeddings.position_ids"),
        Drop("Bert.pooler.dense.weight"),  # computed upstream, and read by nothing
        Drop("Bert.pooler.dense.bias"),
        Rename(TABLE, "embed.gene.weight"),
        Rename(PLACES, "embed.position.weight"),
        Rename("Bert.embeddings.token_type_embeddings.weight", "embed.segment.weight"),
        Rename("Bert.embeddings.LayerNorm.weight", "embed.norm.weight"),
        Rename("Bert.embeddings.LayerNorm.bias", "embed.norm.bias"),
        Join((SELF + "query.weight", SELF + "key.weight", SELF + "value.weight"), OURS + "attn.qkv.weight"),
        Join((SELF + "query.bias", SELF + "key.bias", SELF + "value.bias"), OURS + "attn.qkv.bias"),
        Rename(BLOCK + "attention.output.dense.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "attention.output.dense.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "attention.output.LayerNorm.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "attention.output.LayerNorm.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "intermediate.dense.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "intermediate.dense.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "output.dense.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "output.dense.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "output.LayerNorm.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "output.LayerNorm.bias", OURS + "norm2.bias"),
        Rename("ClassificationHead.1.weight", "heads.token.norm.weight"),
        Rename("ClassificationHead.1.bias", "heads.token.norm.bias"),
        Rename("ClassificationHead.3.weight", "heads.token.out.weight"),
        Rename("ClassificationHead.3.bias", "heads.token.out.bias"),
    ),
    # Upstream has no cell vectors: these are ours.
    recipes={"embed": Recipe(pooling=MeanPooling())},
    weights=("*_epoch_*_loss_*",),
    config=None,
    checkpoints={},
    sizes={"d_model": 768, "n_blocks": 12, "n_heads": 12, "d_hidden": 3_072, "n_segments": 2},
)
