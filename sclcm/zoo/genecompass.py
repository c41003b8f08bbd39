"""GeneCompass: ranked genes with values and prior knowledge, human and mouse (doi:10.1101/2023.09.26.559542)."""

from __future__ import annotations

from dataclasses import replace

from sclcm._sizes import Config, Count, Given, Present, Shape, WherePresent
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename, Tie
from sclcm.checkpoints.keyrules import DropCounting, DropFilled
from sclcm.encoding.normalize import DivideByFactor, Log2
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized, WholePart
from sclcm.nn.configs import (
    BackboneConfig,
    ConstantSegment,
    FeedForward,
    LayerNorm,
    LCMConfig,
    LearnedPositions,
    SoftmaxAttention,
    TableEncoder,
)
from sclcm.nn.prior_configs import JoinedInputs, Partners, PriorVectors, SpeciesPrefix
from sclcm.nn.readouts import (
    FirstToken,
    MeanPooling,
    NormedValueHead,
    PooledClassHead,
    RestMean,
    TiedTokenHead,
    TokenMean,
)
from sclcm.zoo._card import ModelCard
from sclcm.zoo._factors import PartialFactors
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._spec import Checkpoint, HasTensor, ModelSpec, Recipe, Variant, VocabularySource

NORM = LayerNorm(eps=Config("layer_norm_eps"))
INPUT = "bert.embeddings."
WORDS = INPUT + "word_embeddings.weight"
INDEX = INPUT + "homologous_index"
SPECIES = "bert.cls_embedding.weight"
BLOCK = "bert.encoder.layer.{}."
SELF = BLOCK + "attention.self."
OURS = "backbone.blocks.{}."
TABLE, WEIGHT, BIAS = "_knowledge", "_embeddings.linear1.weight", "_embeddings.linear1.bias"
PROMOTER = INPUT + "promoter"
CO_EXPRESSION = INPUT + "co_exp"
FAMILY = INPUT + "gene_family"
REGULATION = INPUT + "peca_grn"
PRIORS = "embed.fusion.priors."
MEDIANS_HUMAN, MEDIANS_MOUSE = "human_gene_median_after_filter.pickle", "mouse_gene_median_after_filter.pickle"
FILES = ("pytorch_model.bin", "config.json", "human_mouse_tokens.pickle")
SOURCE = (
    "weights and configuration: the link to scidb.cn in the README of github.com/xCompass-AI/GeneCompass; the token "
    "dictionary: prior_knowledge there. Medians of genes are not published; if you have those of human or mouse, put "
    "them beside these files, else counts are not divided"
)
LICENSE = "none stated: the repository has no licence file"

# The authors compute a normalisation by library size, and do not use it.
ENCODING = Encoding(
    normalize=(DivideByFactor(factors="median"), Log2()),
    select=ByRank(),
    value=Normalized(),
    max_tokens=Given("max_len", default=2048),  # as the authors cut and fill up; a model may know fewer places
    reserved=Present(SPECIES),
)

