"""Nicheformer, a BERT over ranked genes of dissociated and spatial cells (doi:10.1038/s41592-025-02814-z)."""

from __future__ import annotations

from dataclasses import replace

from sclcm._sizes import Config, Count, Present, Shape, Sum
from sclcm.checkpoints.keymap import Drop, DropUnder, KeyMap, Rename, StripPrefix
from sclcm.encoding.context import ArrayChoice, ContextToken
from sclcm.encoding.factors import DivideByChosen, ScaleKnown, StoreUndefined
from sclcm.encoding.select import ByQuicksort
from sclcm.encoding.sentences import Encoding
from sclcm.nn.cell_configs import PlaceMean, TanhClassHead
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    LayerNorm,
    LCMConfig,
    LearnedPositions,
    SoftmaxAttention,
    TableEncoder,
)
from sclcm.nn.fixed_configs import SinusoidalPositions
from sclcm.nn.readouts import LinearHead, MeanPooling, TokenClassHead
from sclcm.zoo._arrays import ArrayFile, RoundedArrayFile
from sclcm.zoo._card import ModelCard
from sclcm.zoo._conditions import ConfigIs
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._recipes import BlockMean, BlockSum
from sclcm.zoo._spec import Checkpoint, HasTensor, InWeights, LacksTensor, ModelSpec, Recipe, Variant
from sclcm.zoo._vocabularies import VarNames

TABLE = "embeddings.weight"
BLOCK = "encoder.layers.{}."
OURS = "backbone.blocks.{}."
LONGEST = Config("context_length")
N_SPARE = 5

# In the order of their token ids, 7 to 18, after which eleven stand for nothing.
ASSAYS = (
    "MERFISH",
    "CosMx",
    "Xenium",
    "10x 5' v2",
    "10x 3' v3",
    "10x 3' v2",
    "10x 5' v1",
    "10x 3' v1",
    "10x 3' transcription profiling",
    "10x 5' transcription profiling",
    "CITE-seq",
    "Smart-seq v4",
)
UNUSED = (
    *("[UNUSED_19]", "[UNUSED_20]", "[UNUSED_21]", "[UNUSED_22]", "[UNUSED_23]", "[UNUSED_24]"),
    *("[UNUSED_25]", "[UNUSED_26]", "[UNUSED_27]", "[UNUSED_28]", "[UNUSED_29]"),
)
CONTEXT = (
    ContextToken(
        name="specie",
        tokens=("human", "mouse"),
        aliases={"Homo sapiens": "human", "Mus musculus": "mouse"},
        columns=("specie", "species", "organism"),
        used=Config("specie"),
    ),
    ContextToken(
        name="assay",
        tokens=ASSAYS,
        aliases={
            "NanoString digital spatial profiling": "CosMx",
            "10x transcription profiling": "10x 3' transcription profiling",
        },
        columns=("assay",),
        used=Config("assay"),
    ),
    ContextToken(name="modality", tokens=("dissociated", "spatial"), columns=("modality",), used=Config("modality")),
)

MEANS = {
    "dissociated": ("dissociated_mean_script.npy",),
    "merfish": ("merfish_mean_script.npy",),
    "cosmx": ("cosmx_mean_script.npy",),
    "xenium": ("xenium_mean_script.npy",),
    "iss": ("iss_mean_script.npy",),
}
TECHNOLOGY = ArrayChoice(
    name="technology_mean",
    arrays={
        "dissociated": "mean_dissociated",
        "merfish": "mean_merfish",
        "cosmx": "mean_cosmx",
        "xenium": "mean_xenium",
        "iss": "mean_iss",
    },
    follows="assay",
    by_token={"MERFISH": "merfish", "CosMx": "cosmx", "Xenium": "xenium"},
    otherwise="dissociated",
)
RAW_TECHNOLOGY = ArrayChoice(
    name="technology_mean",
    arrays={
        "dissociated": "raw_dissociated",
        "merfish": "raw_merfish",
        "cosmx": "raw_cosmx",
        "xenium": "raw_xenium",
        "iss": "raw_iss",
    },
    follows="assay",
    by_token={"MERFISH": "merfish", "CosMx": "cosmx", "Xenium": "xenium"},
    otherwise="dissociated",
)
# The corpus was made with means that were rounded first, in single precision. The authors' class for embeddings
# computes in double precision and takes means as they come: rounded before, or as they are in the files. Where the mean
# of a gene is no number, it is then a token of every cell.
SCALE = ScaleKnown(target_sum=1e4, precision="float64")
ENCODING = Encoding(
    normalize=(SCALE, DivideByChosen(choice=TECHNOLOGY)),
    select=ByQuicksort(),
    context=CONTEXT,
    max_tokens=LONGEST,
)
CORPUS_ENCODING = Encoding(
    normalize=(ScaleKnown(target_sum=1e4, precision="float32"), DivideByChosen(choice=TECHNOLOGY)),
    select=ByQuicksort(),
    context=CONTEXT,
    max_tokens=LONGEST,
)
RAW_ENCODING = Encoding(
    normalize=(SCALE, DivideByChosen(choice=RAW_TECHNOLOGY)),
    select=ByQuicksort(),
    context=CONTEXT,
    expand=StoreUndefined(choice=RAW_TECHNOLOGY),
    max_tokens=LONGEST,
)
LICENSE = "BSD-3-Clause (the authors' code); that of the weights is stated where they are published"
MENDELEY = "Mendeley Data 87gm9hrgm8 (weights); data/model_means of github.com/theislab/nicheformer (the other files)"
MEAN_FILES = (*MEANS["dissociated"], *MEANS["merfish"], *MEANS["cosmx"], *MEANS["xenium"])

