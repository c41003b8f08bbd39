"""CellFM: gated linear attention over the expressed genes of a human cell (doi:10.1038/s41467-025-59926-5)."""

from __future__ import annotations

from dataclasses import replace

from sclcm._sizes import Count, Given, Present, Shape, Sum
from sclcm.checkpoints.keymap import Drop, DropUnder, Either, Join, KeyMap, Rename, Squeeze, Transpose
from sclcm.checkpoints.keyrules import AddLowRank, AppendRows, Reshape
from sclcm.encoding.depth import CountTotal, DepthToken, DepthTokens, Log1pTotal
from sclcm.encoding.expand import StoreMeasured
from sclcm.encoding.normalize import LogNormalizeKnown
from sclcm.encoding.recount import CapTotal
from sclcm.encoding.select import InOrder, WeightedSample
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import BackboneConfig, LayerNorm, LCMConfig, SoftBins, TableEncoder
from sclcm.nn.gated_configs import (
    GatedFeedForward,
    GatedLinearAttention,
    GeneAndDepthBins,
    GeneBins,
    GeneProductHead,
    MaskSchedule,
    ScaledResidual,
)
from sclcm.nn.readouts import FirstToken, MeanPooling, ValueHead
from sclcm.zoo._card import ModelCard
from sclcm.zoo._conditions import AnyOf, Asked, NoneOf
from sclcm.zoo._row_genes import RowGenes
from sclcm.zoo._spec import Checkpoint, HasTensor, LacksTensor, ModelSpec, Recipe, Variant

N_HEADS, LENGTH = Given("enc_num_heads", default=48), Given("nonz_len", default=2048)  # as published; no file says them
BLOCK = "encoder.{}."
OURS = "backbone.blocks.{}."
BINS = "value_enc.value_enc."
SLOPE = "leaky_relu_0.2"  # the default of MindSpore; that of PyTorch, which the port takes, is 0.01
REPOSITORY = "the folder csv of github.com/biomed-AI/CellFM"
HUB = "huggingface.co/ShangguanNingyuan/CellFM"
LICENSE = "CC BY-NC-ND 4.0 (code and weights): not for commercial use, no changed versions"

# The two totals that a cell has in training, before and after counts were thinned out; they are one where none were.
STATISTICS = HasTensor("ST_emb")
PORT = AnyOf((HasTensor("encoder.0.post_norm1.weight"), Asked(Given("compat"), "torch-port")))

GENE_BINS = SoftBins(n_bins=Shape(BINS + "w1.weight"), slope=0.2, direct=None, bias=False, marked=(-1.0,))
DEPTH_BINS = SoftBins(n_bins=Shape("ST_enc.w1.weight"), slope=0.2, direct=None, bias=False)
BACKBONE = BackboneConfig(
    n_blocks=Count(BLOCK + "attn.q_proj.weight"),
    attention=GatedLinearAttention(n_heads=N_HEADS),
    feed_forward=GatedFeedForward(d_hidden=Shape("encoder.0.ffn.u_proj.weight")),
    norm="post",
    layer_norm=LayerNorm(eps=1e-7),
    residual=ScaledResidual(factor=2.0, power=0.25),
    mask_schedule=MaskSchedule(blind_share=0.5),
)
VALUE = ValueHead(
    d_in=Shape("value_dec.w1.weight", 1),
    d_hidden=Shape("value_dec.w1.weight"),
    n_layers=2,
    activation=SLOPE,
    bias=False,
)
EXPRESSED = ValueHead(
    d_in=Shape("value_dec.zero_logit.0.weight", 1),
    d_hidden=Shape("value_dec.zero_logit.0.weight"),
    n_layers=Count("value_dec.zero_logit.{}.weight"),
    activation=SLOPE,
)

CELL = Encoding(
    recount=CapTotal(largest=1e5),
    normalize=(LogNormalizeKnown(target_sum=1e4),),
    select=WeightedSample(),
    value=Normalized(),
    prefix=("<cls>",),
    max_tokens=Sum((LENGTH, 1)),
)
CELL_WITH_TOTALS = replace(
    CELL,
    depth=DepthTokens(
        tokens=(
            DepthToken(token="<source>", value=Log1pTotal(per=1000.0)),
            DepthToken(token="<target>", value=Log1pTotal(per=1000.0)),
        ),
        total=CountTotal(),
        target="<target>",
    ),
    max_tokens=Sum((LENGTH, 3)),
)
# As the authors' script for gene vectors in perturbation: every gene of the data, zeros included, and no <cls>.
MEASURED_GENES = replace(CELL, select=InOrder(), expand=StoreMeasured(), prefix=(), max_tokens=None)

