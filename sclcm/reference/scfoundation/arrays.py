"""Reference numbers of scFoundation: which probe computes which array.

Made by the authors' scripts on a tiny random model of three submodels: biomap-research/scFoundation@d09626a5, torch
2.13.0 on a CPU. Upstream's masking is not published: `pretrain_*` are its network with masks and a loss by the paper.
"""

from __future__ import annotations

from sclcm.reference._depth_probes import (
    AbsentGenes,
    AlignedCounts,
    Asked,
    CellVectorsAt,
    GridInput,
    GridValues,
    MaskedPlaces,
    NamedEmbedding,
    NamedGenes,
    PlaceMaskInput,
    PlaceValues,
    SentencePart,
    UnscaledGenes,
    ValuesBesideTotal,
)
from sclcm.reference._probes import Deferred

CELL = Asked(submodel="cell")
TELLING = ("gears_input", "finetune_values", "batch_values_*")
TOGETHER = Asked(submodel="gene", depth="f1", named="batch_values_*", cells=TELLING)
GEARS = Asked(submodel="gene", depth="f1", cells=TELLING)
GENES = {"F": "genes", "T": "genes_log1p", "A": "genes_log1p_and_total"}
VERSIONS = {"ce": "cell", "rde": "rde"}
POOLINGS = {"all": "embed", "max": "max"}
TUNED = Deferred("fine-tuning comes with the tasks")

ARRAYS = {
    "gene_aligned_counts": AlignedCounts(),
    "absent_gene_mask": AbsentGenes(),
    # Upstream was given one cell with a total of 1, so that its token S is left out.
    "cell_*": NamedEmbedding(
        forms={"F": "embed", "T": "log1p", "A": "log1p_and_total"}, poolings=POOLINGS, submodels=VERSIONS, totals="A"
    ),
    "bulk_*": NamedEmbedding(
        forms={"F": "bulk", "T": "bulk_normalized"}, poolings=POOLINGS, submodels=VERSIONS, has_depth=False
    ),
    "gene_*": NamedGenes(forms=GENES, submodel="gene"),
    "gene_batch_*": NamedGenes(forms=GENES, submodel="gene", together=True),
    "gene_expression_*": NamedGenes(forms=GENES, submodel="gene", head="expression"),
    "values_*": PlaceValues(asked=CELL),
    "gathered_values_*": SentencePart(part="values", asked=CELL, fill=-1),
    "gathered_gene_ids_*": SentencePart(part="ids", asked=CELL, fill=-1),
    "encoder_input_*": CellVectorsAt(entering=True, asked=CELL),
    "encoder_output_*": CellVectorsAt(entering=False, asked=CELL),
    "bin_grid_values": GridInput(),
    "bin_grid_weights": GridValues(part="weights", grid="bin_grid_values", submodel="gene"),
    "bin_grid_embedding": GridValues(part="vectors", grid="bin_grid_values", submodel="gene"),
    "batch_values_*": PlaceValues(asked=Asked(submodel="gene", cells=TELLING)),
    "batch_encoder_values": SentencePart(part="values", asked=TOGETHER),
    "batch_encoder_ids": SentencePart(part="ids", asked=TOGETHER),
    "batch_encoder_padding": SentencePart(part="padding", asked=TOGETHER),
    "batch_prediction": MaskedPlaces(part="prediction", asked=TOGETHER, head="expression"),
    "pretrain_mask": PlaceMaskInput(asked=TOGETHER),
    "pretrain_decoder_values": MaskedPlaces(part="values", asked=TOGETHER, head="expression", mask="pretrain_mask"),
    "pretrain_prediction": MaskedPlaces(part="prediction", asked=TOGETHER, head="expression", mask="pretrain_mask"),
    "pretrain_loss_masked_mse": MaskedPlaces(part="loss", asked=TOGETHER, head="expression", mask="pretrain_mask"),
    "finetune_values": ValuesBesideTotal(asked=TOGETHER, total=False),
    "finetune_*": TUNED,
    "gears_input": ValuesBesideTotal(asked=TOGETHER, total=True),
    # This loader of upstream's forgets the weight of the direct way to the bins, which is then one.
    "gears_encoder_output": UnscaledGenes(asked=GEARS),
}