# Fine-tuned models read the average over some blocks, and predict numbers of a cell, or its class.
TUNED = Recipe(pooling=PlaceMean(n_places=LONGEST, skip=3), layer=BlockMean(blocks=Config("extract_layers")))
TUNED_WITH_CONTEXT = replace(TUNED, pooling=PlaceMean(n_places=LONGEST))
SUM = BlockSum(blocks=Config("extract_layers"))
TUNED_SUM, TUNED_SUM_WITH_CONTEXT = replace(TUNED, layer=SUM), replace(TUNED_WITH_CONTEXT, layer=SUM)
CLASSIFICATION = ("niche_classification", "niche_binary_classification")

SPEC = ModelSpec(
    name="nicheformer",
    title="Nicheformer: a BERT over the genes of a cell in order of rank, told species, assay and modality",
    reference="Tejada-Lapuerta, Schaar et al., Nature Methods 2025",
    card=ModelCard(
        gene_encoding="learned table, Ensembl ids; mouse genes by their human orthologues",
        value_encoding="none: the place in the order of rank",
        extra_tokens="species, assay and modality of the cell",
        backbone="BERT without a norm at its entrance: post-norm, full softmax attention",
        objective="masked tokens (15%)",
        corpus="SpatialCorpus-110M: 57 million dissociated and 53 million spatial cells, human and mouse",
        tasks=("cell embedding", "niche and region labels", "neighbourhood composition and density"),
        input="raw counts, Ensembl ids; .obs: specie, assay, modality",
    ),
    vocabulary=VarNames(
        files=("model.h5ad", "vocab.json"),
        ids="ensembl",
        before=("[MASK]", "[PAD]", "[CLS]", "dissociated", "spatial", "human", "mouse", *ASSAYS, *UNUSED),
        pad="[PAD]",
        mask="[MASK]",
        species=("human", "mouse"),
    ),
    arrays={
        "mean_dissociated": RoundedArrayFile(files=MEANS["dissociated"]),
        "mean_merfish": RoundedArrayFile(files=MEANS["merfish"]),
        "mean_cosmx": RoundedArrayFile(files=MEANS["cosmx"]),
        "mean_xenium": RoundedArrayFile(files=MEANS["xenium"]),
        "mean_iss": RoundedArrayFile(files=MEANS["iss"]),
        "raw_dissociated": ArrayFile(files=MEANS["dissociated"]),
        "raw_merfish": ArrayFile(files=MEANS["merfish"]),
        "raw_cosmx": ArrayFile(files=MEANS["cosmx"]),
        "raw_xenium": ArrayFile(files=MEANS["xenium"]),
        "raw_iss": ArrayFile(files=MEANS["iss"]),
    },
    encoding=ENCODING,
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=TableEncoder(n_tokens=Shape(TABLE), n_spare=N_SPARE),
        position=SinusoidalPositions(n_positions=LONGEST),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "linear1.weight"),
            attention=SoftmaxAttention(n_heads=Config("nheads")),
            feed_forward=FeedForward(d_hidden=Shape("encoder.layers.0.linear1.weight"), activation="relu"),
            norm="post",
            layer_norm=LayerNorm(eps=1e-12),
            dropout=Config("dropout"),
        ),
    ),
    keys=KeyMap(
        # Of a fine-tuned model: the pre-trained one within it, whose own such head is not used.
        Drop("backbone.pooler_head.weight"),
        Drop("backbone.pooler_head.bias"),
        StripPrefix("backbone."),
        StripPrefix("nicheformer."),
        # Of this layer the stack is made by copying; nothing runs through it.
        DropUnder("encoder_layer."),
        Drop("pos"),  # 0, 1, 2, ...: a buffer of the release on the model hub
        Drop("cls_head.weight"),  # of a task that pre-training did not have
        Drop("cls_head.bias"),
        Rename(TABLE, "embed.gene.weight"),
        Rename(BLOCK + "self_attn.in_proj_weight", OURS + "attn.qkv.weight"),
        Rename(BLOCK + "self_attn.in_proj_bias", OURS + "attn.qkv.bias"),
        Rename(BLOCK + "self_attn.out_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "self_attn.out_proj.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "linear1.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "linear1.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "linear2.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "linear2.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
    ),
    # Upstream averages the padding in. `mean` is what its name says.
    recipes={
        "embed": Recipe(pooling=PlaceMean(n_places=LONGEST, skip=3)),
        "with_context": Recipe(pooling=PlaceMean(n_places=LONGEST)),
        "second_to_last": Recipe(pooling=PlaceMean(n_places=LONGEST, skip=3), layer=-2),
        "as_corpus": Recipe(pooling=PlaceMean(n_places=LONGEST, skip=3), encoding=CORPUS_ENCODING),
        "raw_means": Recipe(pooling=PlaceMean(n_places=LONGEST, skip=3), encoding=RAW_ENCODING),
        "mean": Recipe(pooling=MeanPooling()),
    },
    weights=("*.ckpt", "model.safetensors"),
    config=InWeights(key="hyper_parameters", tensors="state_dict", beside="config.json"),
    requires={
        "batch_first": True,
        "autoregressive": False,
        "function_layers": frozenset({"mean", "sum"}),
        "pool": frozenset({None, "mean"}),  # the pre-trained model's is `None`
        # What the tensors say as well.
        "dim_model": Shape(TABLE, 1),
        "dim_feedforward": Shape("encoder.layers.0.linear1.weight"),
        "nlayers": Count(BLOCK + "linear1.weight"),
        "n_tokens": Sum((Shape(TABLE), -N_SPARE)),
        "learnable_pe": Present("positional_embedding.weight"),
    },
    variants=(
        Variant(
            when=(HasTensor("positional_embedding.weight"),),
            architecture={"position": LearnedPositions(n_positions=LONGEST)},
            keys=KeyMap(Rename("positional_embedding.weight", "embed.position.weight")),
        ),
        Variant(
            when=(HasTensor("classifier_head.weight"),),
            heads={"token": TokenClassHead(n_classes=Shape("classifier_head.weight"))},
            keys=KeyMap(
                Rename("classifier_head.weight", "heads.token.out.weight"),
                Rename("classifier_head.bias", "heads.token.out.bias"),
            ),
        ),
        Variant(
            when=(LacksTensor("linear_head.weight"),),
            keys=KeyMap(Drop("pooler_head.weight"), Drop("pooler_head.bias")),
        ),
        # Fine-tuned: what is predicted of a cell, with or without a layer between.
        Variant(
            when=(HasTensor("linear_head.weight"), HasTensor("pooler_head.weight")),
            heads={"cell": TanhClassHead(n_classes=Shape("linear_head.weight"))},
            keys=KeyMap(
                Rename("pooler_head.weight", "heads.cell.dense.weight"),
                Rename("pooler_head.bias", "heads.cell.dense.bias"),
                Rename("linear_head.weight", "heads.cell.out.weight"),
            ),
        ),
        Variant(
            when=(HasTensor("linear_head.weight"), LacksTensor("pooler_head.weight")),
            heads={
                "cell": LinearHead(d_in=Shape("linear_head.weight", 1), d_out=Shape("linear_head.weight"), bias=False)
            },
            keys=KeyMap(Rename("linear_head.weight", "heads.cell.out.weight")),
        ),
        Variant(
            when=(HasTensor("linear_head.weight"),),
            recipes={"fine_tuned": TUNED, "predicted": replace(TUNED, head="cell")},
        ),
        Variant(
            when=(HasTensor("linear_head.weight"), ConfigIs("without_context", (False,))),
            recipes={"fine_tuned": TUNED_WITH_CONTEXT, "predicted": replace(TUNED_WITH_CONTEXT, head="cell")},
        ),
        Variant(
            when=(HasTensor("linear_head.weight"), ConfigIs("function_layers", ("sum",))),
            recipes={"fine_tuned": TUNED_SUM, "predicted": replace(TUNED_SUM, head="cell")},
        ),
        Variant(
            when=(
                HasTensor("linear_head.weight"),
                ConfigIs("function_layers", ("sum",)),
                ConfigIs("without_context", (False,)),
            ),
            recipes={"fine_tuned": TUNED_SUM_WITH_CONTEXT, "predicted": replace(TUNED_SUM_WITH_CONTEXT, head="cell")},
        ),
        Variant(
            when=(HasTensor("linear_head.weight"), ConfigIs("supervised_task", CLASSIFICATION)),
            labels=ClassLabels(head="cell", recipe="fine_tuned"),
        ),
    ),
    checkpoints={
        "pretrained": Checkpoint(
            description="12 blocks of width 512, 110 million human and mouse cells, half of them spatial",
            license=LICENSE,
            source=MENDELEY,
            files=("nicheformer.ckpt", "model.h5ad", *MEAN_FILES),
            n_parameters=47_199_256,
        ),
        "hub": Checkpoint(
            description="the same, as published on the model hub, without means of technologies",
            license=LICENSE,
            source="huggingface.co/theislab/Nicheformer; the means as for nicheformer.pretrained",
            files=("model.safetensors", "config.json", "model.h5ad", *MEAN_FILES),
        ),
    },
)
