"""Compute arrays of in-silico deletion."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.edits import delete_tokens, find_tokens
from sclcm.encoding.sentences import fill_up
from sclcm.engine.infer import to_tensors
from sclcm.engine.shifts import deletion_cosines
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_filled import vectors as all_vectors
from sclcm.reference import _edit_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.encoding.sentences import CellSentences
    from sclcm.models._measure import Measurement


def deleted(m: Measurement, deletion: probes.Deletion) -> dict[int, int]:
    """Return the token that each cell loses, by the number of the cell, once it is checked."""
    beginning = "|".join(map(re.escape, deletion.cells))
    ends = [re.fullmatch(rf"(?:{beginning})(\d+)", name) for name in m.draws]
    cells = list(dict.fromkeys(int(end[1]) for end in ends if end is not None))
    tokens = np.asarray(m.draws[deletion.tokens])
    require_shape(tokens, (len(cells),), deletion.tokens, kinds="iu")
    known = m.sentences
    for cell, token in zip(cells, tokens.tolist(), strict=True):
        own = slice(*known.indptr[cell : cell + 2]) if cell < known.n_cells else slice(0, 0)
        if token not in known.token_ids[own][known.features[own] >= 0]:
            msg = f"{deletion.tokens!r} deletes the token {token} from cell {cell}, which expresses no such gene."
            raise ValueError(msg)
    return dict(zip(cells, tokens.tolist(), strict=True))


def deleted_tokens(m: Measurement, probe: probes.DeletedTokens, name: str) -> np.ndarray:
    """Tokens of genes that the cells express."""
    return np.array(list(deleted(m, probe.deletion).values()))


def before_and_after(m: Measurement, deletion: probes.Deletion) -> tuple[CellSentences, CellSentences, np.ndarray]:
    """Return filled sentences of all cells, the same without the deleted tokens, and where these stood (or -1)."""
    pretrained, tokens = m.pretrained, np.full(m.sentences.n_cells, -1)
    for cell, token in deleted(m, deletion).items():
        tokens[cell] = token
    told = {**m.sentences.scalars, "species": np.full(len(tokens), deletion.species)}
    sentences = dataclasses.replace(m.sentences, scalars=told)
    whole = fill_up(sentences, pretrained.encoding, pad=pretrained.vocabulary.specials[pretrained.pad])
    places = find_tokens(whole, tokens)
    return whole, delete_tokens(whole, places), places


def edited(
    m: Measurement, deletion: probes.Deletion, name: str
) -> tuple[CellSentences, CellSentences, np.ndarray, int]:
    """Return the sentences before and after, the places, and the number of the cell that an array is of."""
    before, after, places = m.once(lambda _: before_and_after(m, deletion), deletion)
    return before, after, places, int(re.search(r"\d+$", name)[0])  # type: ignore[index]


def deleted_place(m: Measurement, probe: probes.DeletedPlace, name: str) -> np.ndarray:
    """Place of the deleted token among the genes."""
    *_, places, cell = edited(m, probe.deletion, name)
    return places[[cell]] - m.pretrained.encoding.n_reserved


def cosines(m: Measurement, probe: probes.DeletionCosines, name: str) -> torch.Tensor:
    """Cosines of what remains, without the places that are kept free."""
    before, after, places, cell = edited(m, probe.deletion, name)
    one, pad = np.array([cell]), m.pretrained.vocabulary.specials[m.pretrained.pad]
    tokens = (to_tensors(pad_sentences(sentences, one, pad=pad), m.device_of) for sentences in (before, after))
    before_bld, after_bld = (all_vectors(m.pretrained.lcm, given) for given in tokens)
    place_b = torch.as_tensor(places[one], device=m.device_of)
    return deletion_cosines(before_bld, after_bld, place_b)[:, m.pretrained.encoding.n_reserved :]


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.DeletedTokens: deleted_tokens,
    probes.DeletedPlace: deleted_place,
    probes.DeletionCosines: cosines,
}
