"""scTranslator: values of proteins from the transcriptome of a cell (Liu et al., bioRxiv 2023)."""

from __future__ import annotations

from sclcm._sizes import Count, Quotient, Shape, Shapes
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename
from sclcm.checkpoints.keyrules import Twice
from sclcm.encoding.expand import StoreAll
from sclcm.encoding.normalize import MinMax
from sclcm.encoding.select import InVarOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    KernelAttention,
    LayerNorm,
    LCMConfig,
    ScalarLinear,
    TableEncoder,
)
from sclcm.nn.decoder_configs import DecoderConfig, SequenceBridge
from sclcm.nn.readouts import LinearHead, MeanPooling
from sclcm.zoo._card import ModelCard
from sclcm.zoo._checkpoints import Checkpoint
from sclcm.zoo._modules import LinkedIds, PickledModule, Translation
from sclcm.zoo._spec import ModelSpec, Recipe

NORM = LayerNorm(eps=1e-5)
FEATURES = "0.fn.fast_attention.projection_matrix"
ENCODER, DECODER = "enc.performer.net.layers.{}.", "dec.performer.net.layers.{}."
FIRST_ENCODER, FIRST_DECODER = "enc.performer.net.layers.0.", "dec.performer.net.layers.0."
OURS, OUR_DECODER = "backbone.blocks.{}.", "decoder.backbone.blocks.{}."
LICENSE = "none stated; the README keeps all rights and allows research"
SOURCE = (
    "the links in the README of github.com/TencentAILabHealthcare/scTranslator; the dictionaries lie in "
    "code/model/ID_dic there"
)
FILES = ("EntrezID_to_myID.pkl", "hgs_to_EntrezID.pkl")

