"""Reference numbers of scBERT: which probe computes which array.

Made by the authors' code at TencentAILabHealthcare/scBERT@262fd4b9 on a tiny random checkpoint; torch 2.13.0 on a CPU,
numpy 2.4, scanpy 1.11.5. Upstream takes one stabiliser over a whole batch, so that its numbers depend on the cells
beside; what it computes of one cell at a time is what this package computes in any batch.
"""

from __future__ import annotations

from sclcm.reference._dense_probes import (
    AttentionMap,
    AttentionShare,
    BoundInput,
    CellFilter,
    Cells,
    ClassNames,
    ClassScores,
    DenseEmbedding,
    DenseHead,
    DenseVectors,
    FirstRows,
    GenePlaces,
    HiddenDraw,
    HiddenGenes,
    HiddenLoss,
    NormalizedGenes,
    NumberedRow,
    ResidualStream,
    TargetDraw,
    ValueTokens,
)

KEPT, TUNED = "kept_cells", "*_best.pth"  # named by upstream's user
ONE = Cells(kept=KEPT, rows=NumberedRow())
ALL = Cells(kept=KEPT, every="tokens")
SOME = Cells(kept=KEPT, every="tokens", rows=FirstRows(of="encodings_single", then_last=True))
TOGETHER = Cells(kept=KEPT, every="tokens", together=True)
MASKED = Cells(kept=KEPT, rows=FirstRows(of="mlm_input"), together=True)
HIDDEN = HiddenGenes(tokens="mlm_input", mask=-1)

ARRAYS = {
    "kept_cells": CellFilter(),
    "preprocessed": NormalizedGenes(kept=KEPT),
    "tokens": ValueTokens(cells=ALL),
    "input_embedding": DenseVectors(cells=ALL, part="input"),
    "encodings_single": DenseVectors(cells=SOME),
    "encodings_batch": DenseVectors(cells=TOGETHER),
    "logits_single": DenseHead(cells=ALL, head="bin"),
    "cell_embedding_mean_single": DenseEmbedding(cells=ALL, recipe="embed"),
    "cell_embedding_last_single": DenseEmbedding(cells=ALL, recipe="cls"),
    "cell_embedding_mean_batch": DenseEmbedding(cells=TOGETHER, recipe="embed"),
    "gene_position_embedding": GenePlaces(),
    "residual_stream_row*": ResidualStream(cells=ONE),
    "mlm_labels": TargetDraw(cells=MASKED, share=0.15, mask=-1),
    "mlm_input": HiddenDraw(cells=MASKED, targets="mlm_labels", mask=-1),
    "mlm_logits": DenseHead(cells=MASKED, head="bin", hidden=HIDDEN),
    "mlm_loss": HiddenLoss(given=DenseHead(cells=MASKED, head="bin", hidden=HIDDEN), targets="mlm_labels"),
    "mlm_prediction": DenseHead(cells=MASKED, head="bin", hidden=HIDDEN, among=(1, -2)),
    "attention_map_fp32_row*": AttentionMap(cells=ONE, halfway=True),
    "attention_gene_*": AttentionShare(cells=ALL, halfway=True),
    "finetuned_logits": ClassScores(kept=KEPT, file=TUNED),
    "finetuned_prob": ClassScores(kept=KEPT, file=TUNED, probability=True),
    "predicted_plain": ClassNames(kept=KEPT, file=TUNED),
    "predicted_novel": ClassNames(kept=KEPT, file=TUNED, bound="novel_threshold", unnamed="Unassigned"),
    "novel_threshold": BoundInput(),
}
