"""Reference numbers of Geneformer: which probe computes which array.

Made by the authors' code at explorerwjy/Geneformer@dff467cb, a mirror of the current hub repository, on tiny random
checkpoints of both generations; torch 2.13.0 on a CPU, transformers 4.57.6.
"""

from __future__ import annotations

from sclcm.reference._probes import (
    AttentionMean,
    CellsWithGenes,
    CountsPer,
    Deferred,
    Embedding,
    GeneLabels,
    GeneMeans,
    GroupMean,
    HeadOutput,
    Hidden,
    Lengths,
    MaskDraw,
    MaskedLogits,
    MaskedLoss,
    RealTokens,
    RowDraw,
    Tokens,
)

CELLS_READ = CellsWithGenes(
    rows=("length", "input_ids", "attention_mask", "cell_emb_mean_second_to_last"), passing="filter_pass"
)
ARRAYS = {
    "input_ids": Tokens(),
    "length": Lengths(),
    "attention_mask": RealTokens(),
    "norm_counts": CountsPer(target_sum=1e4),
    "ranked_ids_uncropped": Tokens(cropped=False, fill=-1),
    "hidden_cells": RowDraw(),
    "emb_out": Hidden(layer=0, rows="hidden_cells"),
    "hidden_second_to_last": Hidden(layer=-2, rows="hidden_cells"),
    "hidden_last": Hidden(layer=-1, rows="hidden_cells"),
    "mlm_mask": MaskDraw(),
    "mlm_loss": MaskedLoss(mask="mlm_mask", head="token"),
    "mlm_logits_masked": MaskedLogits(mask="mlm_mask", head="token"),
    "cell_emb_mean_second_to_last": Embedding(recipe="mean"),
    "cell_emb_mean_last": Embedding(recipe="mean_last"),
    "cell_emb_cls_second_to_last": Embedding(recipe="cls"),
    "cell_emb_cls_last": Embedding(recipe="cls_last"),
    "gene_emb_second_to_last_ids": GeneLabels(),
    "gene_emb_second_to_last": GeneMeans(layer=-2),
    "gene_emb_last_ids": GeneLabels(),
    "gene_emb_last": GeneMeans(layer=-1),
    "cellclf_logits": HeadOutput(head="cell_class", folder="cell_classifier"),
    "geneclf_logits": HeadOutput(head="gene_class", folder="gene_classifier", rows="hidden_cells"),
    "attn_last_layer_headmean": AttentionMean(block=-1, cell=-2),
    "state_emb_*": GroupMean(column="batch", recipe="embed"),
    "isp_*": Deferred("in-silico perturbation is not implemented yet"),
}
