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


def deletion(m: Measurement, probe: probes.Deleted, name: str) -> np.ndarray | torch.Tensor:
    """What a cell loses, where that stood, or how far the vectors of the others move."""
    if probe.part == "tokens":
        return np.array(list(deleted(m, probe.deletion).values()))
    before, after, places = m.once(lambda _: before_and_after(m, probe.deletion), probe.deletion)
    cell, n_reserved = int(re.search(r"\d+$", name)[0]), m.pretrained.encoding.n_reserved  # type: ignore[index]
    if probe.part == "place":
        return places[[cell]] - n_reserved
    one, pad = np.array([cell]), m.pretrained.vocabulary.specials[m.pretrained.pad]
    tokens = (to_tensors(pad_sentences(sentences, one, pad=pad), m.device_of) for sentences in (before, after))
    before_bld, after_bld = (all_vectors(m.pretrained.lcm, given) for given in tokens)
    place_b = torch.as_tensor(places[one], device=m.device_of)
    return deletion_cosines(before_bld, after_bld, place_b)[:, n_reserved:]


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {probes.Deleted: deletion}
