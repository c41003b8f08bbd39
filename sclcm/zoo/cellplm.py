"""CellPLM, a Transformer whose tokens are cells, with a Gaussian mixture as latent space (openreview BKXvPDekud)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Shape, Shapes, Sum, WherePresent
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename
from sclcm.encoding.normalize import LogCounts
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.nn.configs import BackboneConfig, FeedForward, LayerNorm, LCMConfig
from sclcm.nn.readouts import LinearHead
from sclcm.nn.set_configs import (
    BagOfGenes,
    BareLayers,
    CellProjection,
    CountDecoder,
    DroppedLayers,
    FlowAttention,
    GroupNorm,
    MixtureLatent,
    MixtureReadout,
    TokenItself,
)
from sclcm.zoo._card import ModelCard
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._recipes import GeneRecipe
from sclcm.zoo._spec import BesideWeights, Checkpoint, HasTensor, LacksTensor, ModelSpec, Recipe, Variant
from sclcm.zoo._vocabularies import ListedGenes

TABLE = "embedder.feat_enc.emb"
PROJECTION = "embedder.extra_linear."
BLOCK = "encoder.layers.{}."
SELF = BLOCK + "self_attn."
OURS = "backbone.blocks.{}."
LATENT = "latent.layers.1.inference."
AUTOENCODER = "latent.layers.1.lat_2lat.0."
DECODER = "decoder.layers.{}."
COVARIATE = "decoder.covariate_layers.{}."
FIRST_COVARIATE = "decoder.covariate_layers.0."
OUT = "decoder.out_layer."
CLASSES = "head.mlp.1.weight"
BARE_CLASSES = "head.mlp.0.weight"
CLUSTERS = LATENT + "inference_qyx.0.logits.weight"
MEAN = LATENT + "inference_qzyx.2.mu.weight"
DISPERSION = OUT + "dec_disp"
COUNTS = "heads.counts.blocks.{}."
TERMS = COUNTS + "covariates."
QUARTERS = GroupNorm(n_groups=4)

SPEC = ModelSpec(
    name="cellplm",
    title="CellPLM: a Transformer whose tokens are cells and whose sentences are sets of them",
    reference="Wen et al., ICLR 2024",
    card=ModelCard(
        gene_encoding="learned table, Ensembl ids",
        value_encoding="sum of the genes' vectors, each times log1p of its count",
        extra_tokens="none: a token is a cell",
        backbone="Flowformer over the cells of a batch: pre-norm, attention by conserved flows",
        objective="masked counts (negative binomial) with a Gaussian mixture as latent space",
        corpus="11 million human cells: 9 million dissociated, 2 million of spatial data",
        tasks=("cell embedding", "imputation of spatial data", "cell type annotation", "denoising", "perturbation"),
        input="raw counts, Ensembl ids; the batch of each cell names its set",
    ),
    vocabulary=ListedGenes(files=("*.config.json",), genes="gene_list", ids="ensembl"),
    # Counts are not scaled to a library size anywhere.
    encoding=Encoding(normalize=(LogCounts(),), select=InOrder(), value=Normalized(), max_tokens=None),
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=BagOfGenes(n_tokens=Shape(TABLE), projection=CellProjection(activation="relu", norm=QUARTERS)),
        backbone=BackboneConfig(
            n_blocks=Count(SELF + "query_projection.weight"),
            # The published configuration does not name the heads; the authors' code then takes 8.
            attention=FlowAttention(n_heads=Config("enc_head", default=8)),
            feed_forward=FeedForward(d_hidden=Shape("encoder.layers.0._ff_block.0.weight"), activation="gelu"),
            norm="pre",
            final_norm=LayerNorm(),
            dropout=Config("model_dropout"),
        ),
    ),
    keys=KeyMap(
        Rename(TABLE, "embed.gene.weight"),
        Rename(PROJECTION + "0.weight", "embed.projection.linear.weight"),
        Rename(PROJECTION + "0.bias", "embed.projection.linear.bias"),
        Rename(PROJECTION + "3.weight", "embed.projection.norm.weight"),
        Rename(PROJECTION + "3.bias", "embed.projection.norm.bias"),
        # A norm that is never called, and the positions, which the authors' code replaces by zero.
        Drop("embedder.norm0.weight"),
        Drop("embedder.norm0.bias"),
        Drop("embedder.pe_enc.missing_pe"),
        Drop("embedder.pe_enc.pe_enc.weight"),
        Join(
            (SELF + "query_projection.weight", SELF + "key_projection.weight", SELF + "value_projection.weight"),
            OURS + "attn.qkv.weight",
        ),
        Join(
            (SELF + "query_projection.bias", SELF + "key_projection.bias", SELF + "value_projection.bias"),
            OURS + "attn.qkv.bias",
        ),
        Rename(SELF + "out_projection.weight", OURS + "attn.out.weight"),
        Rename(SELF + "out_projection.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "norm1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "norm1.bias", OURS + "norm1.bias"),
        Rename(BLOCK + "_ff_block.0.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "_ff_block.0.bias", OURS + "ff.up.bias"),
        Rename(BLOCK + "_ff_block.3.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "_ff_block.3.bias", OURS + "ff.down.bias"),
        Rename(BLOCK + "norm2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "norm2.bias", OURS + "norm2.bias"),
        Rename("pre_latent_norm.norm.weight", "backbone.norm.weight"),
        Rename("pre_latent_norm.norm.bias", "backbone.norm.bias"),
    ),
    # What the last norm gives; it has no latent space, and is the default only where a file has none.
    recipes={
        "embed": Recipe(pooling=TokenItself()),
        "backbone": Recipe(pooling=TokenItself()),
    },
    # The authors' cell vector is that of a cluster that is drawn; ours is that of the most probable one.
    gene_recipes={
        "expression": GeneRecipe(head="counts", cells="embed"),
        "expression_drawn": GeneRecipe(head="counts", cells="drawn"),
    },
    variants=(
        # Fine-tuned classifiers have a plain latent layer, which the class head reads.
        Variant(
            when=(HasTensor(AUTOENCODER + "weight"),),
            heads={"latent": LinearHead(d_in=Shape(AUTOENCODER + "weight", 1), d_out=Shape(AUTOENCODER + "weight"))},
            keys=KeyMap(
                Rename(AUTOENCODER + "weight", "heads.latent.out.weight"),
                Rename(AUTOENCODER + "bias", "heads.latent.out.bias"),
            ),
            recipes={"embed": Recipe(pooling=TokenItself(), head="latent")},
        ),
        Variant(
            when=(HasTensor(CLASSES), LacksTensor(BARE_CLASSES)),
            heads={"cell_class": DroppedLayers(d_in=Shape(CLASSES, 1), widths=Shapes("head.mlp.{}.weight"))},
            keys=KeyMap(
                Rename("head.mlp.{}.weight", "heads.cell_class.layers.{}.weight"),
                Rename("head.mlp.{}.bias", "heads.cell_class.layers.{}.bias"),
            ),
            labels=ClassLabels(head="cell_class", recipe="embed"),
        ),
        # The authors' code puts no dropout before the layers where its share is zero, and numbers them otherwise.
        Variant(
            when=(HasTensor(BARE_CLASSES),),
            heads={"cell_class": BareLayers(d_in=Shape(BARE_CLASSES, 1), widths=Shapes("head.mlp.{}.weight"))},
            keys=KeyMap(
                Rename("head.mlp.{}.weight", "heads.cell_class.layers.{}.weight"),
                Rename("head.mlp.{}.bias", "heads.cell_class.layers.{}.bias"),
            ),
            labels=ClassLabels(head="cell_class", recipe="embed"),
        ),
        # The authors draw the cluster at random from one stream, even for embeddings; "drawn" draws it by the cell.
        Variant(
            when=(HasTensor(CLUSTERS),),
            heads={
                "mixture": MixtureLatent(
                    n_clusters=Shape(CLUSTERS),
                    d_hidden=Shape(LATENT + "inference_qzyx.0.weight"),
                    d_latent=Shape(MEAN),
                ),
                "latent_most_probable": MixtureReadout(latent="mixture", clusters="most_probable"),
                "latent_weighted": MixtureReadout(latent="mixture", clusters="weighted"),
                "latent_drawn": MixtureReadout(latent="mixture", clusters="drawn"),
            },
            keys=KeyMap(
                Rename(CLUSTERS, "heads.mixture.logits.weight"),
                Rename(LATENT + "inference_qyx.0.logits.bias", "heads.mixture.logits.bias"),
                Rename(LATENT + "inference_qzyx.0.weight", "heads.mixture.hidden.weight"),
                Rename(LATENT + "inference_qzyx.0.bias", "heads.mixture.hidden.bias"),
                Rename(MEAN, "heads.mixture.mean.weight"),
                Rename(LATENT + "inference_qzyx.2.mu.bias", "heads.mixture.mean.bias"),
                Rename(LATENT + "inference_qzyx.2.var.weight", "heads.mixture.variance.weight"),
                Rename(LATENT + "inference_qzyx.2.var.bias", "heads.mixture.variance.bias"),
                Rename(LATENT + "y_mu.weight", "heads.mixture.prior_mean.weight"),
                Rename(LATENT + "y_mu.bias", "heads.mixture.prior_mean.bias"),
                Rename(LATENT + "y_var.weight", "heads.mixture.prior_variance.weight"),
                Rename(LATENT + "y_var.bias", "heads.mixture.prior_variance.bias"),
            ),
            recipes={
                "embed": Recipe(pooling=TokenItself(), head="latent_most_probable"),
                "weighted": Recipe(pooling=TokenItself(), head="latent_weighted"),
                "drawn": Recipe(pooling=TokenItself(), head="latent_drawn"),
            },
        ),
        Variant(
            when=(HasTensor(DISPERSION),),
            heads={
                "counts": CountDecoder(
                    d_latent=Shape("decoder.layers.0.0.weight", 1),
                    d_hidden=Shape("decoder.layers.0.0.weight"),
                    n_blocks=Count(DECODER + "0.weight"),
                    d_out=Shape(OUT + "dec_1.weight"),
                    n_genes=Shape(DISPERSION),
                    covariates={
                        "batch": Shape(FIRST_COVARIATE + "batch.0.weight", absent=0),
                        "dataset": Shape(FIRST_COVARIATE + "dataset.0.weight", absent=0),
                        "platform": Shape(FIRST_COVARIATE + "platform.0.weight", absent=0),
                    },
                    norm=QUARTERS,
                )
            },
            keys=KeyMap(
                Rename(DECODER + "0.weight", COUNTS + "linear.weight"),
                Rename(DECODER + "0.bias", COUNTS + "linear.bias"),
                Rename(DECODER + "1.weight", COUNTS + "activation.weight"),
                Rename(DECODER + "3.weight", COUNTS + "norm.weight"),
                Rename(DECODER + "3.bias", COUNTS + "norm.bias"),
                Rename(COVARIATE + "batch.0.weight", TERMS + "batch.table.weight", optional=True),
                Rename(COVARIATE + "batch.1.weight", TERMS + "batch.activation.weight", optional=True),
                Rename(COVARIATE + "batch.2.weight", TERMS + "batch.norm.weight", optional=True),
                Rename(COVARIATE + "batch.2.bias", TERMS + "batch.norm.bias", optional=True),
                Rename(COVARIATE + "dataset.0.weight", TERMS + "dataset.table.weight", optional=True),
                Rename(COVARIATE + "dataset.1.weight", TERMS + "dataset.activation.weight", optional=True),
                Rename(COVARIATE + "dataset.2.weight", TERMS + "dataset.norm.weight", optional=True),
                Rename(COVARIATE + "dataset.2.bias", TERMS + "dataset.norm.bias", optional=True),
                Rename(COVARIATE + "platform.0.weight", TERMS + "platform.table.weight", optional=True),
                Rename(COVARIATE + "platform.1.weight", TERMS + "platform.activation.weight", optional=True),
                Rename(COVARIATE + "platform.2.weight", TERMS + "platform.norm.weight", optional=True),
                Rename(COVARIATE + "platform.2.bias", TERMS + "platform.norm.bias", optional=True),
                Rename(OUT + "dec_1.weight", "heads.counts.up.weight"),
                Rename(OUT + "dec_1.bias", "heads.counts.up.bias"),
                Rename(OUT + "dec_mean.0.weight", "heads.counts.mean.weight"),
                Rename(OUT + "dec_mean.0.bias", "heads.counts.mean.bias"),
                Rename(DISPERSION, "heads.counts.log_dispersion"),
            ),
        ),
    ),
    weights=("*.best.ckpt",),
    config=BesideWeights(file="*.config.json", tensors="model_state_dict"),
    requires={
        "enc_mod": "flowformer",
        "norm": "groupnorm",
        "cat_pe": False,
        "input_covariate": False,
        "dsbn": False,
        "dar": False,
        "ecs": False,
        # What the authors build the model by; of a size that differs, they would leave the tensors at random.
        "enc_hid": Shape(TABLE, 1),
        "enc_layers": Count(SELF + "query_projection.weight"),
        # Fine-tuned classifiers are read by the configuration of what they began with, which had these parts.
        "latent_mod": WherePresent(CLUSTERS, "gmvae"),
        "num_clusters": WherePresent(CLUSTERS, Shape(CLUSTERS)),
        "post_latent_dim": WherePresent(MEAN, Shape(MEAN)),
        "dec_mod": WherePresent(DISPERSION, "nbmlp"),
        "dec_hid": WherePresent(DISPERSION, Shape(OUT + "dec_1.weight", 1)),
        "dec_layers": WherePresent(DISPERSION, Sum(parts=(Count(DECODER + "0.weight"), 1))),
        "out_dim": WherePresent(DISPERSION, Shape(DISPERSION)),
    },
    checkpoints={
        "85m": Checkpoint(
            description="82 million parameters, 4 blocks of width 1,024, 16 clusters, 19,374 human genes",
            license="BSD-2-Clause (of the repository; none is stated for the weights alone)",
            source=(
                "the folder `ckpt` of github.com/OmicsML/CellPLM: its README links to a cloud folder with pairs of "
                "files, PREFIX.config.json and PREFIX.best.ckpt, of which PREFIX is 20231027_85M or 20230926_85M; put "
                "one pair into the folder"
            ),
            files=("20231027_85M.config.json", "20231027_85M.best.ckpt"),
            n_parameters=82_402_543,
        ),
    },
    sizes={"d_model": 1_024, "n_blocks": 4, "d_hidden": 2_048, "model_dropout": 0.2},
)
