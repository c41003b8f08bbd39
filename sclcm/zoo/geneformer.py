"""Geneformer V1 and V2, a BERT over ranked genes (doi:10.1038/s41586-023-06139-9, doi:10.1101/2024.08.16.608180)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Shape
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename, Tie
from sclcm.encoding.normalize import DivideByFactor
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
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
from sclcm.nn.readouts import FirstToken, MeanPooling, PooledClassHead, TiedTokenHead, TokenClassHead
from sclcm.zoo._card import ModelCard
from sclcm.zoo._labels import ClassLabels, LabelFile
from sclcm.zoo._spec import (
    Checkpoint,
    GeneFactors,
    HasTensor,
    HubFiles,
    LacksTensor,
    ModelSpec,
    Recipe,
    Variant,
    VocabularyHas,
    VocabularySource,
)

NORM = LayerNorm(eps=Config("layer_norm_eps"))
TABLE = "bert.embeddings.word_embeddings.weight"
BLOCK = "bert.encoder.layer.{}."
SELF = BLOCK + "attention.self."
OURS = "backbone.blocks.{}."
REPOSITORY = "ctheodoris/Geneformer"
# The commit that published analyses of 2026 name for all four checkpoints; they also give these digests, each found in
# at least two of them. They were not compared with the hub itself. Of the continued checkpoint no digest was found.
REVISION = "04c2b2e84da7c0f385c3f9ad8f3ec24bab6650e5"
FIRST = "geneformer/gene_dictionaries_30m/"
DICTIONARIES_V1 = {
    FIRST + "token_dictionary_gc30M.pkl": "ab9dc40973fa5224d77b793e2fd114cacf3d08423ed9c4c49caf0ba9c7f218f1",
    FIRST + "gene_median_dictionary_gc30M.pkl": "b3b589bb5ec75040d05fc44dd6bf0184cf87f3c362cf158d196a6ed3b7fe5f39",
    FIRST + "ensembl_mapping_dict_gc30M.pkl": "eac0fb0b3007267871b6305ac0003ceba19d4f28d85686cb9067ecf142787869",
}
SECOND = "geneformer/"
DICTIONARIES_V2 = {
    SECOND + "token_dictionary_gc104M.pkl": "67c445f4385127adfc48dcc072320cd65d6822829bf27dd38070e6e787bc597f",
    SECOND + "gene_median_dictionary_gc104M.pkl": "a51c53f6a771d64508dfaf61529df70e394c53bd20856926117ae5d641a24bf5",
    SECOND + "ensembl_mapping_dict_gc104M.pkl": "0819bcbd869cfa14279449b037eb9ed1d09a91310e77bd1a19d927465030e95c",
}

SPEC = ModelSpec(
    name="geneformer",
    title="Geneformer: a BERT over the genes of a cell in order of rank",
    reference="Theodoris et al., Nature 2023; Chen et al., bioRxiv 2024",
    card=ModelCard(
        gene_encoding="learned table, Ensembl ids",
        value_encoding="none: the place in the order of rank",
        extra_tokens="<cls> and <eos> (V2)",
        backbone="BERT: post-norm, full softmax attention",
        objective="masked genes (15%)",
        corpus="30 million (V1) or 104 million (V2) human cells, Genecorpus",
        tasks=("cell embedding", "cell classification", "gene classification", "in-silico perturbation"),
        input="raw counts, Ensembl ids",
    ),
    vocabulary=VocabularySource(
        files=("token_dictionary*.pkl", "token_dictionary*.json"),
        ids="ensembl",
        specials=("<pad>", "<mask>", "<cls>", "<eos>"),
        pad="<pad>",
        mask="<mask>",
        names=("ensembl_mapping_dict*.pkl", "ensembl_mapping_dict*.json"),
        gene_columns=("ensembl_id",),
    ),
    arrays={"median": GeneFactors(files=("gene_median_dictionary*.pkl", "gene_median_dictionary*.json"))},
    # The second generation frames a sentence by <cls> and <eos>; the first has neither in its vocabulary.
    encoding=Encoding(
        normalize=(DivideByFactor(factors="median"),),
        select=ByRank(),
        prefix=("<cls>",),
        suffix=("<eos>",),
        max_tokens=Config("max_position_embeddings"),
        total_key="n_counts",
    ),
    architecture=LCMConfig(
        d_model=Config("hidden_size"),
        gene=TableEncoder(n_tokens=Shape(TABLE)),
        position=LearnedPositions(n_positions=Shape("bert.embeddings.position_embeddings.weight")),
        segment=ConstantSegment(n_segments=Shape("bert.embeddings.token_type_embeddings.weight")),
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
        Drop("bert.embeddings.position_ids"),  # 0, 1, 2, ...: a buffer that files of transformers 4.6 carry
        Tie((TABLE, "cls.predictions.decoder.weight"), "embed.gene.weight"),
        Rename("bert.embeddings.position_embeddings.weight", "embed.position.weight"),
        Rename("bert.embeddings.token_type_embeddings.weight", "embed.segment.weight"),
        Rename("bert.embeddings.LayerNorm.weight", "embed.norm.weight"),
        Rename("bert.embeddings.LayerNorm.bias", "embed.norm.bias"),
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
    # Upstream's default layer is the second to last, which it calls -1; its 0 is the last.
    recipes={
        "embed": Recipe(pooling=MeanPooling(), layer=-2),
        "mean": Recipe(pooling=MeanPooling(), layer=-2),
        "mean_last": Recipe(pooling=MeanPooling(), layer=-1),
    },
    weights=("model.safetensors", "pytorch_model.bin"),
    requires={
        "model_type": "bert",
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        # What the tensors say as well.
        "vocab_size": Shape(TABLE),
        "hidden_size": Shape(TABLE, 1),
        "num_hidden_layers": Count(BLOCK + "output.dense.weight"),
        "intermediate_size": Shape("bert.encoder.layer.0.intermediate.dense.weight"),
        "max_position_embeddings": Shape("bert.embeddings.position_embeddings.weight"),
        "type_vocab_size": Shape("bert.embeddings.token_type_embeddings.weight"),
    },
    variants=(
        Variant(
            when=(VocabularyHas("<cls>"),),
            recipes={
                "embed": Recipe(pooling=FirstToken(), layer=-2),
                "cls": Recipe(pooling=FirstToken(), layer=-2),
                "cls_last": Recipe(pooling=FirstToken(), layer=-1),
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
        # A fine-tuned cell classifier pools position 0: <cls> in V2, the top-ranked gene in V1.
        Variant(
            when=(HasTensor("classifier.weight"), HasTensor("bert.pooler.dense.weight")),
            heads={"cell_class": PooledClassHead(n_classes=Shape("classifier.weight"))},
            keys=KeyMap(
                Rename("bert.pooler.dense.weight", "heads.cell_class.dense.weight"),
                Rename("bert.pooler.dense.bias", "heads.cell_class.dense.bias"),
                Rename("classifier.weight", "heads.cell_class.out.weight"),
                Rename("classifier.bias", "heads.cell_class.out.bias"),
            ),
            labels=ClassLabels(head="cell_class", names=LabelFile(files=("*id_class_dict.pkl",))),
        ),
        Variant(
            when=(HasTensor("classifier.weight"), LacksTensor("bert.pooler.dense.weight")),
            heads={"gene_class": TokenClassHead(n_classes=Shape("classifier.weight"))},
            keys=KeyMap(
                Rename("classifier.weight", "heads.gene_class.out.weight"),
                Rename("classifier.bias", "heads.gene_class.out.bias"),
            ),
        ),
    ),
    checkpoints={
        "v1-10m": Checkpoint(
            description="V1, 6 blocks of width 256, 27 million human cells",
            n_parameters=10_288_722,
            license="Apache-2.0",
            hub=HubFiles(
                repository=REPOSITORY,
                revision=REVISION,
                files={
                    "Geneformer-V1-10M/config.json": "9cf69ca3bdb0215c4188b54c451b6f02adfe68b8f66011a57d0f32845133fd4b",
                    "Geneformer-V1-10M/model.safetensors": (
                        "a5e33a757431643b3697de7ef6127950cdc49e06e58d4266b3a3ab191b683f14"
                    ),
                    **DICTIONARIES_V1,
                },
                n_bytes=41_183_536,
            ),
        ),
        "v2-104m": Checkpoint(
            description="V2, 12 blocks of width 768, 104 million human cells",
            n_parameters=104_386_867,
            license="Apache-2.0",
            hub=HubFiles(
                repository=REPOSITORY,
                revision=REVISION,
                files={
                    "Geneformer-V2-104M/config.json": (
                        "467d4492f0dd53b4d60afffe20812db484ca1cf9fdbeb6a6e060e93564f70859"
                    ),
                    "Geneformer-V2-104M/model.safetensors": (
                        "fff5cba29ddd8792991fa77b4872246fbe548a178cebda3775cdc72b67780e7f"
                    ),
                    **DICTIONARIES_V2,
                },
                n_bytes=417_571_156,
            ),
        ),
        "v2-104m-clcancer": Checkpoint(
            description="V2, 12 blocks of width 768, continued on 14 million cancer cells",
            n_parameters=104_386_867,
            license="Apache-2.0",
            hub=HubFiles(
                repository=REPOSITORY,
                revision=REVISION,
                files={
                    "Geneformer-V2-104M_CLcancer/config.json": None,
                    "Geneformer-V2-104M_CLcancer/model.safetensors": None,
                    **DICTIONARIES_V2,
                },
            ),
        ),
        "v2-316m": Checkpoint(
            description="V2, 18 blocks of width 1,152, 104 million human cells",
            n_parameters=316_354_867,
            license="Apache-2.0",
            hub=HubFiles(
                repository=REPOSITORY,
                revision=REVISION,
                files={
                    "Geneformer-V2-316M/config.json": (
                        "2cc4af3442644e84af71814a607b61c958d7b4e5ebde6791ab77b5f534ac6f6e"
                    ),
                    "Geneformer-V2-316M/model.safetensors": (
                        "965ceccea81953d362081ef3843560a0e4fef88d396c28017881f1e94b1246f3"
                    ),
                    **DICTIONARIES_V2,
                },
                n_bytes=1_265_455_076,
            ),
        ),
    },
)
