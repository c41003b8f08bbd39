"""tGPT: a GPT-2 over the names of the top genes of a cell, in order of rank (doi:10.1101/2022.01.31.478596)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Given, Shape
from sclcm.checkpoints.keymap import Drop, KeyMap, Rename, StripPrefix, Tie, Transpose
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.nn.configs import (
    BackboneConfig,
    FeedForward,
    LayerNorm,
    LCMConfig,
    LearnedPositions,
    SoftmaxAttention,
    TableEncoder,
)
from sclcm.nn.readouts import MeanPooling, TableHead
from sclcm.nn.table_configs import SharedSegment
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import Checkpoint, ModelSpec, Recipe
from sclcm.zoo._vocabularies import WordVocabulary

NORM = LayerNorm(eps=Config("layer_norm_epsilon"))
TABLE = "transformer.wte.weight"
BLOCK = "transformer.h.{}."
OURS = "backbone.blocks.{}."

SPEC = ModelSpec(
    name="tgpt",
    title="tGPT: a GPT-2 over the names of the top genes of a cell in order of rank",
    reference="Shen et al., iScience 2023",
    card=ModelCard(
        gene_encoding="learned table, symbols",
        value_encoding="none: the place in the order of rank",
        extra_tokens="</b> before and </s> after the genes",
        backbone="GPT-2: pre-norm, causal softmax attention",
        objective="next gene",
        corpus="22.3 million cells",
        tasks=("cell embedding", "clustering", "trajectories", "features of bulk tumours"),
        input="expression in any unit, since ranks alone count; gene symbols",
    ),
    # Genes that the vocabulary lacks are no tokens. Upstream's recipe would write <unk> for each, but the authors left
    # such genes (ribosomal, mitochondrial, MALAT1) out before they ranked the cells that they trained on.
    vocabulary=WordVocabulary(
        files=("tokenizer.json",),
        ids="symbol",
        specials=("<pad>", "</b>", "</s>", "<unk>"),
        pad="<pad>",
        reserved=("unused*", "extra_id_*", ":"),
        respell=(("-", "_"), (".", "_")),
    ),
    encoding=Encoding(select=ByRank(), prefix=("</b>",), suffix=("</s>",), max_tokens=Given("max_length", default=64)),
    architecture=LCMConfig(
        d_model=Shape(TABLE, 1),
        gene=TableEncoder(n_tokens=Shape(TABLE)),
        position=LearnedPositions(n_positions=Shape("transformer.wpe.weight")),
        # Upstream's tokenizer gives each token the type 0, which GPT-2 looks up in the table of tokens: it adds the
        # vector of <pad> everywhere, in training as well.
        segment=SharedSegment(row=0),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "attn.c_attn.weight"),
            attention=SoftmaxAttention(n_heads=Config("n_head"), causal=True),
            feed_forward=FeedForward(
                d_hidden=Shape("transformer.h.0.mlp.c_fc.weight", 1), activation=Config("activation_function")
            ),
            norm="pre",
            layer_norm=NORM,
            final_norm=NORM,
            dropout=Config("resid_pdrop"),
        ),
        heads={"token": TableHead()},
    ),
    keys=KeyMap(
        StripPrefix("module."),
        Drop(BLOCK + "attn.bias"),  # the causal mask and the number for minus infinity, as old transformers save them
        Drop(BLOCK + "attn.masked_bias"),
        Tie((TABLE, "lm_head.weight"), "embed.gene.weight"),
        Rename("transformer.wpe.weight", "embed.position.weight"),
        Rename(BLOCK + "ln_1.weight", OURS + "norm1.weight"),
        Rename(BLOCK + "ln_1.bias", OURS + "norm1.bias"),
        Transpose(BLOCK + "attn.c_attn.weight", OURS + "attn.qkv.weight"),
        Rename(BLOCK + "attn.c_attn.bias", OURS + "attn.qkv.bias"),
        Transpose(BLOCK + "attn.c_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "attn.c_proj.bias", OURS + "attn.out.bias"),
        Rename(BLOCK + "ln_2.weight", OURS + "norm2.weight"),
        Rename(BLOCK + "ln_2.bias", OURS + "norm2.bias"),
        Transpose(BLOCK + "mlp.c_fc.weight", OURS + "ff.up.weight"),
        Rename(BLOCK + "mlp.c_fc.bias", OURS + "ff.up.bias"),
        Transpose(BLOCK + "mlp.c_proj.weight", OURS + "ff.down.weight"),
        Rename(BLOCK + "mlp.c_proj.bias", OURS + "ff.down.bias"),
        Rename("transformer.ln_f.weight", "backbone.norm.weight"),
        Rename("transformer.ln_f.bias", "backbone.norm.bias"),
    ),
    recipes={"embed": Recipe(pooling=MeanPooling())},
    weights=("model.safetensors", "pytorch_model.bin", "model_*.pth"),
    requires={
        "model_type": "gpt2",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "add_cross_attention": False,
        "vocab_size": Shape(TABLE),
        "n_embd": Shape(TABLE, 1),
        "n_layer": Count(BLOCK + "attn.c_attn.weight"),
        "n_positions": Shape("transformer.wpe.weight"),
        "n_inner": Shape("transformer.h.0.mlp.c_fc.weight", 1),
    },
    checkpoints={
        "62-genes": Checkpoint(
            description="8 blocks of width 1,024, 22.3 million cells, the 62 genes of highest rank",
            license="none stated for the weights; GPL-3.0 for the repository of the authors",
            source=(
                "huggingface.co/lixiangchun/transcriptome-gpt-1024-8-16-64, which the README of "
                "github.com/deeplearningplus/tGPT names"
            ),
            files=("config.json", "pytorch_model.bin", "tokenizer.json"),
            n_parameters=123_478_016,
        ),
    },
    needs="expression",
    accepts_bulk=True,
)
