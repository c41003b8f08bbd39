"""Compute arrays on tokens that upstream has drawn."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_tensors
from sclcm.models._measure_draws import require_shape
from sclcm.nn import losses
from sclcm.nn.configs import BackboneConfig
from sclcm.nn.embedders import require_condition
from sclcm.nn.pooling import pool
from sclcm.nn.tokens import TokenTensors
from sclcm.reference import _collated_probes as probes
from sclcm.reference._probes import Said
from sclcm.zoo._registry import get_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained


def drawn_tokens(m: Measurement, drawn: probes.Drawn, condition: str | None = None) -> TokenTensors:
    """Return drawn tokens on the device, checked where they are those of the input's cells."""
    tokens, values = m.draws[drawn.tokens], m.draws[drawn.values]
    require_shape(values, tokens.shape, drawn.values, kinds="f")
    real = torch.as_tensor(tokens != m.pretrained.vocabulary.specials[m.pretrained.pad], device=m.device_of)
    return TokenTensors(
        token_ids_bl=torch.as_tensor(tokens, device=m.device_of),
        mask_bl=real,
        gene_mask_bl=real,
        value_bl=torch.as_tensor(values, device=m.device_of),
        condition_b=None if condition is None else torch.as_tensor(m.draws[condition], device=m.device_of),
    )


def run_pass(
    m: Measurement, given: probes.Pass, pretrained: Pretrained | None = None
) -> tuple[Pretrained, TokenTensors, Tensor]:
    """Return the model of a pass (that of its folder with `None`), its tokens and what the backbone makes of them."""
    pretrained = pretrained or m.model(given.folder)
    tokens = drawn_tokens(m, given.drawn, given.condition)
    if given.hiding is not None:
        hide = torch.as_tensor(m.draws[given.hiding.mask], device=m.device_of)
        value = m.configured(given.hiding.value)
        tokens = dataclasses.replace(tokens, value_bl=tokens.value_bl.masked_fill(hide, value))  # type: ignore[union-attr]
    return pretrained, tokens, pretrained.lcm(tokens)


def real(tokens: TokenTensors) -> Tensor:
    """Return which tokens are real, shape `(cells, tokens)`."""
    return tokens.gene_mask_bl


def token_vectors(m: Measurement, probe: probes.TokenVectors, name: str) -> Tensor:
    """Vectors of the tokens of the first cells, zero at padding."""
    tokens, lcm = drawn_tokens(m, probe.drawn), m.pretrained.lcm
    genes_bld = lcm.embed.genes(tokens.token_ids_bl)
    match probe.part:
        case "gene":
            x_bld = genes_bld
        case "value":
            x_bld = lcm.embed.value(genes_bld, tokens.value_bl.to(genes_bld.dtype), tokens.gene_mask_bl) - genes_bld  # type: ignore[misc,operator,union-attr]
        case "backbone":
            x_bld = lcm(tokens)
    return m.as_many(x_bld * real(tokens)[..., None], name)


def embedding(m: Measurement, probe: probes.CollatedEmbedding, name: str) -> Tensor:
    """Cell vectors of a pass."""
    extended = with_tensors(m, probe.tensors) if probe.tensors else None
    pretrained, tokens, x_bld = run_pass(m, probe.given, extended)
    recipe = pretrained.recipe(probe.recipe)
    cells_bd = pool(recipe.pooling, x_bld, tokens)
    return functional.normalize(cells_bd, dim=-1) if recipe.l2_normalize and probe.l2_normalize else cells_bd


def with_tensors(m: Measurement, arrays: tuple[str, ...]) -> Pretrained:
    """Return the checkpoint with further tensors: the array `bn_weight` is the tensor `bn.weight`."""
    weights = find_one(m.folder, get_spec(m.family).weights)
    tensors = read_tensors(weights)
    tensors |= {name.replace("_", ".", 1): torch.as_tensor(np.asarray(m.draws[name])) for name in arrays}
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, Path(folder) / weights.name)
        return m.load(Path(folder))


def padded_pool(m: Measurement, probe: probes.PaddedPool, name: str) -> Tensor:
    """Pool the whole rectangle."""
    pretrained, tokens, x_bld = run_pass(m, probes.Pass(drawn=probe.drawn))
    # PyTorch's encoder packs sentences, and unpacks them with zeros at padding, for an even number of heads only.
    stack = pretrained.architecture.backbone
    if isinstance(stack, BackboneConfig) and as_int(stack.attention.n_heads) % 2 == 0:
        x_bld = x_bld * real(tokens)[..., None]
    if not probe.weighted:
        return x_bld.mean(1)
    return functional.normalize((x_bld * tokens.value_bl.to(x_bld.dtype)[..., None]).sum(1), dim=-1)  # type: ignore[union-attr]


