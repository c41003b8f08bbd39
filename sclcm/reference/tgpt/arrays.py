"""Reference numbers of tGPT: which probe computes which array.

Made by the recipe of the README at deeplearningplus/tGPT@9714a988 on a tiny random GPT-2, with a tokenizer of
upstream's structure and fewer words; torch 2.13.0 on a CPU, transformers 4.57.6.
"""

from __future__ import annotations

from sclcm.reference._line_probes import (
    LengthLimit,
    LineContinued,
    LineEmbedding,
    LineHidden,
    LineLogits,
    Lines,
    LineTokens,
    NextTokenLoss,
    TextInput,
    TextTokens,
    TokenTable,
)
from sclcm.reference._probes import Said

UNKNOWN = "<unk>"
GIVEN = Said(pattern=r"first (\d+) tokens", otherwise=6, of="greedy_generation")
LINES = Lines(limit="max_len", unknown=UNKNOWN, training=("train_input_ids", "train_labels", "clm_loss_per_cell"))

ARRAYS = {
    "max_len": LengthLimit(),
    "input_ids": LineTokens(lines=LINES),
    "attention_mask": LineTokens(lines=LINES, part="mask"),
    "token_type_ids": LineTokens(lines=LINES, part="zeros"),
    "input_ids_untruncated": LineTokens(lines=LINES, is_cut=False),
    "train_input_ids": LineTokens(lines=LINES, width="limit"),
    "train_labels": LineTokens(lines=LINES, part="labels", width="limit"),
    "emb_out": LineHidden(lines=LINES, layer=0),
    "hidden_second_to_last": LineHidden(lines=LINES, layer=-2),
    "hidden_last": LineHidden(lines=LINES, layer=-1),
    "cell_emb": LineEmbedding(lines=LINES, recipe="embed"),
    "cell_emb_no_token_type": LineEmbedding(lines=LINES, recipe="embed", has_segment=False),
    "clm_loss": NextTokenLoss(lines=LINES, head="token"),
    "clm_loss_per_cell": NextTokenLoss(lines=LINES, head="token", per_cell=True),
    "logits_first": LineLogits(lines=LINES, head="token"),
    "gene_emb": TokenTable(),
    "greedy_generation": LineContinued(lines=LINES, head="token", n_given=GIVEN, repeats=True),
    "greedy_generation_norepeat": LineContinued(lines=LINES, head="token", n_given=GIVEN, repeats=False),
    "quirk_strings": TextInput(),
    "quirk_ids_raw": TextTokens(texts="quirk_strings", unknown=UNKNOWN, is_respelt=False),
    "quirk_ids_sub": TextTokens(texts="quirk_strings", unknown=UNKNOWN, is_respelt=True),
}
