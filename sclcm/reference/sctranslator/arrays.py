"""Reference numbers of scTranslator: which probe computes which array.

Made by the authors' code at TencentAILabHealthcare/scTranslator@5f3c2de3 on a tiny random checkpoint, with a smaller
table of ids; torch 2.13.0 on a CPU, numpy 2.4.6, anndata 0.12.19.
"""

from __future__ import annotations

from sclcm.reference._probes import Said
from sclcm.reference._translation_probes import (
    Agreement,
    FeatureIds,
    Given,
    IdInput,
    KnownVars,
    MaskedByNothing,
    Predicted,
    ScaledTruth,
    Sentence,
    Stage,
    TableRows,
    VarInput,
)

BATCH = Said(pattern=r"batches of (\d+)", otherwise=4, of="test_mse")
PAIR = Said(pattern=r"batches of (\d+)", otherwise=2, of="ko_original")
ALL = Given(genes=("rna_mask", "rna_gene"), proteins=("protein_mask", "protein_gene"))
SOME = Given(genes=("padded_rna_mask", "padded_rna_gene"), proteins=("padded_protein_mask", "padded_protein_gene"))

ARRAYS = {
    "rna_kept_genes": KnownVars(),
    "rna_my_id": FeatureIds(of="genes"),
    "protein_my_id": FeatureIds(of="proteins"),
    "rna_value": Sentence(given=ALL, of="genes", part="values"),
    "rna_gene": Sentence(given=ALL, of="genes", part="ids"),
    "rna_mask": Sentence(given=ALL, of="genes", part="mask"),
    "protein_value": Sentence(given=ALL, of="proteins", part="values"),
    "protein_gene": Sentence(given=ALL, of="proteins", part="ids"),
    "protein_mask": Sentence(given=ALL, of="proteins", part="mask"),
    "input_embedding": Stage(given=ALL, part="input"),
    "encodings": Stage(given=ALL, part="encoder"),
    "translator_out": Stage(given=ALL, part="bridge"),
    "decoder_hidden": Stage(given=ALL, part="decoder"),
    "y_hat": Stage(given=ALL, part="values"),
    "padded_rna_value": Sentence(given=SOME, of="genes", part="values"),
    "padded_rna_gene": Sentence(given=SOME, of="genes", part="ids"),
    "padded_rna_mask": Sentence(given=SOME, of="genes", part="mask"),
    "padded_protein_value": Sentence(given=SOME, of="proteins", part="values"),
    "padded_protein_gene": Sentence(given=SOME, of="proteins", part="ids"),
    "padded_protein_mask": Sentence(given=SOME, of="proteins", part="mask"),
    "padded_input_embedding": Stage(given=SOME, part="input"),
    "padded_encodings": Stage(given=SOME, part="encoder"),
    "padded_translator_out": Stage(given=SOME, part="bridge"),
    "padded_decoder_hidden": Stage(given=SOME, part="decoder"),
    "padded_y_hat": Stage(given=SOME, part="values"),
    "test_mse": Agreement(by="mse", batch_size=BATCH),
    "test_ccc": Agreement(by="cosine", batch_size=BATCH),
    "test_y_pred": Predicted(batch_size=BATCH),
    "test_y_true": ScaledTruth(batch_size=BATCH),
    "zero_protein_y_pred": MaskedByNothing(batch_size=BATCH),
    "ko_protein_my_id": IdInput(),
    "ko_original": Predicted(batch_size=PAIR, ids="ko_protein_my_id"),
    "ko_gene": VarInput(),
    "ko_y_hat": Predicted(batch_size=PAIR, ids="ko_protein_my_id", without="ko_gene"),
    "gene_embedding_encoder": TableRows(of="genes"),
    "protein_embedding_decoder": TableRows(of="proteins"),
}