SPEC = ModelSpec(
    name="genecompass",
    title="GeneCompass: a BERT over ranked genes of human and mouse, with their values and prior knowledge",
    reference="Yang et al., Cell Research 2024",
    card=ModelCard(
        gene_encoding=(
            "learned table beside four projected prior vectors (promoter, co-expression, family, regulation), those of "
            "the human homologue for mouse genes; Ensembl ids"
        ),
        value_encoding="the number itself beside the gene vector, and the place in the order of rank",
        extra_tokens="a vector of the species before all genes",
        backbone="BERT: post-norm, full softmax attention",
        objective="masked genes and their values (15%)",
        corpus="more than 120 million human and mouse cells, scCompass-126M",
        tasks=(
            *("cell embedding", "cell classification", "gene regulatory networks", "in-silico perturbation"),
            *("dosage sensitivity", "drug response"),
        ),
        input="raw counts, Ensembl ids, one species at a time",
    ),
    vocabulary=VocabularySource(
        files=(
            *("human_mouse_tokens.pickle", "*/human_mouse_tokens.pickle"),
            *("h&m_token1000W.pickle", "*/h&m_token1000W.pickle"),
        ),
        ids="ensembl",
        specials=("<pad>", "<mask>"),
        pad="<pad>",
        mask="<mask>",
        gene_columns=("ensembl_id",),
        species=("human", "mouse"),  # in the order of their numbers
    ),
    arrays={
        "median": PartialFactors(
            files=((MEDIANS_HUMAN, "*/" + MEDIANS_HUMAN), (MEDIANS_MOUSE, "*/" + MEDIANS_MOUSE)),
            default=1.0,
            absence=(
                "The authors divided counts by the median of each gene over their corpus, and have not published "
                "these. Without them genes that are high in every cell rank first, and vectors differ from those that "
                "the authors would get. Put the files beside the model's if you have them."
            ),
        )
    },
    encoding=ENCODING,
    architecture=LCMConfig(
        d_model=Config("hidden_size"),
        gene=TableEncoder(n_tokens=Shape(WORDS)),
        fusion=JoinedInputs(
            priors=(
                WherePresent(
                    PROMOTER + WEIGHT,
                    PriorVectors(name="promoter", n_tokens=Shape(PROMOTER + TABLE), d_prior=Shape(PROMOTER + TABLE, 1)),
                ),
                WherePresent(
                    CO_EXPRESSION + WEIGHT,
                    PriorVectors(
                        name="co_expression",
                        n_tokens=Shape(CO_EXPRESSION + TABLE),
                        d_prior=Shape(CO_EXPRESSION + TABLE, 1),
                    ),
                ),
                WherePresent(
                    FAMILY + WEIGHT,
                    PriorVectors(name="family", n_tokens=Shape(FAMILY + TABLE), d_prior=Shape(FAMILY + TABLE, 1)),
                ),
                WherePresent(
                    REGULATION + WEIGHT,
                    PriorVectors(
                        name="regulation", n_tokens=Shape(REGULATION + TABLE), d_prior=Shape(REGULATION + TABLE, 1)
                    ),
                ),
            ),
            partners=Partners(n_tokens=Shape(INDEX), species=1),
            has_value=Config("use_values"),
            activation="gelu_sigmoid",
            layer_norm=LayerNorm(eps=1e-5),
        ),
        position=LearnedPositions(n_positions=Shape(INPUT + "position_embeddings.weight")),
        segment=ConstantSegment(n_segments=Shape(INPUT + "token_type_embeddings.weight")),
        embedding_norm=NORM,
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "output.dense.weight"),
            attention=SoftmaxAttention(n_heads=Config("num_attention_heads")),
            feed_forward=FeedForward(d_hidden=Config("intermediate_size"), activation=Config("hidden_act")),
            norm="post",
            layer_norm=NORM,
            dropout=Config("hidden_dropout_prob"),
        ),
    ),
    keys=KeyMap(
        DropCounting(INPUT + "position_ids"),
        DropFilled("emb_warmup.alpha", 1.0),  # scales the prior vectors; it starts at one, and nothing changes it
        Drop("emb_warmup.steps"),  # counts the passes of the model, those in evaluation as well
        Tie((WORDS, "cls.predictions.decoder.weight"), "embed.gene.weight"),
        Rename(PROMOTER + TABLE, PRIORS + "promoter.table.weight", optional=True),
        Rename(PROMOTER + WEIGHT, PRIORS + "promoter.project.weight", optional=True),
        Rename(PROMOTER + BIAS, PRIORS + "promoter.project.bias", optional=True),
        Rename(CO_EXPRESSION + TABLE, PRIORS + "co_expression.table.weight", optional=True),
        Rename(CO_EXPRESSION + WEIGHT, PRIORS + "co_expression.project.weight", optional=True),
        Rename(CO_EXPRESSION + BIAS, PRIORS + "co_expression.project.bias", optional=True),
        Rename(FAMILY + TABLE, PRIORS + "family.table.weight", optional=True),
        Rename(FAMILY + WEIGHT, PRIORS + "family.project.weight", optional=True),
        Rename(FAMILY + BIAS, PRIORS + "family.project.bias", optional=True),
        Rename(REGULATION + TABLE, PRIORS + "regulation.table.weight", optional=True),
        Rename(REGULATION + WEIGHT, PRIORS + "regulation.project.weight", optional=True),
        Rename(REGULATION + BIAS, PRIORS + "regulation.project.bias", optional=True),
        Rename(INDEX, "embed.fusion.partners.index"),
        Rename(INPUT + "concat_embeddings.cat_fc.weight", "embed.fusion.up.weight"),
        Rename(INPUT + "concat_embeddings.cat_fc.bias", "embed.fusion.up.bias"),
        Rename(INPUT + "concat_embeddings.cat_ln.weight", "embed.fusion.norm.weight"),
        Rename(INPUT + "concat_embeddings.cat_ln.bias", "embed.fusion.norm.bias"),
        Rename(INPUT + "concat_embeddings.cat_proj.weight", "embed.fusion.down.weight"),
        Rename(INPUT + "concat_embeddings.cat_proj.bias", "embed.fusion.down.bias"),
        Rename(INPUT + "position_embeddings.weight", "embed.position.weight"),
        Rename(INPUT + "token_type_embeddings.weight", "embed.segment.weight"),
        Rename(INPUT + "LayerNorm.weight", "embed.norm.weight"),
        Rename(INPUT + "LayerNorm.bias", "embed.norm.bias"),
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
    ),
    # The authors' scripts for embeddings pass no attention mask, so that the model sees the padding up to the longest
    # sentence; in training and classification it does not.
    recipes={
        "embed": Recipe(pooling=MeanPooling()),
        "mean": Recipe(pooling=MeanPooling()),
        "mean_unmasked": Recipe(pooling=TokenMean(), mask_padding=False),
    },
    weights=("pytorch_model.bin", "model.safetensors", "*/pytorch_model.bin", "*/model.safetensors"),
    requires={
        "position_embedding_type": "absolute",
        "vocab_size": Shape(WORDS),
        "max_position_embeddings": Shape(INPUT + "position_embeddings.weight"),
        "type_vocab_size": Shape(INPUT + "token_type_embeddings.weight"),
        "num_hidden_layers": Count(BLOCK + "output.dense.weight"),
        "use_cls_token": Present(SPECIES),
        "use_promoter": Present(PROMOTER + WEIGHT),
        "use_co_exp": Present(CO_EXPRESSION + WEIGHT),
        "use_gene_family": Present(FAMILY + WEIGHT),
        "use_peca_grn": Present(REGULATION + WEIGHT),
    },
    variants=(
        Variant(
            when=(HasTensor(SPECIES),),
            architecture={"prefix": SpeciesPrefix(n_species=Shape(SPECIES))},
            keys=KeyMap(Rename(SPECIES, "embed.prefix.table.weight")),
            recipes={
                "embed": Recipe(pooling=FirstToken()),
                "cls": Recipe(pooling=FirstToken()),
                "cls_unmasked": Recipe(pooling=FirstToken(), mask_padding=False),
                "mean_unmasked": Recipe(pooling=RestMean(), mask_padding=False),
            },
        ),
        Variant(
            when=(HasTensor("cls.predictions.bias"),),
            heads={"token": TiedTokenHead(activation=Config("hidden_act"), layer_norm=NORM)},
            keys=KeyMap(
                Tie(("cls.predictions.bias", "cls.predictions.decoder.bias"), "heads.token.bias"),
                Rename("cls.predictions.transform.dense.weight", "heads.token.dense.weight"),
                Rename("cls.predictions.transform.dense.bias", "heads.token.dense.bias"),
                Rename("cls.predictions.transform.LayerNorm.weight", "heads.token.norm.weight"),
                Rename("cls.predictions.transform.LayerNorm.bias", "heads.token.norm.bias"),
            ),
        ),
        Variant(
            when=(HasTensor("cls4value.predictions.bias"),),
            heads={"value": NormedValueHead(activation=Config("hidden_act"), layer_norm=NORM)},
            keys=KeyMap(
                Tie(("cls4value.predictions.bias", "cls4value.predictions.decoder.bias"), "heads.value.out.bias"),
                Rename("cls4value.predictions.decoder.weight", "heads.value.out.weight"),
                Rename("cls4value.predictions.transform.dense.weight", "heads.value.dense.weight"),
                Rename("cls4value.predictions.transform.dense.bias", "heads.value.dense.bias"),
                Rename("cls4value.predictions.transform.LayerNorm.weight", "heads.value.norm.weight"),
                Rename("cls4value.predictions.transform.LayerNorm.bias", "heads.value.norm.bias"),
            ),
        ),
        # A fine-tuned classifier pools the first place, that of the species. In the authors' code for it every cell
        # counts as human, and values have lost their fractions.
        Variant(
            when=(HasTensor("classifier.weight"), HasTensor("bert.pooler.dense.weight")),
            heads={"cell_class": PooledClassHead(n_classes=Shape("classifier.weight"))},
            architecture={"species": 0},
            keys=KeyMap(
                Rename("bert.pooler.dense.weight", "heads.cell_class.dense.weight"),
                Rename("bert.pooler.dense.bias", "heads.cell_class.dense.bias"),
                Rename("classifier.weight", "heads.cell_class.out.weight"),
                Rename("classifier.bias", "heads.cell_class.out.bias"),
            ),
            labels=ClassLabels(head="cell_class", encoding=replace(ENCODING, value=WholePart())),
        ),
    ),
    checkpoints={
        "base": Checkpoint(
            description="12 blocks of width 768, human and mouse cells",
            license=LICENSE,
            source=SOURCE,
            files=FILES,
            n_parameters=132_601_217,
        ),
        "small": Checkpoint(
            description="6 blocks, human and mouse cells; other sizes are read from its files",
            license=LICENSE,
            source=SOURCE,
            files=FILES,
        ),
    },
)