def read_head(head: str, pretrained: Pretrained, *, tokens: TokenTensors, x_bld: Tensor) -> Tensor:
    """Apply a head; the cell's vector is its first token's."""
    return pretrained.lcm.read(head, x_bld, tokens, x_bld[:, 0])


def head_values(m: Measurement, probe: probes.HeadValues, name: str) -> Tensor:
    """What a head gives, zero at padding."""
    pretrained, tokens, x_bld = run_pass(m, probe.given)
    out = read_head(probe.head, pretrained, tokens=tokens, x_bld=x_bld)
    out = torch.sigmoid(out) if probe.probability else out
    return out * real(tokens) if out.shape == tokens.token_ids_bl.shape else out


def from_cell(m: Measurement, probe: probes.FromCell, name: str) -> Tensor:
    """What a head gives when only genes and the cell's vector are known."""
    pretrained, tokens, x_bld = run_pass(m, probes.Pass(drawn=probe.drawn))
    y_bld = pretrained.lcm.from_cell(tokens, x_bld[:, 0])
    return read_head(probe.head, pretrained, tokens=tokens, x_bld=y_bld) * real(tokens)


def pass_losses(m: Measurement, probe: probes.Losses, name: str) -> list[float]:
    """Several losses of a pass."""
    pretrained, tokens, x_bld = run_pass(m, probe.given)
    hiding = probe.given.hiding
    if hiding is None:
        msg = f"{name!r} needs hidden values, as those are its targets."
        raise ValueError(msg)
    target = torch.as_tensor(m.draws[probe.given.drawn.values], device=m.device_of)
    mask = torch.as_tensor(m.draws[hiding.mask], device=m.device_of)
    cells_bd = x_bld[:, 0].float()

    def one(kind: str, by: Any) -> Tensor:
        by = m.said(by, name) if isinstance(by, Said) else by
        if not isinstance(by, str):
            similar = {"similarity": losses.elastic_similarity, "contrast": _contrast_with_itself}
            return similar[kind](cells_bd, by)
        out = read_head(by, pretrained, tokens=tokens, x_bld=x_bld).float()
        if kind in BY_TOKEN:
            return BY_TOKEN[kind](out, target, mask)
        number_b = torch.arange(len(out), device=out.device) % out.shape[1]
        return functional.cross_entropy(out, number_b if kind == "class" else require_condition(tokens.condition_b))

    return [float(one(kind, by)) for kind, by in probe.terms]


def _contrast_with_itself(cell_bd: Tensor, temperature: float) -> Tensor:
    """Two passes of a model in evaluation are one."""
    return losses.cell_contrast(cell_bd, cell_bd, temperature)


BY_TOKEN = {
    "mse": losses.masked_mse,
    "relative": losses.masked_relative_error,
    "expressed": losses.masked_expressed,
}


def generate(m: Measurement, visible: probes.Drawn, targets: str) -> tuple[TokenTensors, Tensor, dict[str, Tensor]]:
    """Return the visible tokens, which targets are real, and every output of the two passes."""
    tokens, lcm = drawn_tokens(m, visible), m.pretrained.lcm
    ids = torch.as_tensor(m.draws[targets], device=m.device_of)
    x_bld, target_bmd = lcm.with_targets(tokens, ids)
    cells_bd = x_bld[:, 0]
    _, second_bmd = lcm.with_targets(tokens, ids, cells_bd)
    value, cell_gene = lcm.heads["value"], lcm.heads["cell_gene"]
    wanted = ids != m.pretrained.vocabulary.specials[m.pretrained.pad]
    return (
        tokens,
        wanted,
        {
            "visible": value(x_bld) * real(tokens),
            "target": value(target_bmd) * wanted,
            "cell_gene": cell_gene(lcm.embed.genes(ids), cells_bd) * wanted,
            "second": value(second_bmd) * wanted,
            "cell": cells_bd,
        },
    )


def generation_losses(m: Measurement, probe: probes.GenerationLosses, name: str) -> list[float]:
    """Mean squared errors of generated values."""
    _, mask, out = generate(m, probe.visible, probe.targets)
    target = torch.as_tensor(m.draws[probe.wanted], device=m.device_of)
    return [float(losses.masked_mse(out[part].float(), target, mask)) for part in ("target", "cell_gene", "second")]


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.TokenVectors: token_vectors,
    probes.CollatedEmbedding: embedding,
    probes.PaddedPool: padded_pool,
    probes.HeadValues: head_values,
    probes.FromCell: from_cell,
    probes.Losses: pass_losses,
    probes.Generation: lambda m, p, name: generate(m, p.visible, p.targets)[2][p.output],
    probes.GenerationLosses: generation_losses,
}
