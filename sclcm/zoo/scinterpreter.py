"""scInterpreter: a frozen Llama over genes as vectors of their descriptions (doi:10.48550/arXiv.2402.12405)."""

from __future__ import annotations

from sclcm._sizes import Config, Count, Given, Quotient, Shape
from sclcm.checkpoints.keymap import Drop, Join, KeyMap, Rename, StripPrefix
from sclcm.checkpoints.keyrules import JoinHeads
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.nn.attention_configs import RotaryPositions
from sclcm.nn.configs import BackboneConfig, LCMConfig, RMSNorm, SoftmaxAttention
from sclcm.nn.fixed_configs import VectorMLP
from sclcm.nn.gated_configs import GatedFeedForward
from sclcm.nn.readouts import FromEnd
from sclcm.zoo._card import ModelCard
from sclcm.zoo._spec import ModelSpec, Recipe, VocabularySource

NORM = RMSNorm(eps=Config("rms_norm_eps"))
TABLE = "gene_vectors.weight"
BLOCK = "layers.{}."
FIRST = "layers.0."
OURS = "backbone.blocks.{}."

SPEC = ModelSpec(
    name="scinterpreter",
    title="scInterpreter: a frozen Llama over the top genes of a cell, as vectors of their descriptions",
    reference="Li et al., arXiv 2024",
    card=ModelCard(
        gene_encoding="fixed vectors of text: NCBI's description of each gene, embedded by ada-002, through an MLP",
        value_encoding="none: the place in the order of expression",
        extra_tokens="<cls> after the genes",
        backbone="Llama-13b, frozen: pre-norm, causal softmax attention, rotary positions",
        objective="cell type, from the output of the language model",
        corpus="text, of the language model; HUMAN-10k and MOUSE-13k for the rest",
        tasks=("cell type annotation", "cell embedding"),
        input="expression in any unit, since ranks alone count; a vector for each gene",
    ),
    # The blocks have the names of transformers' Llama. All that is not of the language model is named here, as nothing
    # is published.
    vocabulary=VocabularySource(
        files=("gene_tokens.json",),
        ids="symbol",
        specials=("<pad>", "<cls>"),
        pad="<pad>",
        species=("human", "mouse"),
    ),
    # 2,048 genes and the token that is read.
    encoding=Encoding(select=ByRank(), suffix=("<cls>",), max_tokens=Given("max_length", default=2_049)),
    architecture=LCMConfig(
        d_model=Shape("norm.weight"),
        gene=VectorMLP(
            n_tokens=Shape(TABLE),
            n_specials=Shape("special_tokens.weight"),
            d_vector=Shape(TABLE, 1),
            d_between=Shape("projection.0.weight"),
        ),
        backbone=BackboneConfig(
            n_blocks=Count(BLOCK + "self_attn.q_proj.weight"),
            attention=SoftmaxAttention(
                n_heads=Config("num_attention_heads"),
                causal=True,
                bias=False,
                rotary=RotaryPositions(base=Config("rope_theta", 10_000, also=("rope_parameters.rope_theta",))),
                heads_per_key=Quotient(
                    of=Shape(FIRST + "self_attn.q_proj.weight"), by=Shape(FIRST + "self_attn.k_proj.weight")
                ),
            ),
            feed_forward=GatedFeedForward(d_hidden=Shape(FIRST + "mlp.gate_proj.weight"), activation="silu"),
            norm="pre",
            layer_norm=NORM,
            final_norm=NORM,
        ),
    ),
    keys=KeyMap(
        StripPrefix("model."),
        Drop("embed_tokens.weight"),  # words are neither read
        Drop("lm_head.weight"),  # nor written
        Drop(BLOCK + "self_attn.rotary_emb.inv_freq"),
        Rename(TABLE, "embed.gene.weight"),
        Rename("special_tokens.weight", "embed.gene_norm.special.weight"),
        Rename("projection.0.weight", "embed.gene_norm.up.weight"),
        Rename("projection.0.bias", "embed.gene_norm.up.bias"),
        Rename("projection.2.weight", "embed.gene_norm.down.weight"),
        Rename("projection.2.bias", "embed.gene_norm.down.bias"),
        Rename(BLOCK + "input_layernorm.weight", OURS + "norm1.weight"),
        JoinHeads(
            query=BLOCK + "self_attn.q_proj.weight",
            key=BLOCK + "self_attn.k_proj.weight",
            value=BLOCK + "self_attn.v_proj.weight",
            target=OURS + "attn.qkv.weight",
        ),
        Rename(BLOCK + "self_attn.o_proj.weight", OURS + "attn.out.weight"),
        Rename(BLOCK + "post_attention_layernorm.weight", OURS + "norm2.weight"),
        Join((BLOCK + "mlp.gate_proj.weight", BLOCK + "mlp.up_proj.weight"), OURS + "ff.up.weight"),
        Rename(BLOCK + "mlp.down_proj.weight", OURS + "ff.down.weight"),
        Rename("norm.weight", "backbone.norm.weight"),
    ),
    recipes={"embed": Recipe(pooling=FromEnd())},
    weights=("model.safetensors", "pytorch_model.bin"),
    requires={
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "rope_parameters.rope_type": "default",
    },
    checkpoints={},
    needs="expression",
    sizes={
        "d_model": 5_120,
        "n_blocks": 40,
        "n_heads": 40,
        "heads_per_key": 1,
        "d_hidden": 13_824,
        "rms_norm_eps": 1e-6,
        "d_between": 5_120,
    },
)
