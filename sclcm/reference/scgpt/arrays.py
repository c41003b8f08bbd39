"""Reference numbers of scGPT: which probe computes which array.

Made by the authors' code on tiny random checkpoints, in-process and with fixed seeds: bowang-lab/scGPT@cebd6fae for
inference and fine-tuned models, @4068d67c (branch dev-temp) for the generative pass; torch 2.13.0 on a CPU.
"""

from __future__ import annotations

from sclcm._sizes import Config
from sclcm.reference._binning_probes import (
    AttentionGraph,
    Binned,
    GeneEdges,
    GeneInput,
    GeneSetTokens,
    GeneSetValues,
    GeneTable,
    Prepared,
    RowInput,
    UniformInput,
)
from sclcm.reference._collated_probes import (
    BinInput,
    CollatedEmbedding,
    CollatedTokens,
    CollatedValues,
    ConditionInput,
    Drawn,
    FromCell,
    Generation,
    GenerationLosses,
    HeadValues,
    HiddenInput,
    HiddenValues,
    Hiding,
    Losses,
    PaddedPool,
    Pass,
    SampledTokens,
    SampledValues,
    TensorInput,
    TokenInput,
    TokenVectors,
)
from sclcm.reference._probes import Deferred, Said

FULL = Drawn(tokens="embed_full_genes", values="embed_full_values")
SHORT = Drawn(tokens="embed_short_genes", values="embed_short_values")
VISIBLE = Drawn(tokens="gen_pcpt_gene", values="gen_pcpt_expr")
ATTENDED = Drawn(tokens="attn_genes", values="attn_values")
MASK_VALUE = Config("mask_value", default=-1)
HIDING = Hiding(mask="mask", value=MASK_VALUE)
MASKED = Pass(drawn=FULL, hiding=HIDING)
ANNOTATION = Pass(drawn=FULL, hiding=HIDING, folder="../checkpoint_annotation")
INTEGRATION = Pass(drawn=FULL, hiding=HIDING, folder="../checkpoint_integration", condition="int_batch_labels")
SIMILAR = Said(pattern=r"thres ([\d.]*\d)", otherwise=0.3, of="losses")
COSINE = Said(pattern=r"cosine >= ([\d.]+\d)", otherwise=0.3, of="grn_edges")
MIN_COUNTS = Said(pattern=r"filter_gene_by_counts=(\d+)", otherwise=3, of="pre_genes")
MASKED_SHARE = Said(pattern=r"mask_ratio=([\d.]*\d)", otherwise=0.4, of="random_mask_value")
BATCH_NORM = ("bn_weight", "bn_bias", "bn_running_mean", "bn_running_var", "bn_num_batches_tracked")

