"""scBERT: a Performer over all genes of a fixed list, their values in bins (doi:10.1038/s42256-022-00534-z)."""

from __future__ import annotations

from sclcm._sizes import Count, Quotient, Shape, VocabularySize
from sclcm.checkpoints.keymap import Cast, Drop, Join, KeyMap, Rename, Squeeze
from sclcm.encoding.expand import StoreAll
from sclcm.encoding.normalize import LogNormalizeKnown, ToBase2
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Floored
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    KernelAttention,
    LayerNorm,
    LCMConfig,
    TableEncoder,
    ValueTable,
)
from sclcm.nn.fixed_configs import NoVectors
from sclcm.nn.readouts import FromEnd, GeneSum, MeanPooling, SentenceClassHead, TokenClassHead, TokenMean
from sclcm.zoo._card import ModelCard
from sclcm.zoo._labels import ClassLabels, LabelFile
from sclcm.zoo._spec import Checkpoint, HasTensor, LacksTensor, ModelSpec, Recipe, UnderKey, Variant
from sclcm.zoo._vocabularies import VarNames

NORM = LayerNorm(eps=1e-5)
GENES = "pos_emb.emb.weight"
BLOCK = "performer.net.layers.{}."
FIRST = "performer.net.layers.0."
FEATURES = "0.fn.fast_attention.projection_matrix"
OURS = "backbone.blocks.{}."

SPEC = ModelSpec(
    name="scbert",
    title="scBERT: a Performer over all genes of a fixed list, expressed or not, their values in bins",
    reference="Yang et al., Nature Machine Intelligence 2022",
    card=ModelCard(
        gene_encoding="fixed gene2vec vectors in the place of positions, 16,906 symbols",
        value_encoding="6 bins by the whole part of log2, unexpressed genes included, learned table",
        extra_tokens="one token without expression at the end",
        backbone="Performer encoder: pre-norm, FAVOR+ attention over 16,907 tokens",
        objective="masked bins of expressed genes",
        corpus="1.1 million human cells, PanglaoDB",
        tasks=("cell type annotation by fine-tuning", "novel cell types", "gene attention"),
        input="raw counts, human gene symbols",
    ),
    vocabulary=VarNames(
        files=("panglao_*.h5ad",),
        ids="symbol",
        after=("<cls>",),
        pad="<cls>",  # all sentences have one length, so there is none
        merge="first",
    ),
    # Values of less than one, in log2 of counts per 10,000, are in the bin of unexpressed genes. The last row of the
    # table of bins is that of the mask.
    encoding=Encoding(
        expand=StoreAll(),
        normalize=(LogNormalizeKnown(target_sum=1e4), ToBase2()),
        select=InOrder(),
        value=Floored(n_values=Shape("token_emb.weight"), n_marks=1),
        suffix=("<cls>",),
        max_tokens=VocabularySize(),
    ),
    architecture=LCMConfig(
        d_model=Shape("token_emb.weight", 1),
        gene=TableEncoder(n_tokens=Shape(GENES)),
        value=ValueTable(n_values=Shape("token_emb.weight")),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + FEATURES),
            attention=KernelAttention(
                n_heads=Quotient(of=Shape(FIRST + "0.fn.to_q.weight"), by=Shape(FIRST + FEATURES, 1)),
                d_head=Shape(FIRST + FEATURES, 1),
                n_features=Shape(FIRST + FEATURES),
            ),
            feed_forward=FeedForward(d_hidden=Shape(FIRST + "1.fn.fn.w1.weight")),
            norm="pre",
            layer_norm=NORM,
            final_norm=NORM,
        ),
    ),
    keys=KeyMap(
        Rename("token_emb.weight", "embed.value.rows.table.weight"),
        Cast(GENES, "embed.gene.weight", stored="float64", ours="float32", optional=True),
        Drop("performer.calls_since_last_redraw"),  # counts forward passes of training; features are never drawn again
        Rename(BLOCK + "0.norm.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "0.norm.bias", OURS + "norm1.bias"),
        Rename(BLOCK + FEATURES, OURS + "attn.projection"),
        Join(
            (BLOCK + "0.fn.to_q.weight", BLOCK + "0.fn.to_k.weight", BLOCK + "0.fn.to_v.weight"),
            OURS + "attn.qkv.weight",
        ),
        Rename(BLOCK + "0.fn.to_out.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "0.fn.to_out.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "1.norm.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "1.norm.bias", OURS + "norm2.bias"),
        Rename(BLOCK + "1.fn.fn.w1.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "1.fn.fn.w1.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "1.fn.fn.w2.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "1.fn.fn.w2.bias", OURS + "ff.down.bias"),
        Rename("norm.weight", "backbone.norm.weight"),
        Rename("norm.bias", "backbone.norm.bias"),
    ),
    # The average over all places is what the authors draw; the others are of BioLLM, a wrapper of several models.
    recipes={
        "embed": Recipe(pooling=TokenMean()),
        "cls": Recipe(pooling=FromEnd()),
        "mean": Recipe(pooling=MeanPooling()),
        "sum": Recipe(pooling=GeneSum()),
    },
    weights=("panglao_pretrain*.pth", "*_best.pth"),
    config=UnderKey(tensors="model_state_dict"),
    variants=(
        Variant(
            when=(HasTensor("to_out.weight"),),
            heads={"bin": TokenClassHead(n_classes=Shape("to_out.weight"))},
            keys=KeyMap(
                Rename("to_out.weight", "heads.bin.out.weight"),
                Rename("to_out.bias", "heads.bin.out.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("to_out.fc1.weight"),),
            heads={
                "cell_class": SentenceClassHead(
                    n_places=Shape("to_out.fc1.weight", 1),
                    d_hidden=(Shape("to_out.fc1.weight"), Shape("to_out.fc2.weight")),
                    n_classes=Shape("to_out.fc3.weight"),
                )
            },
            keys=KeyMap(
                Squeeze("to_out.conv1.weight", "heads.cell_class.token.weight", axis=(0, 1)),
                Rename("to_out.conv1.bias", "heads.cell_class.token.bias"),
                Rename("to_out.fc1.weight", "heads.cell_class.layers.0.weight"),
                Rename("to_out.fc1.bias", "heads.cell_class.layers.0.bias"),
                Rename("to_out.fc2.weight", "heads.cell_class.layers.1.weight"),
                Rename("to_out.fc2.bias", "heads.cell_class.layers.1.bias"),
                Rename("to_out.fc3.weight", "heads.cell_class.layers.2.weight"),
                Rename("to_out.fc3.bias", "heads.cell_class.layers.2.bias"),
            ),
            labels=ClassLabels(head="cell_class", names=LabelFile(files=("label_dict", "label_dict.pkl"))),
        ),
        # Models that were made without gene2vec tell genes apart by nothing.
        Variant(when=(LacksTensor(GENES),), architecture={"gene": NoVectors(n_tokens=VocabularySize())}),
    ),
    checkpoints={
        "panglao-1m": Checkpoint(
            description="8.4 million parameters, of which 3.4 million are fixed gene vectors; 6 blocks of width 200",
            license="none stated for the weights (code: GPL-3.0)",
            source=(
                "the authors give links on request, see the README of github.com/TencentAILabHealthcare/scBERT; "
                "panglao_10000.h5ad lies beside the weights and is needed, since the order of the genes is in no other "
                "file"
            ),
            files=("panglao_pretrain.pth", "panglao_10000.h5ad"),
            n_parameters=8_388_607,
        ),
    },
)
