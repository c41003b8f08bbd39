"""Reference numbers of Nicheformer: which probe computes which array.

Made by the authors' code at theislab/nicheformer@485cadbc on a tiny random checkpoint of pytorch-lightning 2.6.6; torch
2.13.0 on a CPU, numba 0.68.1.
"""

from __future__ import annotations

from functools import partial

from sclcm.reference._context_probes import (
    AlignedCounts,
    CompanionArray,
    Corrupted,
    CorruptedIds,
    CorruptedLoss,
    Features,
    FineTuned,
    GeneTokens,
    GeneVectors,
    HeadWeight,
    NormalizedCounts,
    PaddedTokens,
    PlaceVectors,
    PredictedMask,
    PredictedTargets,
    Told,
    ToldEmbedding,
)
from sclcm.reference._probes import Said

MEAN = {"technology_mean": Said(pattern=r"\((\w+) mean", otherwise="dissociated", of="tokens_dataset")}
TOLD = Told(conditions=MEAN)
WITH_CONTEXT = Told(recipe="with_context", conditions=MEAN)
AS_CORPUS = Told(recipe="as_corpus", by_name="technology_mean")
RAW_MEANS = Told(recipe="raw_means", by_name="technology_mean")
DRAW = Corrupted(
    tokens=PaddedTokens(told=TOLD), ids="mlm_input_ids", mask="mlm_mask", first_random=10, kept="dissociated"
)
BLOCKS = Said(pattern=r"extract_layers=\[([\d, ]+)\]", otherwise=("0", "1"), of="ft_logits")
TOGETHER = Said(pattern=r"extract_layers=\[[\d, ]+\], *(\w+)", otherwise="mean", of="ft_logits")
fine_tuned = partial(FineTuned, weights="ft_w_", blocks=BLOCKS, together=TOGETHER, told=TOLD)

ARRAYS = {
    "vocab_genes": Features(),
    "counts_aligned": AlignedCounts(told=Told(conditions={"technology_mean": None})),
    "pretrain_mean_*": CompanionArray(prefix="mean_"),
    "tokens_pretrain_*": GeneTokens(told=AS_CORPUS),
    "tokens_dataset_rawmean_*": GeneTokens(told=RAW_MEANS),
    "tokens_dataset": GeneTokens(told=TOLD),
    "sort_key": NormalizedCounts(told=TOLD),
    "input_ids": PaddedTokens(told=TOLD),
    "key_padding_mask": PaddedTokens(told=TOLD, part="padding"),
    "input_embedding": PlaceVectors(layer=0, told=TOLD),
    "hidden_penultimate": PlaceVectors(layer=-2, told=TOLD),
    "hidden_last": PlaceVectors(layer=-1, told=TOLD),
    "cell_embedding_layer*_context0": ToldEmbedding(told=TOLD, layer_after="layer"),
    "cell_embedding_layer*_context1": ToldEmbedding(told=WITH_CONTEXT, layer_after="layer"),
    "cell_embedding_rawmean_*": ToldEmbedding(told=RAW_MEANS),
    "mlm_logits_unmasked": PlaceVectors(layer=-1, told=TOLD, head="token"),
    "gene_embedding": GeneVectors(),
    "mlm_true_ids": PaddedTokens(told=TOLD),
    "mlm_input_ids": CorruptedIds(given=DRAW),
    "mlm_mask": PredictedMask(given=DRAW),
    "mlm_targets": PredictedTargets(given=DRAW),
    "mlm_loss": CorruptedLoss(given=DRAW, head="token"),
    "ft_w_*": HeadWeight(),
    "ft_representation": fine_tuned(recipe="fine_tuned"),
    "ft_logits": fine_tuned(recipe="predicted"),
}