SPEC = ModelSpec(
    name="sctranslator",
    title="scTranslator: values of proteins from the transcriptome of a cell",
    reference="Liu et al., bioRxiv 2023",
    card=ModelCard(
        gene_encoding="learned table by NCBI gene number, one for genes and one for proteins; place in the data",
        value_encoding="scaled from 0 to 1 within the cell, linear",
        backbone="Performer encoder of 20,000 genes, layers along the sequence, Performer decoder of 1,000 proteins",
        objective="values of proteins",
        corpus="18,000 bulk samples and 2 million single cells with proteins measured beside",
        tasks=("protein prediction", "pseudo-knockout", "gene and protein attention"),
        input="expression in any unit, gene symbols",
    ),
    vocabulary=LinkedIds(
        files=("EntrezID_to_myID.pkl", "ID_dic/EntrezID_to_myID.pkl"),
        names=("hgs_to_EntrezID.pkl", "ID_dic/hgs_to_EntrezID.pkl"),
        ids="symbol",
        n_tokens=Shape("enc.pos_emb.weight"),
        pad="<pad>",
        gene_columns=("gene_symbol", "gene_name"),
        species=("human", "mouse"),
        homologues={
            "mouse": (
                ("mouse_gene_symbol_to_human_gene_symbol.pkl", "ID_dic/mouse_gene_symbol_to_human_gene_symbol.pkl"),
                ("mouse_gene_ID_to_human_gene_symbol.pkl", "ID_dic/mouse_gene_ID_to_human_gene_symbol.pkl"),
            )
        },
    ),
    # The first 20,000 columns that have an id, expressed or not, in the order of the data; padding counts as tokens.
    encoding=Encoding(
        expand=StoreAll(),
        normalize=(MinMax(lowest=1e-8),),
        select=InVarOrder(),
        value=Normalized(),
        max_tokens=Shape("translator.fc0.weight", 1),
        fills=True,
    ),
    architecture=LCMConfig(
        d_model=Shape("enc.pos_emb.weight", 1),
        gene=TableEncoder(n_tokens=Shape("enc.pos_emb.weight")),
        value=ScalarLinear(),
        backbone=BackboneConfig(
            n_blocks=Count(ENCODER + FEATURES),
            attention=KernelAttention(
                n_heads=Quotient(of=Shape(FIRST_ENCODER + "0.fn.to_q.weight"), by=Shape(FIRST_ENCODER + FEATURES, 1)),
                d_head=Shape(FIRST_ENCODER + FEATURES, 1),
                n_features=Shape(FIRST_ENCODER + FEATURES),
                qkv_bias=True,
                stabilizer="head",
                padding="counted",
            ),
            feed_forward=FeedForward(d_hidden=Shape(FIRST_ENCODER + "1.fn.fn.w1.weight")),
            norm="pre",
            layer_norm=NORM,
        ),
        decoder=DecoderConfig(
            d_model=Shape("dec.pos_emb.weight", 1),
            bridge=SequenceBridge(
                n_places=Shape("translator.fc0.weight", 1),
                widths=Shapes("translator.fc{}.weight"),
                n_tokens=Shape("dec.pos_emb.weight"),
            ),
            backbone=BackboneConfig(
                n_blocks=Count(DECODER + FEATURES),
                attention=KernelAttention(
                    n_heads=Quotient(
                        of=Shape(FIRST_DECODER + "0.fn.to_q.weight"), by=Shape(FIRST_DECODER + FEATURES, 1)
                    ),
                    d_head=Shape(FIRST_DECODER + FEATURES, 1),
                    n_features=Shape(FIRST_DECODER + FEATURES),
                    qkv_bias=True,
                    stabilizer="head",
                    padding="counted",
                ),
                feed_forward=FeedForward(d_hidden=Shape(FIRST_DECODER + "1.fn.fn.w1.weight")),
                norm="pre",
                layer_norm=NORM,
            ),
            heads={"value": LinearHead(d_in=Shape("dec.to_out.weight", 1), d_out=Shape("dec.to_out.weight"))},
        ),
    ),
    keys=KeyMap(
        # What draws features anew in training holds the stack a second time.
        Twice("enc.performer.proj_updater.instance.", "enc.performer.net."),
        Twice("dec.performer.proj_updater.instance.", "dec.performer.net."),
        Drop("enc.performer.proj_updater.calls_since_last_redraw"),
        Drop("dec.performer.proj_updater.calls_since_last_redraw"),
        Drop("enc.to_out.weight"),  # neither is used: the encoder's head and the decoder's values
        Drop("enc.to_out.bias"),
        Drop("dec.to_vector.weight"),
        Drop("dec.to_vector.bias"),
        Rename("enc.pos_emb.weight", "embed.gene.weight"),
        Rename("enc.to_vector.weight", "embed.value.linear.weight"),
        Rename("enc.to_vector.bias", "embed.value.linear.bias"),
        Rename(ENCODER + "0.norm.weight", OURS + "norm1.weight"),
        Rename(ENCODER + "0.norm.bias", OURS + "norm1.bias"),
        Rename(ENCODER + FEATURES, OURS + "attn.projection"),
        Join(
            (ENCODER + "0.fn.to_q.weight", ENCODER + "0.fn.to_k.weight", ENCODER + "0.fn.to_v.weight"),
            OURS + "attn.qkv.weight",
        ),
        Join(
            (ENCODER + "0.fn.to_q.bias", ENCODER + "0.fn.to_k.bias", ENCODER + "0.fn.to_v.bias"),
            OURS + "attn.qkv.bias",
        ),
        Rename(ENCODER + "0.fn.to_out.weight", OURS + "attn.out.weight"),
        Rename(ENCODER + "0.fn.to_out.bias", OURS + "attn.out.bias"),
        Rename(ENCODER + "1.norm.weight", OURS + "norm2.weight"),
        Rename(ENCODER + "1.norm.bias", OURS + "norm2.bias"),
        Rename(ENCODER + "1.fn.fn.w1.weight", OURS + "ff.up.weight"),
        Rename(ENCODER + "1.fn.fn.w1.bias", OURS + "ff.up.bias"),
        Rename(ENCODER + "1.fn.fn.w2.weight", OURS + "ff.down.weight"),
        Rename(ENCODER + "1.fn.fn.w2.bias", OURS + "ff.down.bias"),
        Rename("translator.fc{}.weight", "decoder.bridge.layers.{}.weight"),
        Rename("translator.fc{}.bias", "decoder.bridge.layers.{}.bias"),
        Rename("dec.pos_emb.weight", "decoder.bridge.asked.weight"),
        Rename(DECODER + "0.norm.weight", OUR_DECODER + "norm1.weight"),
        Rename(DECODER + "0.norm.bias", OUR_DECODER + "norm1.bias"),
        Rename(DECODER + FEATURES, OUR_DECODER + "attn.projection"),
        Join(
            (DECODER + "0.fn.to_q.weight", DECODER + "0.fn.to_k.weight", DECODER + "0.fn.to_v.weight"),
            OUR_DECODER + "attn.qkv.weight",
        ),
        Join(
            (DECODER + "0.fn.to_q.bias", DECODER + "0.fn.to_k.bias", DECODER + "0.fn.to_v.bias"),
            OUR_DECODER + "attn.qkv.bias",
        ),
        Rename(DECODER + "0.fn.to_out.weight", OUR_DECODER + "attn.out.weight"),
        Rename(DECODER + "0.fn.to_out.bias", OUR_DECODER + "attn.out.bias"),
        Rename(DECODER + "1.norm.weight", OUR_DECODER + "norm2.weight"),
        Rename(DECODER + "1.norm.bias", OUR_DECODER + "norm2.bias"),
        Rename(DECODER + "1.fn.fn.w1.weight", OUR_DECODER + "ff.up.weight"),
        Rename(DECODER + "1.fn.fn.w1.bias", OUR_DECODER + "ff.up.bias"),
        Rename(DECODER + "1.fn.fn.w2.weight", OUR_DECODER + "ff.down.weight"),
        Rename(DECODER + "1.fn.fn.w2.bias", OUR_DECODER + "ff.down.bias"),
        Rename("dec.to_out.weight", "decoder.heads.value.out.weight"),
        Rename("dec.to_out.bias", "decoder.heads.value.out.bias"),
    ),
    # The authors return vectors of genes and pool them nowhere; the average is ours.
    recipes={"embed": Recipe(pooling=MeanPooling())},
    weights=("scTranslator_*.pt", "*_scTranslator.pt"),
    config=PickledModule(
        classes=(
            "functools.partial",
            "performer_enc_dec.MLPTranslator",
            "performer_enc_dec.scPerformerEncDec",
            "performer_enc_dec.scPerformerLM",
            "performer_pytorch.Always",
            "performer_pytorch.Chunk",
            "performer_pytorch.FastAttention",
            "performer_pytorch.FeedForward",
            "performer_pytorch.Performer",
            "performer_pytorch.PreLayerNorm",
            "performer_pytorch.ProjectionUpdater",
            "performer_pytorch.SelfAttention",
            "performer_pytorch.gaussian_orthogonal_random_matrix",
            "reversible.SequentialSequence",
            "torch.nn.modules.activation.GELU",
            "torch.nn.modules.activation.ReLU",
            "torch.nn.modules.container.ModuleList",
            "torch.nn.modules.dropout.Dropout",
            "torch.nn.modules.linear.Identity",
            "torch.nn.modules.linear.Linear",
            "torch.nn.modules.normalization.LayerNorm",
            "torch.nn.modules.sparse.Embedding",
        ),
        entry="net",
    ),
    translation=Translation(head="value", modality="protein"),
    checkpoints={
        "2m": Checkpoint(
            description="18,000 bulk samples and 2 million single cells; 117 million parameters",
            license=LICENSE,
            source=SOURCE,
            files=("scTranslator_2M.pt", *FILES),
            n_parameters=117_411_371,
        ),
        "160k": Checkpoint(
            description="bulk samples and 160,000 blood cells",
            license=LICENSE,
            source=SOURCE,
            files=("scTranslator_160k.pt", *FILES),
        ),
        "10k": Checkpoint(
            description="bulk samples alone", license=LICENSE, source=SOURCE, files=("scTranslator_10k.pt", *FILES)
        ),
    },
    needs="expression",
    accepts_bulk=True,
)
