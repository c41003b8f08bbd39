"""Reference numbers of CellFM: which probe computes which array.

Made by the authors' code on tiny random checkpoints: arrays `ms*` by biomed-AI/CellFM@76557975 under MindSpore 2.10.0,
arrays `pt*` by the port biomed-AI/CellFM-torch@b6c3673d under torch 2.13.0, both on a CPU in float32.
"""

from __future__ import annotations

from sclcm.reference._fixed_length_probes import (
    Filled,
    FilledEmbedding,
    FilledPass,
    FilledTokens,
    HiddenChannels,
    KnownGenes,
    PassLoss,
    PassValues,
    PassVectors,
    Recounted,
    TableRows,
    TargetDraw,
    TotalChannels,
)
from sclcm.reference._probes import RowDraw

BASE = "base_weight.ckpt"
ROWS = "hidden_cells"
TOTALS = ("ST_feat", "totals")
PORT = "torch-port"
FILLED = Filled(genes="nonz_gene", length="nonz_len")
FILLED_BASE = Filled(genes="b_nonz_gene", weights=BASE, length="nonz_len")

# Upstream scales values by the root of one over the number of genes less some: it cancels out, but is no number where
# there are few genes.
PLAIN = FilledPass(filled=FILLED)
MASKED = FilledPass(filled=FILLED, hiding="masked_input", totals=TOTALS, least_genes=3)
PLAIN_BASE = FilledPass(filled=FILLED_BASE)
MASKED_BASE = FilledPass(filled=FILLED_BASE, hiding="b_masked_input")
LEAKY_BASE = FilledPass(filled=FILLED_BASE, leaky=True)
PORTED = FilledPass(filled=FILLED, compat=PORT, leaky=True, least_genes=3)
MASKED_PORTED = FilledPass(
    filled=FILLED, hiding="masked_input", totals=TOTALS, compat=PORT, least_genes=3, mended="pt80_infer_cls"
)
MENDED = FilledPass(filled=FILLED, leaky=True, least_genes=3)

ARRAYS = {
    "counts_after_read": Recounted(),
    "genes_kept": KnownGenes(part="names"),
    "gene_ids_80M": KnownGenes(part="tokens"),
    "log1p": KnownGenes(part="values"),
    "nonz_data": FilledTokens(filled=FILLED, part="values"),
    "nonz_gene": FilledTokens(filled=FILLED, part="tokens"),
    "zero_idx": FilledTokens(filled=FILLED, part="real"),
    ROWS: RowDraw(),
    "ms80_cls": FilledEmbedding(filled=FILLED, recipe="embed"),
    "ms80_last_hidden": PassVectors(given=PLAIN, part="tokens", rows=ROWS),
    "ms80_value_embedding": PassVectors(given=PLAIN, part="values", rows=ROWS),
    "ms80_input_embedding": PassVectors(given=PLAIN, part="tokens", rows=ROWS, n_blocks=0),
    "ms80_retention0": PassVectors(given=PLAIN, part="tokens", rows=ROWS, n_blocks=0, attention=True),
    "ms80_hidden0": PassVectors(given=PLAIN, part="tokens", rows=ROWS, n_blocks=1),
    "ms80_gene_emb_table": TableRows(),
    "mask_gene": TargetDraw(filled=FILLED, share=0.2),
    "masked_input": HiddenChannels(filled=FILLED, targets="mask_gene", share=0.8),
    "ST_feat": TotalChannels(filled=FILLED, recipe="totals"),
    "ms80st_cls": PassVectors(given=MASKED, part="cell"),
    "ms80st_last_hidden": PassVectors(given=MASKED, part="genes", rows=ROWS),
    "ms80st_gw_pred": PassValues(given=MASKED, head="value"),
    "ms80st_cw_pred": PassValues(given=MASKED, head="cell_gene"),
    "ms80st_loss_gw": PassLoss(given=MASKED, head="value", targets="mask_gene"),
    "ms80st_loss_cw": PassLoss(given=MASKED, head="cell_gene", targets="mask_gene"),
    "b_genes_kept": KnownGenes(weights=BASE, part="names"),
    "b_nonz_data": FilledTokens(filled=FILLED_BASE, part="values"),
    "b_nonz_gene": FilledTokens(filled=FILLED_BASE, part="tokens"),
    "b_zero_idx": FilledTokens(filled=FILLED_BASE, part="real"),
    "b_mask_gene": TargetDraw(filled=FILLED_BASE, share=0.2),
    "b_masked_input": HiddenChannels(filled=FILLED_BASE, targets="b_mask_gene", share=0.8),
    "msb_cls": PassVectors(given=MASKED_BASE, part="cell"),
    "msb_last_hidden": PassVectors(given=MASKED_BASE, part="genes", rows=ROWS),
    "msb_gw_pred": PassValues(given=MASKED_BASE, head="value"),
    "msb_cw_pred": PassValues(given=MASKED_BASE, head="cell_gene"),
    "msb_loss_gw": PassLoss(given=MASKED_BASE, head="value", targets="b_mask_gene"),
    "msb_loss_cw": PassLoss(given=MASKED_BASE, head="cell_gene", targets="b_mask_gene"),
    "msb_cls_plain_input_first_half_unmasked": PassVectors(given=LEAKY_BASE, part="cell"),
    "msb_backbone_cls": FilledEmbedding(filled=FILLED_BASE, recipe="embed"),
    "msb_backbone_last_hidden": PassVectors(given=PLAIN_BASE, part="tokens", rows=ROWS),
    "pt80_infer_cls": PassVectors(given=PORTED, part="cell"),
    "pt80_infer_last_hidden": PassVectors(given=PORTED, part="tokens", rows=ROWS),
    "pt80_encode_cls": PassVectors(given=MASKED_PORTED, part="cell"),
    "pt80_gw_pred": PassValues(given=MASKED_PORTED, head="value"),
    "pt80_cw_pred": PassValues(given=MASKED_PORTED, head="cell_gene"),
    "pt80_loss_gw": PassLoss(given=MASKED_PORTED, head="value", targets="mask_gene"),
    "pt80_loss_cw": PassLoss(given=MASKED_PORTED, head="cell_gene", targets="mask_gene"),
    "pt80_fixed_infer_cls": PassVectors(given=MENDED, part="cell"),
}
