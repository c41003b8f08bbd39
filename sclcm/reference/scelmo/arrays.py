"""Reference numbers of scELMo: which probe computes which array.

The arithmetic of the notebooks at HelloWorldLTY/scELMo@e1d51c22 and yiqunchen/GenePT@45a36bcd, recomputed with NumPy in
double precision on ten cells and made-up vectors; there is no upstream package to run.
"""

from __future__ import annotations

from sclcm.reference._expression_probes import CellTexts, LogMatrix, LookedUp, MissingGenes, SummedVectors

ONE, BOTH = ("genept",), ("genept", "scelmo")

ARRAYS = {
    "aa_log": SummedVectors(over="genes", tables=ONE, unit="log"),
    "aa_raw": SummedVectors(over="genes", tables=ONE, unit="raw"),
    "wa_log": SummedVectors(over="total", tables=ONE, unit="log"),
    "wa_raw": SummedVectors(over="total", tables=ONE, unit="raw"),
    "wa_sum_log": SummedVectors(over="total", tables=BOTH, unit="log"),
    "wa_sum_raw": SummedVectors(over="total", tables=BOTH, unit="raw"),
    "wa_concat_log": SummedVectors(over="total", tables=BOTH, combine="concat", unit="log"),
    "wa_concat_raw": SummedVectors(over="total", tables=BOTH, combine="concat", unit="raw"),
    "genept_w_l2": SummedVectors(over="genes", tables=ONE, unit="log", l2_normalize=True),
    "lookup": LookedUp(table="genept"),
    "n_missing": MissingGenes(tables=BOTH),
    "log_expression": LogMatrix(),
    "genept_s_sentence_top*": CellTexts(),
}
