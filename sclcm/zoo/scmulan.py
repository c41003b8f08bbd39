"""scMulan, a causal decoder over genes, bins and words for cells (doi:10.1007/978-1-0716-3989-4_57)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Present, Shape, Sum
from sclcm.checkpoints.keymap import KeyMap, Rename
from sclcm.encoding.normalize import LogNormalizeNamed
from sclcm.encoding.select import Reversed
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import EqualWidthBins
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    LayerNorm,
    LCMConfig,
    SoftmaxAttention,
    TableEncoder,
    ValueTable,
)
from sclcm.nn.readouts import FromEnd, GreedyDecoding, LinearHead
from sclcm.zoo._card import ModelCard
from sclcm.zoo._labels import GeneratedLabels, NamesInFile
from sclcm.zoo._spec import Checkpoint, InWeights, ModelSpec, Recipe
from sclcm.zoo._vocabularies import SynonymTable, TokenLists, WiderGenes

BLOCK = "transformer.h.{}."
FIRST = "transformer.h.0."
OURS = "backbone.blocks.{}."
TOKENS = "transformer.wte.weight"
VALUES = "transformer.wee.weight"
BINS = Config("expression_level")

# The coarse type, the fine one and the end. The authors' two ways of decoding differ where the fine type would repeat
# the coarse one: the one that gives embeddings allows it. Values end at 10 however many bins there are.
DECODING = GreedyDecoding(
    token_head="token", value_head="value", n_tokens=3, stop="<E>", max_value=10, ban="all_but_last"
)

SPEC = ModelSpec(
    name="scmulan",
    title="scMulan: a causal decoder that reads a cell as a sentence and says its type",
    reference="Bian et al., RECOMB 2024",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="bins of equal width per cell, a learned table",
        extra_tokens="organ, region, age, sex, cell type and task words",
        backbone="GPT: pre-norm, causal softmax attention",
        objective="next token and its bin",
        corpus="10 million human cells, hECA-10M",
        tasks=("zero-shot annotation", "cell embedding", "generation of cells"),
        input="raw counts, gene symbols",
    ),
    vocabulary=TokenLists(
        files=("meta_info.pt",),
        tokens="token_set",
        genes="gene_set",
        ids="symbol",
        specials=("<E>", "<PCT>"),
        pad="<E>",  # there is no token for padding, and none is seen: it stands after all that is read
        wider=WiderGenes(
            files=("total_gene_list*.txt",),
            synonyms=SynonymTable(
                files=("GeneSymbolRef*.csv",),
                symbol="Approved symbol",
                others=("Alias symbol", "Previous symbol"),
                status=("Status", "Approved"),
            ),
            respell=(("_", "-"),),
            merge="mean_round",
        ),
    ),
    encoding=Encoding(
        normalize=(LogNormalizeNamed(target_sum=1e4),),
        select=Reversed(),
        value=EqualWidthBins(n_bins=BINS),
        suffix=("<PCT>",),
        max_tokens=None,
    ),
    architecture=LCMConfig(
        d_model=Shape(TOKENS, 1),
        gene=TableEncoder(n_tokens=Shape(TOKENS)),
        value=ValueTable(n_values=Shape(VALUES)),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "attn.c_attn.weight"),
            attention=SoftmaxAttention(n_heads=Config("n_head"), causal=True, bias=Present(FIRST + "attn.c_attn.bias")),
            feed_forward=FeedForward(
                d_hidden=Shape(FIRST + "mlp.c_fc.weight"),
                activation="gelu_tanh",
                bias=Present(FIRST + "mlp.c_fc.bias"),
            ),
            norm="pre",
            layer_norm=LayerNorm(bias=Present(FIRST + "ln_1.bias")),
            final_norm=LayerNorm(bias=Present("transformer.ln_f.bias")),
            dropout=Config("dropout"),
        ),
        heads={
            "token": LinearHead(d_in=Shape("lm_head.weight", 1), d_out=Shape("lm_head.weight"), bias=False),
            "value": LinearHead(d_in=Shape("epx_head.weight", 1), d_out=Shape("epx_head.weight"), bias=False),
        },
    ),
    keys=KeyMap(
        Rename(TOKENS, "embed.gene.weight"),
        Rename(VALUES, "embed.value.rows.table.weight"),
        Rename(BLOCK + "ln_1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "ln_1.bias", OURS + "norm1.bias", optional=True),
        Rename(BLOCK + "attn.c_attn.weight", OURS + "attn.qkv.weight"),
        Rename(BLOCK + "attn.c_attn.bias", OURS + "attn.qkv.bias", optional=True),
        Rename(BLOCK + "attn.c_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "attn.c_proj.bias", OURS + "attn.out.bias", optional=True),
        Rename(BLOCK + "ln_2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "ln_2.bias", OURS + "norm2.bias", optional=True),
        Rename(BLOCK + "mlp.c_fc.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "mlp.c_fc.bias", OURS + "ff.up.bias", optional=True),
        Rename(BLOCK + "mlp.c_proj.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "mlp.c_proj.bias", OURS + "ff.down.bias", optional=True),
        Rename("transformer.ln_f.weight", "backbone.norm.weight"),
        Rename("transformer.ln_f.bias", "backbone.norm.bias", optional=True),
        Rename("lm_head.weight", "heads.token.out.weight"),
        Rename("epx_head.weight", "heads.value.out.weight"),
    ),
    # The token before the last that the last step reads: the coarse type, where two types are said.
    recipes={"embed": Recipe(pooling=FromEnd(places=1), decoding=DECODING)},
    labels=GeneratedLabels(
        names=NamesInFile(files=("meta_info.pt",), entries=("cell_type", "MCT")),
        unnamed="Unclassified",
        recipe="embed",
        fine=1,
        coarse=2,
    ),
    weights=("ckpt_scMulan.pt",),
    config=InWeights(key="model_args", tensors="model"),
    requires={
        "ele": 1,
        # What the authors build the model by.
        "vocab_size": Shape(TOKENS),
        "n_embd": Shape(TOKENS, 1),
        "n_layer": Count(BLOCK + "attn.c_attn.weight"),
        "bias": Present(FIRST + "attn.c_attn.bias"),
        "expression_level": Sum(parts=(Shape(VALUES), -1)),  # the first row is for tokens without a value
    },
    checkpoints={
        "heca-10m": Checkpoint(
            description="369 million parameters, 24 blocks of width 1,120, 10 million human cells of 7 organs",
            n_parameters=368_800_320,
            license="MIT (of the repository; none is stated for the weights alone)",
            source=(
                "weights: the cloud link in the README of github.com/SuperBianC/scMulan; meta_info.pt: scMulan/utils "
                "there; the other two: scMulan/reference/GeneSymbolUniform there. Without GeneSymbolRef_upd0731.csv "
                "names are read by the resolver of this package"
            ),
            files=("ckpt_scMulan.pt", "meta_info.pt", "total_gene_list_42117.txt", "GeneSymbolRef_upd0731.csv"),
        ),
    },
)
