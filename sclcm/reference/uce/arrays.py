"""Reference numbers of UCE: which probe computes which array.

Made by snap-stanford/UCE@8ead6e07af0c80f75653598138bb704e865b45c8 on a tiny random model with torch 2.13.0, numpy 2.4.6
and pandas 2.3.3 on a CPU: `evaluate.AnndataProcessor`, after `np.random.seed` with the seed in `run.json`.

Upstream gives attention its mask as numbers to be added, so that padding is seen, one higher than it would be; most
arrays are of batches of some size and have that. `X_uce_batch1` knows no padding, and is what users get.
"""

from __future__ import annotations

from dataclasses import replace

from sclcm._sizes import Count, Shape
from sclcm.reference._genomic_probes import (
    GenePairs,
    GenomicEmbedding,
    GenomicInput,
    GenomicSentences,
    GenomicVectors,
)
from sclcm.reference._probes import RowDraw

# What the authors' script is told, and the weights say too.
STATED = {
    "emsize": Shape("embed.gene_norm.project.linear.weight"),
    "token_dim": Shape("embed.gene.weight", 1),
    "d_hid": Shape("backbone.blocks.0.ff.up.weight"),
    "nlayers": Count("backbone.blocks.{}.ff.up.weight"),
    "output_dim": Shape("heads.cell.out.weight"),
}
SEEN = 1.0
CELLS = GenomicEmbedding(recipe="embed", padding_bias=SEEN)
PAIRS = GenePairs(part="tokens", head="expressed", rows="predict_rows", cells=CELLS)
VECTORS = GenomicVectors(n_blocks=0, cells="hidden_cells", padding_bias=SEEN)

ARRAYS = {
    "X_uce": CELLS,
    "X_uce_batch1": GenomicEmbedding(recipe="embed", padding_bias=None),
    "X_uce_filter": GenomicEmbedding(recipe="embed", padding_bias=SEEN, filtered=True),
    "cell_embedding": CELLS,
    "genes_kept": GenomicInput(part="genes"),
    "filter_genes_kept": GenomicInput(part="genes", filtered=True),
    "filter_cells_kept": GenomicInput(part="cells", filtered=True),
    "pe_row_idx": GenomicInput(part="tokens"),
    "chrom_code": GenomicInput(part="chromosomes"),
    "start": GenomicInput(part="starts"),
    "cell_sentence": GenomicSentences(part="tokens"),
    "attention_mask": GenomicSentences(part="mask"),
    "seq_len": GenomicSentences(part="lengths"),
    "sampling_weights": GenomicSentences(part="chances"),
    "batch_seq_len": GenomicSentences(part="widths"),
    "hidden_cells": RowDraw(),
    "input_embedding": VECTORS,
    "hidden_layer*": replace(VECTORS, n_blocks=None),
    "last_hidden": replace(VECTORS, n_blocks=-1),
    "gene_output": replace(VECTORS, n_blocks=-1, head="cell"),
    "predict_rows": PAIRS,
    "gene_embedding_layer_normed": replace(PAIRS, part="vectors"),
    "gene_embedding_layer_raw": replace(PAIRS, part="vectors", unit=False),
    "predict_logits_normed": replace(PAIRS, part="logits"),
    "predict_logits_raw": replace(PAIRS, part="logits", unit=False),
    "predict_target": replace(PAIRS, part="targets"),
    "bce_normed": replace(PAIRS, part="loss"),
}
