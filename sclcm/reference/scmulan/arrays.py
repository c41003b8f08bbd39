"""Reference numbers of scMulan: which probe computes which array.

Made by the authors' code at SuperBianC/scMulan@d64da5ed on a tiny random checkpoint with real words and genes; torch
2.13.0 on a CPU, transformers 4.30.2, scanpy 1.9.5.
"""

from __future__ import annotations

from sclcm.reference._generation_probes import (
    BinsOf,
    Continued,
    CountInput,
    DecodedEmbedding,
    Features,
    GeneratedType,
    GenesAfter,
    LabelNames,
    NameInput,
    NormalizedMatrix,
    NumberInput,
    Prompts,
    PromptTokens,
    PromptVectors,
    TokenIds,
    UnifiedCounts,
    UnifiedNames,
    WiderList,
)
from sclcm.reference._probes import Deferred, Said

PROMPTS = Prompts(as_is_up_to=10)
NAMES, COUNTS = "gsu_query_symbols", "gsu_query_counts"
# Some names of cell types end in their short form, which is in brackets too.
WORDS = Said(pattern=r"prompt (.+?) \((?![A-Z]+\))", otherwise=("Blood", "NK cell", "Healthy"), of="cond_prompt_ids")
LENGTH = Said(pattern=r"length limit (\d+)", otherwise=40, of="cond_generated_ids")

ARRAYS = {
    NAMES: NameInput(),
    COUNTS: CountInput(names=NAMES),
    "gsu_status": UnifiedNames(names=NAMES, part="status"),
    "gsu_modified": UnifiedNames(names=NAMES, part="gene"),
    "gsu_output_symbols": UnifiedCounts(names=NAMES, counts=COUNTS, part="genes"),
    "gsu_output_counts": UnifiedCounts(names=NAMES, counts=COUNTS, part="counts"),
    "gsu_order": WiderList(),
    "lognorm": NormalizedMatrix(prompts=PROMPTS),
    "gene_set": Features(),
    "cell_type": GeneratedType(prompts=PROMPTS),
    "X_scMulan": DecodedEmbedding(prompts=PROMPTS, recipe="embed"),
    "prompt_ids": PromptTokens(prompts=PROMPTS, part="tokens"),
    "prompt_bins": PromptTokens(prompts=PROMPTS, part="values"),
    "generated_ids": Continued(prompts=PROMPTS, recipe="embed", part="tokens"),
    "generated_bins": Continued(prompts=PROMPTS, recipe="embed", part="values"),
    "n_generated": Continued(prompts=PROMPTS, recipe="embed", part="steps"),
    "hidden_cell*": PromptVectors(prompts=PROMPTS),
    "logits_cls_cell*": PromptVectors(prompts=PROMPTS, head="token", only_last=True),
    "logits_exp_cell*": PromptVectors(prompts=PROMPTS, head="value", only_last=True),
    "all_logits_cell*": PromptVectors(prompts=PROMPTS, head="token"),
    "kv_generated_ids": Continued(prompts=PROMPTS, recipe="embed", part="tokens", ban="all"),
    "kv_generated_bins": Continued(prompts=PROMPTS, recipe="embed", part="values", ban="all"),
    "cond_prompt_ids": TokenIds(words=WORDS),
    "cond_generated_ids": GenesAfter(words=WORDS, n_tokens=LENGTH, recipe="embed", part="tokens"),
    "cond_generated_bins": GenesAfter(words=WORDS, n_tokens=LENGTH, recipe="embed", part="values"),
    "cond_sampled_*": Deferred("it hangs on the stream of one torch version's multinomial draws"),
    "cell_type_entities": LabelNames(),
    "digitize_values": NumberInput(),
    "digitize_bins": BinsOf(values="digitize_values"),
}