SPEC = ModelSpec(
    name="cellfm",
    title="CellFM: gated linear attention over the expressed genes of a human cell",
    reference="Zeng et al., Nature Communications 2025",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="log counts as mixtures of 256 learned bins",
        extra_tokens="<cls>; two tokens with the cell's total in models that have them",
        backbone="ERetNet: gated linear attention without softmax (retention), post-norm, residuals scaled by depth",
        objective="masked values (20%), from tokens and from the cell",
        corpus="100 million human cells",
        tasks=("cell embedding", "annotation", "integration", "gene function", "perturbation"),
        input="raw counts, gene symbols (HGNC)",
    ),
    vocabulary=RowGenes(
        files=("csv/gene_info.csv", "gene_info.csv"),
        files_with=(Present("ST_emb"), ("csv/expand_gene_info.csv", "expand_gene_info.csv")),
        ids="symbol",
        pad="<pad>",
        table=Shape("gene_emb"),
        multiple=8,
        after=(("<cls>", Present("cls_token")), ("<source>", Present("ST_emb")), ("<target>", Present("ST_emb"))),
    ),
    encoding=CELL,
    architecture=LCMConfig(
        d_model=Shape("gene_emb", 1),
        gene=TableEncoder(n_tokens=Sum((Shape("gene_emb"), Shape("cls_token", 1)))),
        value=GeneBins(genes=GENE_BINS),
        backbone=BACKBONE,
        heads={"value": VALUE, "cell_gene": GeneProductHead(activation="sigmoid", bias=False)},
    ),
    keys=KeyMap(
        DropUnder("moment1."),  # what the optimiser keeps, in files of interrupted training
        DropUnder("moment2."),
        Drop("global_step"),
        Drop("learning_rate"),
        Drop("beta1_power"),
        Drop("beta2_power"),
        Drop("current_iterator_step"),
        Drop("last_overflow_iterator_step"),
        AddLowRank(BLOCK + "attn.q_proj.weight", BLOCK + "attn.lora_q.A.weight", BLOCK + "attn.lora_q.B.weight"),
        AddLowRank(BLOCK + "attn.k_proj.weight", BLOCK + "attn.lora_k.A.weight", BLOCK + "attn.lora_k.B.weight"),
        AddLowRank(BLOCK + "attn.v_proj.weight", BLOCK + "attn.lora_v.A.weight", BLOCK + "attn.lora_v.B.weight"),
        AddLowRank(BLOCK + "attn.u_proj.weight", BLOCK + "attn.lora_u.A.weight", BLOCK + "attn.lora_u.B.weight"),
        AddLowRank(BLOCK + "attn.o_proj.weight", BLOCK + "attn.lora_o.A.weight", BLOCK + "attn.lora_o.B.weight"),
        AddLowRank(BLOCK + "ffn.u_proj.weight", BLOCK + "ffn.lora_u.A.weight", BLOCK + "ffn.lora_u.B.weight"),
        AddLowRank(BLOCK + "ffn.v_proj.weight", BLOCK + "ffn.lora_v.A.weight", BLOCK + "ffn.lora_v.B.weight"),
        AddLowRank(BLOCK + "ffn.o_proj.weight", BLOCK + "ffn.lora_o.A.weight", BLOCK + "ffn.lora_o.B.weight"),
        # Stands for values of zero where sentences are filled up with genes that are not expressed: the authors do this
        # in fine-tuning alone.
        Drop("zero_emb"),
        Rename(BINS + "w1.weight", "embed.value.genes.up.weight"),
        Rename(BINS + "w3.weight", "embed.value.genes.scores.weight"),
        Transpose(BINS + "table.weight", "embed.value.genes.table.weight"),
        Reshape(BINS + "a", "embed.value.genes.direct", stored=(1, 1), ours=()),
        Squeeze("value_enc.mask_emb", "embed.value.genes.marks.weight"),
        Join(
            (
                BLOCK + "attn.q_proj.weight",
                BLOCK + "attn.k_proj.weight",
                BLOCK + "attn.v_proj.weight",
                BLOCK + "attn.u_proj.weight",
            ),
            OURS + "attn.qkvu.weight",
        ),
        Rename(BLOCK + "attn.o_proj.weight", OURS + "attn.out.weight"),
        Join((BLOCK + "ffn.u_proj.weight", BLOCK + "ffn.v_proj.weight"), OURS + "ff.up.weight"),
        Rename(BLOCK + "ffn.o_proj.weight", OURS + "ff.down.weight"),
        Either(
            (
                Rename(BLOCK + "post_norm1.gamma", OURS + "norm1.weight"),
                Rename(BLOCK + "post_norm1.weight", OURS + "norm1.weight"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "post_norm1.beta", OURS + "norm1.bias"),
                Rename(BLOCK + "post_norm1.bias", OURS + "norm1.bias"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "post_norm2.gamma", OURS + "norm2.weight"),
                Rename(BLOCK + "post_norm2.weight", OURS + "norm2.weight"),
            )
        ),
        Either(
            (
                Rename(BLOCK + "post_norm2.beta", OURS + "norm2.bias"),
                Rename(BLOCK + "post_norm2.bias", OURS + "norm2.bias"),
            )
        ),
        Rename("value_dec.w1.weight", "heads.value.layers.0.weight"),
        Rename("value_dec.w2.weight", "heads.value.layers.2.weight"),
        Rename("cellwise_dec.map.weight", "heads.cell_gene.query.weight"),
    ),
    # As the authors' integration and annotation do it: plain values, and no tokens with totals.
    recipes={
        "embed": Recipe(pooling=FirstToken()),
        "cls": Recipe(pooling=FirstToken()),
        "genes": Recipe(pooling=MeanPooling(), encoding=MEASURED_GENES),
    },
    weights=("CellFM_80M_weight.ckpt", "base_weight.ckpt"),
    config=None,
    variants=(
        Variant(
            when=(LacksTensor("ST_emb"),),
            keys=KeyMap(AppendRows("gene_emb", (("cls_token", (1, 1)),), "embed.gene.weight")),
        ),
        Variant(
            when=(STATISTICS,),
            architecture={
                "gene": TableEncoder(n_tokens=Sum((Shape("gene_emb"), Shape("cls_token", 1), Shape("ST_emb", 1))))
            },
            keys=KeyMap(AppendRows("gene_emb", (("cls_token", (1, 1)), ("ST_emb", (1, 2))), "embed.gene.weight")),
            recipes={"totals": Recipe(pooling=FirstToken(), encoding=CELL_WITH_TOTALS)},
        ),
        Variant(
            when=(STATISTICS, NoneOf((PORT,))),
            architecture={"value": GeneAndDepthBins(genes=GENE_BINS, depths=DEPTH_BINS)},
            keys=KeyMap(
                Rename("ST_enc.w1.weight", "embed.value.depths.up.weight"),
                Rename("ST_enc.w3.weight", "embed.value.depths.scores.weight"),
                Transpose("ST_enc.table.weight", "embed.value.depths.table.weight"),
                Reshape("ST_enc.a", "embed.value.depths.direct", stored=(1, 1), ours=()),
            ),
        ),
        # The port to PyTorch reads the same weights with constants of its own, and no totals outside training.
        Variant(when=(STATISTICS, PORT), keys=KeyMap(DropUnder("ST_enc."))),
        Variant(
            when=(PORT,),
            architecture={
                "value": GeneBins(genes=replace(GENE_BINS, slope=0.01)),
                "backbone": replace(BACKBONE, layer_norm=LayerNorm(eps=1e-5)),
            },
            heads={"value": replace(VALUE, activation="leaky_relu")},
        ),
        # Models that were also trained to tell genes that are expressed from those that are not.
        Variant(
            when=(HasTensor("value_dec.zero_logit.0.weight"),),
            heads={"expressed": EXPRESSED},
            keys=KeyMap(
                Rename("value_dec.zero_logit.{}.weight", "heads.expressed.layers.{}.weight"),
                Rename("value_dec.zero_logit.{}.bias", "heads.expressed.layers.{}.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("value_dec.zero_logit.0.weight"), PORT),
            heads={"expressed": replace(EXPRESSED, activation="leaky_relu")},
        ),
        Variant(
            when=(HasTensor("cellwise_dec.zero_logit.weight"),),
            heads={"cell_gene_expressed": GeneProductHead(activation="identity", bias=True)},
            keys=KeyMap(
                Rename("cellwise_dec.zero_logit.weight", "heads.cell_gene_expressed.query.weight"),
                Rename("cellwise_dec.zero_logit.bias", "heads.cell_gene_expressed.query.bias"),
            ),
        ),
    ),
    checkpoints={
        "80m": Checkpoint(
            description="2 blocks of width 1,536, 27,855 genes, tokens for totals",
            license=LICENSE,
            source=f"weights: {HUB} (also named 6300w_18000_19479-1_38071.ckpt there); the list of genes: {REPOSITORY}",
            files=("CellFM_80M_weight.ckpt", "expand_gene_info.csv"),
            n_parameters=86_193_666,
        ),
        "800m": Checkpoint(
            description="40 blocks of width 1,536, 24,078 genes",
            license=LICENSE,
            source=f"weights: {HUB}; the list of genes: {REPOSITORY}",
            files=("base_weight.ckpt", "gene_info.csv"),
            n_parameters=797_391_105,
        ),
    },
)
