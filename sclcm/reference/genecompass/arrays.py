"""Reference numbers of GeneCompass: which probe computes which array.

Made by the authors' code at xCompass-AI/GeneCompass@8323757b on a tiny random checkpoint with a real vocabulary of both
species; transformers 4.30.0, torch 2.13.0 on a CPU, numpy 1.26.4. Medians are invented, as the authors' are not
published; their filters of cells and genes were not applied.
"""

from __future__ import annotations

from sclcm.reference._edit_probes import Deleted, Deletion
from sclcm.reference._filled_probes import (
    Filled,
    FilledHead,
    FilledHidden,
    FirstVector,
    LabelInput,
    Masked,
    Masking,
    MaskingLoss,
    PartnerTokens,
    PlaceMean,
    PriorRows,
    TunedHead,
    TunedLogits,
    TunedLoss,
    TunedTensor,
)
from sclcm.reference._probes import Embedding, On, Probe, RowDraw

HEAD = TunedHead(
    name="cell_class",
    tensors=(
        ("cls_pooler_weight", "bert.pooler.dense.weight"),
        ("cls_pooler_bias", "bert.pooler.dense.bias"),
        ("cls_classifier_weight", "classifier.weight"),
        ("cls_classifier_bias", "classifier.bias"),
    ),
)
DELETED = ("delete_index_cell", "delete_cos_cell")
DELETION = Deletion(tokens="delete_token", cells=DELETED, species=0)  # upstream says so of any cell
LOGITS = TunedLogits(head=HEAD)


def _of_species(name: str) -> dict[str, Probe]:
    """Return the probes of the arrays that there are for each species."""
    rows = f"{name}_hidden_cells"
    masking = Masking(tokens=f"{name}_mlm_input_ids", values=f"{name}_mlm_values", labels=f"{name}_mlm_labels")
    probes: dict[str, Probe] = {
        "input_ids": Filled(part="tokens"),
        "values": Filled(part="values"),
        "length": Filled(part="length"),
        "attention_mask": Filled(part="real"),
        "species": Filled(part="species"),
        "hidden_cells": RowDraw(),
        "input_embedding": FilledHidden(layer=0, rows=rows),
        "second_to_last_hidden": FilledHidden(layer=-2, rows=rows),
        "last_hidden": FilledHidden(layer=-1, rows=rows),
        "last_hidden_unmasked": FilledHidden(layer=-1, rows=rows, mask_padding=False),
        "cls_masked": Embedding(recipe="cls"),
        "cls_unmasked": Embedding(recipe="cls_unmasked"),
        "cls_species_none": FirstVector(species=0),
        "mean_gene_masked": Embedding(recipe="mean"),
        "mean_gene_unmasked": Embedding(recipe="mean_unmasked"),
        "grn_positional_mean": PlaceMean(),
        "id_logits": FilledHead(head="token"),
        "value_pred": FilledHead(head="value"),
        "mlm_input_ids": Masked(masking=masking, part="tokens"),
        "mlm_values": Masked(masking=masking, part="values"),
        "mlm_labels": Masked(masking=masking, part="labels"),
        "mlm_labels_values": Filled(part="values"),
        "mlm_loss": MaskingLoss(masking=masking, token=0.2, value=0.8),  # the tokens' alone if no values are read
        "mlm_id_loss": MaskingLoss(masking=masking, token=1, value=0),
        "mlm_value_loss": MaskingLoss(masking=masking, token=0, value=1),
    }
    return {f"{name}_{array}": probe for array, probe in probes.items()}


def _prior(name: str, *files: str) -> Probe:
    """Return the probe of one kind of prior vectors, with the files of human and mouse."""
    names = "*/gene_list/Gene_id_name_dict_human_mouse.pickle"
    return PriorRows(prior=name, files=tuple(f"*/{file}.pickle" for file in files), names=names)


ARRAYS = {
    "knowledge_promoter_head": _prior("promoter", "promoter_emb/human_emb_768", "promoter_emb/mouse_emb_768"),
    "knowledge_co_exp_head": _prior(
        "co_expression",
        "gene_co_express_emb/Human_dim_768_gene_28291_random",
        "gene_co_express_emb/Mouse_dim_768_gene_27444_random",
    ),
    "knowledge_gene_family_head": _prior(
        "family", "gene_family/Human_dim_768_gene_28291_random", "gene_family/Mouse_dim_768_gene_27934_random"
    ),
    "knowledge_peca_grn_head": _prior("regulation", "PECA2vec/human_PECA_vec", "PECA2vec/mouse_PECA_vec"),
    "homologous_keys": PartnerTokens(keys="homologous_keys", part="tokens"),
    "homologous_values": PartnerTokens(keys="homologous_keys", part="partners"),
    **_of_species("human"),
    **{name: On(input="input_mouse", probe=probe) for name, probe in _of_species("mouse").items()},
    "cls_batch_values": Filled(part="whole_values"),
    "cls_batch_attention_mask": Filled(part="real"),
    "cls_pooler_weight": TunedTensor(head=HEAD, parameter="dense.weight"),
    "cls_pooler_bias": TunedTensor(head=HEAD, parameter="dense.bias"),
    "cls_classifier_weight": TunedTensor(head=HEAD, parameter="out.weight"),
    "cls_classifier_bias": TunedTensor(head=HEAD, parameter="out.bias"),
    "cls_logits": LOGITS,
    "cls_labels": LabelInput(head=HEAD),
    "cls_loss": TunedLoss(logits=LOGITS, labels="cls_labels"),
    "delete_token": Deleted(deletion=DELETION, part="tokens"),
    "delete_index_cell*": Deleted(deletion=DELETION, part="place"),
    "delete_cos_cell*": Deleted(deletion=DELETION, part="cosines"),
}
