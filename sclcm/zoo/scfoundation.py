"""scFoundation: encoder of expressed genes, decoder of all, aware of depth (doi:10.1038/s41592-024-02305-7)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Shape, Sum
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename, StripPrefix
from sclcm.encoding.depth import (
    CountTotal,
    DepthToken,
    DepthTokens,
    FixedDepth,
    Log10Total,
    PlainTotal,
    StoredTotal,
    ValueTotal,
)
from sclcm.encoding.normalize import LogNormalizeKnown, LogNormalizeToMedian
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    KernelAttention,
    LayerNorm,
    LCMConfig,
    SoftBins,
    SoftmaxAttention,
    TableEncoder,
)
from sclcm.nn.decoder_configs import DecoderConfig, ScatterBridge
from sclcm.nn.readouts import Concatenated, FromEnd, LinearHead, TokenMax, TokenMean
from sclcm.zoo._card import ModelCard
from sclcm.zoo._recipes import GeneRecipe
from sclcm.zoo._spec import Checkpoint, ModelSpec, Recipe
from sclcm.zoo._submodels import InSubmodels
from sclcm.zoo._vocabularies import GeneList

NORM = LayerNorm(eps=1e-5)
TABLE = "pos_emb.weight"
BLOCK = "encoder.transformer_encoder.{}."
OURS = "backbone.blocks.{}."
N_PADDING = 1  # rows of the table after those of the places
DECODER_BLOCK = "decoder.performer.net.layers.{}."
OUR_DECODER_BLOCK = "decoder.backbone.blocks.{}."
FEATURES = "decoder.performer.net.layers.0.0.fn.fast_attention.projection_matrix"

# The two tokens after the genes: the depth that is asked for, and the depth that there is, as log10 of counts.
ASKED = DepthToken(token="<T>", value=FixedDepth(value=4.0))
GIVEN = DepthToken(token="<S>", value=Log10Total())
COUNTS = Encoding(
    normalize=(LogNormalizeKnown(target_sum=1e4),),
    select=InOrder(),
    value=Normalized(),
    max_tokens=None,
    depth=DepthTokens(tokens=(ASKED, GIVEN), total=CountTotal(), target="<T>"),
)
# Upstream's `pre_normalized T`: without counts, the sum of the logarithms stands for the total.
LOGS = Encoding(
    select=InOrder(),
    value=Normalized(),
    max_tokens=None,
    depth=DepthTokens(tokens=(ASKED, GIVEN), total=ValueTotal(), target="<T>"),
)
# Upstream's `pre_normalized A`: the total is a further column there, one of obs here.
LOGS_AND_TOTAL = Encoding(
    select=InOrder(),
    value=Normalized(),
    max_tokens=None,
    depth=DepthTokens(tokens=(ASKED, GIVEN), total=StoredTotal(column="total_counts"), target="<T>"),
)
# Of bulk samples both tokens are the log10 of the sum of logarithms, or of given values that sum itself.
BULK = Encoding(
    normalize=(LogNormalizeToMedian(),),
    select=InOrder(),
    value=Normalized(),
    max_tokens=None,
    depth=DepthTokens(tokens=(DepthToken(token="<T>", value=Log10Total()), GIVEN), total=ValueTotal()),
)
BULK_LOGS = Encoding(
    select=InOrder(),
    value=Normalized(),
    max_tokens=None,
    depth=DepthTokens(
        tokens=(DepthToken(token="<T>", value=PlainTotal()), DepthToken(token="<S>", value=PlainTotal())),
        total=ValueTotal(),
    ),
)

# The last token, the one before it, and the largest entries and the average of all others.
ALL = Concatenated(parts=(FromEnd(places=0), FromEnd(places=1), TokenMax(before_last=2), TokenMean(before_last=2)))
CELL_MODELS = ("cell", "rde")
FILES = ("models.ckpt", "OS_scRNA_gene_index.19264.tsv")
SOURCE = "the link in model/README.md of github.com/biomap-research/scFoundation; the gene list lies in that folder"
LICENSE = "research only, non-commercial, revocable (MODEL_LICENSE of the repository); not to be passed on"

SPEC = ModelSpec(
    name="scfoundation",
    title="scFoundation: an encoder of expressed genes, a decoder of all 19,264, aware of sequencing depth",
    reference="Hao et al., Nature Methods 2024",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="log1p of counts per 10,000 of the known genes, as a mixture of 100 learned bins",
        extra_tokens="depth asked for (T) and depth given (S), log10 of counts",
        backbone="Transformer encoder of expressed genes; decoder of all genes with kernel attention (FAVOR+)",
        objective="values of masked genes, from a cell with fewer counts",
        corpus="over 50 million human cells",
        tasks=("cell embedding", "read-depth enhancement", "gene embedding", "drug response", "perturbation"),
        input="raw counts, gene symbols; also log1p of counts per 10,000, and bulk samples",
    ),
    vocabulary=GeneList(
        files=("OS_scRNA_gene_index.19264.tsv", "OS_scRNA_gene_index*.tsv"),
        delimiter="\t",
        column="gene_name",
        number="index",
        ids="symbol",
        after=("<T>", "<S>", "<pad>"),
        pad="<pad>",
        gene_columns=("gene_name",),
    ),
    encoding=COUNTS,
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=TableEncoder(n_tokens=Shape(TABLE)),
        value=SoftBins(
            n_bins=Shape("token_emb.emb.weight"),
            slope=0.1,
            direct=Config("bin_alpha"),
            marked=(Config("mask_token_id"), Config("pad_token_id")),
        ),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "linear1.weight"),
            attention=SoftmaxAttention(n_heads=Config("encoder.heads")),
            feed_forward=FeedForward(d_hidden=Shape("encoder.transformer_encoder.0.linear1.weight"), activation="relu"),
            norm="post",
            layer_norm=NORM,
            final_norm=NORM,
            dropout=0.1,
        ),
        # Upstream's keys share one stabiliser in all that is computed at once; here each cell has its own, which is
        # what upstream computes of a cell alone.
        decoder=DecoderConfig(
            d_model=Shape("decoder_embed.weight"),
            bridge=ScatterBridge(n_places=Config("seq_len")),
            backbone=BackboneConfig(
                n_blocks=Count(DECODER_BLOCK + "1.fn.fn.w1.weight"),
                attention=KernelAttention(
                    n_heads=Config("decoder.heads"),
                    d_head=Shape(FEATURES, 1),
                    n_features=Shape(FEATURES),
                    qkv_bias=True,
                ),
                feed_forward=FeedForward(
                    d_hidden=Shape("decoder.performer.net.layers.0.1.fn.fn.w1.weight"), activation="gelu"
                ),
                norm="pre",
                layer_norm=NORM,
                final_norm=NORM,
            ),
            norm=NORM,
            heads={"expression": LinearHead(d_in=Shape("to_final.weight", 1), d_out=Shape("to_final.weight"))},
        ),
    ),
    keys=KeyMap(
        StripPrefix("model."),
        Rename(TABLE, "embed.gene.weight"),
        Rename("token_emb.mlp.weight", "embed.value.bins.up.weight"),
        Rename("token_emb.mlp.bias", "embed.value.bins.up.bias"),
        Rename("token_emb.mlp2.weight", "embed.value.bins.scores.weight"),
        Rename("token_emb.mlp2.bias", "embed.value.bins.scores.bias"),
        Rename("token_emb.emb.weight", "embed.value.bins.table.weight"),
        Join(("token_emb.emb_mask.weight", "token_emb.emb_pad.weight"), "embed.value.bins.marks.weight"),
        Rename(BLOCK + "self_attn.in_proj_weight", OURS + "attn.qkv.weight"),
        Rename(BLOCK + "self_attn.in_proj_bias", OURS + "attn.qkv.bias"),
        Rename(BLOCK + "self_attn.out_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "self_attn.out_proj.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "linear1.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "linear1.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "linear2.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "linear2.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
        Rename("encoder.norm.weight", "backbone.norm.weight"),
        Rename("encoder.norm.bias", "backbone.norm.bias"),
        Rename("decoder_embed.weight", "decoder.bridge.project.weight"),
        Rename("decoder_embed.bias", "decoder.bridge.project.bias"),
        Join(
            (
                DECODER_BLOCK + "0.fn.to_q.weight",
                DECODER_BLOCK + "0.fn.to_k.weight",
                DECODER_BLOCK + "0.fn.to_v.weight",
            ),
            OUR_DECODER_BLOCK + "attn.qkv.weight",
        ),
        Join(
            (DECODER_BLOCK + "0.fn.to_q.bias", DECODER_BLOCK + "0.fn.to_k.bias", DECODER_BLOCK + "0.fn.to_v.bias"),
            OUR_DECODER_BLOCK + "attn.qkv.bias",
        ),
        Rename(DECODER_BLOCK + "0.fn.to_out.weight", OUR_DECODER_BLOCK + "attn.out.weight"),
        Rename(DECODER_BLOCK + "0.fn.to_out.bias", OUR_DECODER_BLOCK + "attn.out.bias"),
        Rename(DECODER_BLOCK + "0.fn.fast_attention.projection_matrix", OUR_DECODER_BLOCK + "attn.projection"),
        Rename(DECODER_BLOCK + "1.fn.fn.w1.weight", OUR_DECODER_BLOCK + "ff.up.weight"),
        Rename(DECODER_BLOCK + "1.fn.fn.w1.bias", OUR_DECODER_BLOCK + "ff.up.bias"),
        Rename(DECODER_BLOCK + "1.fn.fn.w2.weight", OUR_DECODER_BLOCK + "ff.down.weight"),
        Rename(DECODER_BLOCK + "1.fn.fn.w2.bias", OUR_DECODER_BLOCK + "ff.down.bias"),
        Rename(DECODER_BLOCK + "0.norm.weight", OUR_DECODER_BLOCK + "norm1.weight"),
        Rename(DECODER_BLOCK + "0.norm.bias", OUR_DECODER_BLOCK + "norm1.bias"),
        Rename(DECODER_BLOCK + "1.norm.weight", OUR_DECODER_BLOCK + "norm2.weight"),
        Rename(DECODER_BLOCK + "1.norm.bias", OUR_DECODER_BLOCK + "norm2.bias"),
        Rename("decoder.norm.weight", "decoder.backbone.norm.weight"),
        Rename("decoder.norm.bias", "decoder.backbone.norm.bias"),
        Rename("norm.weight", "decoder.norm.weight"),
        Rename("norm.bias", "decoder.norm.bias"),
        Rename("to_final.weight", "decoder.heads.expression.out.weight"),
        Rename("to_final.bias", "decoder.heads.expression.out.bias"),
        Drop("decoder.performer.calls_since_last_redraw"),  # counts the forward passes of a training
    ),
    recipes={
        "embed": Recipe(pooling=ALL, submodels=CELL_MODELS),
        "max": Recipe(pooling=TokenMax(), submodels=CELL_MODELS),
        "log1p": Recipe(pooling=ALL, encoding=LOGS, needs="log1p", submodels=CELL_MODELS),
        "log1p_and_total": Recipe(pooling=ALL, encoding=LOGS_AND_TOTAL, needs="log1p", submodels=CELL_MODELS),
        "enhancement": Recipe(pooling=ALL, depth=Log10Total(plus=5.0), submodels=("rde",)),
        "clustering": Recipe(pooling=ALL, depth=Log10Total(), submodels=("rde",)),
        "mapping": Recipe(pooling=ALL, depth=FixedDepth(value=4.5), submodels=("rde",)),
        "bulk": Recipe(pooling=ALL, encoding=BULK, accepts_bulk=True, submodels=CELL_MODELS),
        "bulk_normalized": Recipe(
            pooling=TokenMax(), encoding=BULK_LOGS, needs="expression", accepts_bulk=True, submodels=CELL_MODELS
        ),
    },
    gene_recipes={
        "genes": GeneRecipe(depth=Log10Total(), submodels=("gene",)),
        "genes_log1p": GeneRecipe(encoding=LOGS, needs="log1p", depth=Log10Total(), submodels=("gene",)),
        "genes_log1p_and_total": GeneRecipe(
            encoding=LOGS_AND_TOTAL, needs="log1p", depth=Log10Total(), submodels=("gene",)
        ),
        "expression": GeneRecipe(head="expression", depth=Log10Total(), submodels=("gene",)),
    },
    weights=("models.ckpt",),
    config=InSubmodels(
        names=("cell", "rde", "gene"),
        key="config",
        tensors="state_dict",
        sections=("model_config.{model}", "dataset_config.rnaseq"),
    ),
    requires={
        "model": "mae_autobin",
        "encoder.module_type": "transformer",
        "decoder.module_type": "performer",
        # What the authors' loader builds the model by.
        "seq_len": Sum(parts=(Shape(TABLE), -N_PADDING)),
        "bin_num": Shape("token_emb.emb.weight"),
        "encoder.hidden_dim": Shape(TABLE, 1),
        "encoder.depth": Count(BLOCK + "linear1.weight"),
        "decoder.hidden_dim": Shape("decoder_embed.weight"),
        "decoder.depth": Count(DECODER_BLOCK + "1.fn.fn.w1.weight"),
        "decoder.dim_head": Shape(FEATURES, 1),
    },
    checkpoints={
        "cell": Checkpoint(
            description="embeddings of cells",
            license=LICENSE,
            source=SOURCE,
            files=FILES,
            given={"submodel": "cell"},
            folder="models",
            n_parameters=119_252_285,
        ),
        "rde": Checkpoint(
            description="embeddings of cells for read-depth enhancement, clustering and mapping",
            license=LICENSE,
            source=SOURCE,
            files=FILES,
            given={"submodel": "rde"},
            folder="models",
            n_parameters=119_252_285,
        ),
        "gene": Checkpoint(
            description="vectors and expression of genes in a cell; the start of fine-tuning",
            license=LICENSE,
            source=SOURCE,
            files=FILES,
            given={"submodel": "gene"},
            folder="models",
            n_parameters=119_252_285,
        ),
    },
)
