"""scGPT: a Transformer over the expressed genes of a cell with binned values (doi:10.1038/s41592-024-02201-0)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Shape, WherePresent
from sclcm.checkpoints.keymap import Either, KeyMap, Rename, StripPrefix
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Bins
from sclcm.nn.configs import (
    BackboneConfig,
    BatchNorm,
    ConditionTable,
    DomainNorm,
    FeedForward,
    LayerNorm,
    LCMConfig,
    RoleTable,
    ScalarMLP,
    SoftmaxAttention,
    TableEncoder,
    ValueTable,
)
from sclcm.nn.readouts import CellClassHead, CellGeneHead, FirstToken, TokenMean, ValueHead, ValueWeightedSum
from sclcm.zoo._card import ModelCard
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._spec import Checkpoint, HasTensor, ModelSpec, Recipe, Variant, VocabularySource

NORM = LayerNorm(eps=1e-5)
INPUT_EPS = 6.1e-5
TABLE = "encoder.embedding.weight"
BLOCK = "transformer_encoder.layers.{}."
OURS = "backbone.blocks.{}."
FILES = ("best_model.pt", "args.json", "vocab.json")
DRIVE = "the folder that the README of github.com/bowang-lab/scGPT links to: "
LICENSE = "MIT (code; the folders state no licence of their own)"

SPEC = ModelSpec(
    name="scgpt",
    title="scGPT: a Transformer over the expressed genes of a cell, their values in bins",
    reference="Cui et al., Nature Methods 2024",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="51 bins per cell, through an MLP",
        extra_tokens="<cls>; batch of fine-tuned models",
        backbone="Transformer encoder: post-norm, softmax attention, two groups of tokens in generation",
        objective="masked and generated values, from tokens and from the cell",
        corpus="33 million normal human cells, CELLxGENE; also single organs and tumours",
        tasks=("cell embedding", "annotation", "integration", "perturbation", "gene networks"),
        input="raw counts, gene symbols",
    ),
    vocabulary=VocabularySource(
        files=("vocab.json",),
        ids="symbol",
        specials=("<pad>", "<cls>", "<eoc>"),
        pad="<pad>",
        gene_columns=("feature_name", "gene_name"),
        merge="keep",
        append=True,
    ),
    # Upstream's collator has 51 bins written into it, whatever the checkpoint's arguments say; bins follow the order of
    # the values alone, so that counts need no normalisation. <cls> has the value of the padding.
    encoding=Encoding(
        select=InOrder(),
        value=Bins(n_bins=51),
        special_value=Config("pad_value"),
        prefix=("<cls>",),
        max_tokens=Config("max_seq_len"),
    ),
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=TableEncoder(n_tokens=Shape(TABLE), norm=NORM),
        value=ScalarMLP(d_hidden=Shape("value_encoder.linear1.weight"), largest=512.0, norm=NORM),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "linear1.weight"),
            attention=SoftmaxAttention(n_heads=Config("nheads"), projects_targets=False),
            feed_forward=FeedForward(d_hidden=Shape("transformer_encoder.layers.0.linear1.weight"), activation="relu"),
            norm="post",
            layer_norm=NORM,
            dropout=Config("dropout"),
        ),
    ),
    # The attention's joint projection goes by three names: of flash-attn, of PyTorch, and of upstream's later wrapper.
    keys=KeyMap(
        StripPrefix("module."),
        Rename(TABLE, "embed.gene.weight"),
        Rename("encoder.enc_norm.weight", "embed.gene_norm.weight"),
        Rename("encoder.enc_norm.bias", "embed.gene_norm.bias"),
        Either(
            (
                Rename(BLOCK + "self_attn.Wqkv.weight", OURS + "attn.qkv.weight"),
                Rename(BLOCK + "self_attn.in_proj_weight", OURS + "attn.qkv.weight"),
                Rename(BLOCK + "self_attn._impl.Wqkv.weight", OURS + "attn.qkv.weight"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "self_attn.Wqkv.bias", OURS + "attn.qkv.bias"),
                Rename(BLOCK + "self_attn.in_proj_bias", OURS + "attn.qkv.bias"),
                Rename(BLOCK + "self_attn._impl.Wqkv.bias", OURS + "attn.qkv.bias"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "self_attn.out_proj.weight", OURS + "attn.out.weight"),
                Rename(BLOCK + "self_attn._impl.out_proj.weight", OURS + "attn.out.weight"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "self_attn.out_proj.bias", OURS + "attn.out.bias"),
                Rename(BLOCK + "self_attn._impl.out_proj.bias", OURS + "attn.out.bias"),
            )
        ),
        Rename(BLOCK + "linear1.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "linear1.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "linear2.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "linear2.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
    ),
    recipes={
        "embed": Recipe(pooling=FirstToken(), l2_normalize=True),
        "cls": Recipe(pooling=FirstToken(), l2_normalize=True),
        "avg_pool": Recipe(pooling=TokenMean()),
        "w_pool": Recipe(pooling=ValueWeightedSum(), l2_normalize=True),
    },
    weights=("best_model.pt",),
    config="args.json",
    requires={
        "embsize": Shape(TABLE, 1),
        "d_hid": Shape("transformer_encoder.layers.0.linear1.weight"),
        "nlayers": Count(BLOCK + "linear1.weight"),
        "pad_token": "<pad>",
        "input_emb_style": (
            WherePresent("value_encoder.linear1.weight", "continuous"),
            WherePresent("value_encoder.embedding.weight", "category"),
        ),
        "pre_norm": False,
    },
    variants=(
        Variant(
            when=(HasTensor("value_encoder.linear1.weight"),),
            keys=KeyMap(
                Rename("value_encoder.linear1.weight", "embed.value.mlp.up.weight"),
                Rename("value_encoder.linear1.bias", "embed.value.mlp.up.bias"),
                Rename("value_encoder.linear2.weight", "embed.value.mlp.down.weight"),
                Rename("value_encoder.linear2.bias", "embed.value.mlp.down.bias"),
                Rename("value_encoder.norm.weight", "embed.value.mlp.norm.weight"),
                Rename("value_encoder.norm.bias", "embed.value.mlp.norm.bias"),
            ),
        ),
        # Values by a table of bins, upstream's "category" style.
        Variant(
            when=(HasTensor("value_encoder.embedding.weight"),),
            architecture={"value": ValueTable(n_values=Shape("value_encoder.embedding.weight"), norm=NORM)},
            keys=KeyMap(
                Rename("value_encoder.embedding.weight", "embed.value.rows.table.weight"),
                Rename("value_encoder.enc_norm.weight", "embed.value.rows.norm.weight"),
                Rename("value_encoder.enc_norm.bias", "embed.value.rows.norm.bias"),
            ),
        ),
        # Pre-training marks the tokens whose value is to be generated.
        Variant(
            when=(HasTensor("flag_encoder.weight"),),
            architecture={"role": RoleTable(n_roles=Shape("flag_encoder.weight"))},
            keys=KeyMap(Rename("flag_encoder.weight", "embed.role.weight")),
        ),
        # Older checkpoints normalise the sum of the embeddings over the corpus, as they were trained.
        Variant(
            when=(HasTensor("bn.running_mean"),),
            architecture={"embedding_norm": BatchNorm(eps=INPUT_EPS)},
            keys=KeyMap(
                Rename("bn.weight", "embed.norm.norm.weight"),
                Rename("bn.bias", "embed.norm.norm.bias"),
                Rename("bn.running_mean", "embed.norm.norm.running_mean"),
                Rename("bn.running_var", "embed.norm.norm.running_var"),
                Rename("bn.num_batches_tracked", "embed.norm.norm.num_batches_tracked"),
            ),
        ),
        # Models fine-tuned for integration normalise it batch by batch.
        Variant(
            when=(HasTensor("dsbn.bns.0.running_mean"),),
            architecture={"embedding_norm": DomainNorm(n_domains=Count("dsbn.bns.{}.running_mean"), eps=INPUT_EPS)},
            keys=KeyMap(
                Rename("dsbn.bns.{}.running_mean", "embed.norm.norms.{}.running_mean"),
                Rename("dsbn.bns.{}.running_var", "embed.norm.norms.{}.running_var"),
                Rename("dsbn.bns.{}.num_batches_tracked", "embed.norm.norms.{}.num_batches_tracked"),
            ),
        ),
        Variant(
            when=(HasTensor("batch_encoder.embedding.weight"),),
            architecture={"condition": ConditionTable(n_conditions=Shape("batch_encoder.embedding.weight"), norm=NORM)},
            keys=KeyMap(
                Rename("batch_encoder.embedding.weight", "embed.condition.table.weight"),
                Rename("batch_encoder.enc_norm.weight", "embed.condition.norm.weight"),
                Rename("batch_encoder.enc_norm.bias", "embed.condition.norm.bias"),
            ),
        ),
        # Heads: the value of a token, from its own vector or from the cell's and the gene's, and whether it is zero.
        Variant(
            when=(HasTensor("decoder.fc.0.weight"),),
            heads={
                "value": ValueHead(
                    d_in=Shape("decoder.fc.0.weight", 1),
                    d_hidden=Shape("decoder.fc.0.weight"),
                    n_layers=Count("decoder.fc.{}.weight"),
                )
            },
            keys=KeyMap(
                Rename("decoder.fc.{}.weight", "heads.value.layers.{}.weight"),
                Rename("decoder.fc.{}.bias", "heads.value.layers.{}.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("decoder.zero_logit.0.weight"),),
            heads={
                "expressed": ValueHead(
                    d_in=Shape("decoder.zero_logit.0.weight", 1),
                    d_hidden=Shape("decoder.zero_logit.0.weight"),
                    n_layers=Count("decoder.zero_logit.{}.weight"),
                )
            },
            keys=KeyMap(
                Rename("decoder.zero_logit.{}.weight", "heads.expressed.layers.{}.weight"),
                Rename("decoder.zero_logit.{}.bias", "heads.expressed.layers.{}.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("mvc_decoder.W.weight"),),
            heads={"cell_gene": CellGeneHead(d_cell=Shape("mvc_decoder.W.weight"))},
            keys=KeyMap(
                Rename("mvc_decoder.gene2query.weight", "heads.cell_gene.query.weight"),
                Rename("mvc_decoder.gene2query.bias", "heads.cell_gene.query.bias"),
                Rename("mvc_decoder.W.weight", "heads.cell_gene.matrix.weight"),
            ),
        ),
        Variant(
            when=(HasTensor("mvc_decoder.W_zero_logit.weight"),),
            heads={
                "cell_gene_expressed": CellGeneHead(
                    d_cell=Shape("mvc_decoder.W_zero_logit.weight"), bias=True, query_of="cell_gene"
                )
            },
            keys=KeyMap(
                Rename("mvc_decoder.W_zero_logit.weight", "heads.cell_gene_expressed.matrix.weight"),
                Rename("mvc_decoder.W_zero_logit.bias", "heads.cell_gene_expressed.matrix.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("cls_decoder.out_layer.weight"),),
            heads={
                "cell_class": CellClassHead(
                    n_hidden=Count("cls_decoder._decoder.{}.weight", per=2),
                    n_classes=Shape("cls_decoder.out_layer.weight"),
                    activation="relu",
                    layer_norm=NORM,
                )
            },
            keys=KeyMap(
                # Upstream's `n_layers_cls` may be one: then there is nothing but the last layer.
                Rename("cls_decoder._decoder.{}.weight", "heads.cell_class.layers.{}.weight", optional=True),
                Rename("cls_decoder._decoder.{}.bias", "heads.cell_class.layers.{}.bias", optional=True),
                Rename("cls_decoder.out_layer.weight", "heads.cell_class.out.weight"),
                Rename("cls_decoder.out_layer.bias", "heads.cell_class.out.bias"),
            ),
            labels=ClassLabels(head="cell_class"),
        ),
        # Tells the batches apart, behind a reversed gradient, so that training makes cells forget theirs.
        Variant(
            when=(HasTensor("grad_reverse_discriminator.out_layer.weight"),),
            heads={
                "batch_class": CellClassHead(
                    n_hidden=Count("grad_reverse_discriminator._decoder.{}.weight", per=2),
                    n_classes=Shape("grad_reverse_discriminator.out_layer.weight"),
                    activation="leaky_relu",
                    layer_norm=NORM,
                )
            },
            keys=KeyMap(
                Rename("grad_reverse_discriminator._decoder.{}.weight", "heads.batch_class.layers.{}.weight"),
                Rename("grad_reverse_discriminator._decoder.{}.bias", "heads.batch_class.layers.{}.bias"),
                Rename("grad_reverse_discriminator.out_layer.weight", "heads.batch_class.out.weight"),
                Rename("grad_reverse_discriminator.out_layer.bias", "heads.batch_class.out.bias"),
            ),
        ),
    ),
    checkpoints={
        "human": Checkpoint(
            description="12 blocks of width 512, 33 million normal human cells",
            n_parameters=51_330_049,
            license=LICENSE,
            source=DRIVE + "whole-human",
            files=FILES,
        ),
        "continual": Checkpoint(
            description="12 blocks of width 512, whole-human continued with cell type labels",
            license=LICENSE,
            source=DRIVE + "continual pretrained",
            files=FILES,
        ),
        "brain": Checkpoint(
            description="12 blocks of width 512, 13.2 million cells of the brain",
            license=LICENSE,
            source=DRIVE + "brain",
            files=FILES,
        ),
        "blood": Checkpoint(
            description="12 blocks of width 512, 10.3 million cells of blood and bone marrow",
            license=LICENSE,
            source=DRIVE + "blood",
            files=FILES,
        ),
        "heart": Checkpoint(
            description="12 blocks of width 512, 1.8 million cells of the heart",
            license=LICENSE,
            source=DRIVE + "heart",
            files=FILES,
        ),
        "lung": Checkpoint(
            description="12 blocks of width 512, 2.1 million cells of the lung",
            license=LICENSE,
            source=DRIVE + "lung",
            files=FILES,
        ),
        "kidney": Checkpoint(
            description="12 blocks of width 512, 0.8 million cells of the kidney",
            license=LICENSE,
            source=DRIVE + "kidney",
            files=FILES,
        ),
        "pan-cancer": Checkpoint(
            description="12 blocks of width 512, 5.7 million cells of tumours",
            license=LICENSE,
            source=DRIVE + "pan-cancer",
            files=FILES,
        ),
    },
)