ARRAYS = {
    "gen_pcpt_gene": TokenInput(first="<cls>"),
    "gen_pcpt_expr": BinInput(tokens="gen_pcpt_gene"),
    "gen_gen_gene": TokenInput(),
    "gen_target": BinInput(tokens="gen_gen_gene"),
    "gen_pcpt_preds": Generation(visible=VISIBLE, targets="gen_gen_gene", output="visible"),
    "gen_gen_preds": Generation(visible=VISIBLE, targets="gen_gen_gene", output="target"),
    "gen_cell_emb": Generation(visible=VISIBLE, targets="gen_gen_gene", output="cell"),
    "gen_mvc_gen": Generation(visible=VISIBLE, targets="gen_gen_gene", output="cell_gene"),
    "gen_round2_gen_preds": Generation(visible=VISIBLE, targets="gen_gen_gene", output="second"),
    "gen_losses": GenerationLosses(visible=VISIBLE, targets="gen_gen_gene", wanted="gen_target"),
    "bin_*_in": RowInput(),
    "bin_*_rand": UniformInput(),
    "bin_*_edges": Binned(part="edges"),
    "bin_*_left": Binned(part="left"),
    "bin_*_right": Binned(part="right"),
    "bin_*": Binned(part="bins"),
    "embed_full_genes": CollatedTokens(drawn=FULL),
    "embed_full_values": CollatedValues(drawn=FULL),
    "embed_full": CollatedEmbedding(given=Pass(drawn=FULL)),
    "tok_emb": TokenVectors(drawn=FULL, part="gene"),
    "val_emb": TokenVectors(drawn=FULL, part="value"),
    "hidden_last": TokenVectors(drawn=FULL, part="backbone"),
    "embed_short_genes": CollatedTokens(drawn=SHORT),
    "embed_short_values": CollatedValues(drawn=SHORT),
    "embed_short": CollatedEmbedding(given=Pass(drawn=SHORT)),
    # In batches of three upstream draws the same numbers for the same cells; padding does not change a cell.
    "embed_bs3": CollatedEmbedding(given=Pass(drawn=FULL)),
    "mask": HiddenInput(drawn=FULL),
    "mlm_output": HeadValues(given=MASKED, head="value"),
    "mvc_output": HeadValues(given=MASKED, head="cell_gene"),
    "masked_cell_emb": CollatedEmbedding(given=MASKED, l2_normalize=False),
    "cls_logits": HeadValues(given=ANNOTATION, head="cell_class"),
    "losses": Losses(
        given=ANNOTATION,
        terms=(
            ("mse", "value"),
            ("mse", "cell_gene"),
            ("relative", "value"),
            ("similarity", SIMILAR),
            ("contrast", 0.5),
            ("class", "cell_class"),
        ),
    ),
    "cell_emb_avg_pool": PaddedPool(drawn=FULL, weighted=False),
    "cell_emb_w_pool": PaddedPool(drawn=FULL, weighted=True),
    "generate_output": FromCell(drawn=FULL, head="value"),
    "int_batch_labels": ConditionInput(folder="../checkpoint_integration"),
    "int_mlm_output": HeadValues(given=INTEGRATION, head="value"),
    "int_mlm_zero_probs": HeadValues(given=INTEGRATION, head="expressed", probability=True),
    "int_mvc_output": HeadValues(given=INTEGRATION, head="cell_gene"),
    "int_mvc_zero_probs": HeadValues(given=INTEGRATION, head="cell_gene_expressed", probability=True),
    "int_cell_emb": CollatedEmbedding(given=INTEGRATION, l2_normalize=False),
    "int_dab_output": HeadValues(given=INTEGRATION, head="batch_class"),
    "int_losses": Losses(
        given=INTEGRATION,
        terms=(
            ("mse", "value"),
            ("expressed", "expressed"),
            ("mse", "cell_gene"),
            ("expressed", "cell_gene_expressed"),
            ("condition", "batch_class"),
        ),
    ),
    "bn_cell_emb": CollatedEmbedding(given=Pass(drawn=FULL), l2_normalize=False, tensors=BATCH_NORM),
    "bn_*": TensorInput(),
    "gene_embeddings": GeneTable(),
    "grn_genes": GeneInput(),
    "grn_edges": GeneEdges(genes="grn_genes", threshold=COSINE),
    "attn_genes": GeneSetTokens(),
    "attn_values": GeneSetValues(tokens="attn_genes"),
    "attn_scores_raw": AttentionGraph(drawn=ATTENDED, part="scores"),
    "attn_row_rank_headmean": AttentionGraph(drawn=ATTENDED, part="rows"),
    "attn_rank_sum": AttentionGraph(drawn=ATTENDED, part="sum"),
    "pre_genes": Prepared(min_counts=MIN_COUNTS, part="genes"),
    "pre_log1p_sum": Prepared(min_counts=MIN_COUNTS, part="sums"),
    "pre_binned": Prepared(min_counts=MIN_COUNTS, part="bins"),
    "pre_bin_edges": Prepared(min_counts=MIN_COUNTS, part="edges"),
    "tok_sampled_genes": SampledTokens(),
    "tok_sampled_values": SampledValues(tokens="tok_sampled_genes"),
    "random_mask_value": HiddenValues(values="tok_sampled_values", share=MASKED_SHARE, hidden=MASK_VALUE),
    "pert_*": Deferred("the fine-tuned perturbation model is not implemented yet"),
}
