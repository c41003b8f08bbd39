"""One pass over token batches, and what survives it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from sclcm.encoding.batches import TokenBatch
from sclcm.encoding.sentences import SPECIAL
from sclcm.engine.infer import CellVectors, FeatureMeans, Step, is_out_of_memory, run, to_tensors, token_budget
from sclcm.nn import configs, readouts
from sclcm.nn.lcm import LCM

CPU = torch.device("cpu")


@pytest.fixture
def lcm():
    config = configs.LCMConfig(
        d_model=4,
        gene=configs.TableEncoder(n_tokens=6),
        backbone=configs.BackboneConfig(
            n_blocks=2,
            attention=configs.SoftmaxAttention(n_heads=2),
            feed_forward=configs.FeedForward(d_hidden=8),
            norm="pre",
        ),
        heads={"project": readouts.LinearHead(d_in=4, d_out=3)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LCM(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False).eval()


def make_batch(lengths, *, first_row=0, values=False):
    """Token ids 2, 3, 4, 5, 2, ... with token 1, which is special, in front; padding is 0."""
    width = max(lengths)
    mask = np.arange(width) < np.array(lengths)[:, None]
    ids = np.where(mask, 2 + (np.arange(width) - 1) % 4, 0)
    ids[:, 0] = 1
    features = np.where(mask, ids - 2, SPECIAL)
    features[:, 0] = SPECIAL
    return TokenBatch(
        rows=np.arange(first_row, first_row + len(lengths))[::-1].copy(),
        token_ids=ids,
        features=features,
        mask=mask,
        values={"value": np.where(mask, 1.5, 0).astype(np.float32)} if values else {},
    )


def cell_vectors(lcm, batches, *, n_cells, width=4, n_blocks=None, **given):
    reducer = CellVectors(out=np.zeros((n_cells, width), dtype=np.float32), pooling=readouts.MeanPooling(), **given)
    done = list(run(lcm, batches, [reducer], device=CPU, n_blocks=n_blocks))
    return reducer.out, done


def test_batch_becomes_tensors(lcm):
    tokens = to_tensors(make_batch([3, 2], values=True), CPU)
    assert tokens.token_ids_bl.tolist() == [[1, 2, 3], [1, 2, 0]]
    assert tokens.mask_bl.tolist() == [[True, True, True], [True, True, False]]
    assert tokens.gene_mask_bl.tolist() == [[False, True, True], [False, True, False]]
    assert tokens.value_bl.tolist() == [[1.5, 1.5, 1.5], [1.5, 1.5, 0.0]]
    full = to_tensors(make_batch([3, 3]), CPU)
    assert full.mask_bl is None
    assert full.value_bl is None


@pytest.mark.parametrize("n_blocks", [0, 1, 2, None])
def test_vectors_of_cells_go_to_their_rows(lcm, n_blocks):
    batches = [make_batch([4, 4, 2]), make_batch([1, 1], first_row=3)]
    out, done = cell_vectors(lcm, batches, n_cells=6, n_blocks=n_blocks)
    assert done == [3, 2]
    for batch in batches:
        tokens = to_tensors(batch, CPU)
        x = lcm(tokens, n_blocks=n_blocks)
        for cell, row in enumerate(batch.rows):
            genes = tokens.gene_mask_bl[cell]
            wanted = x[cell, genes].mean(0) if genes.any() else torch.zeros(4)
            assert out[row] == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-6)
    assert (out[5] == 0).all()


def test_pooled_vectors_may_pass_a_head_and_be_scaled_to_length_one(lcm):
    batches = [make_batch([4, 3])]
    plain, _ = cell_vectors(lcm, batches, n_cells=2)
    headed, _ = cell_vectors(lcm, batches, n_cells=2, width=3, head="project")
    head = lcm.heads["project"].out
    assert headed == pytest.approx(plain @ head.weight.numpy().T + head.bias.numpy(), rel=1e-5, abs=1e-6)
    unit, _ = cell_vectors(lcm, batches, n_cells=2, width=3, head="project", l2_normalize=True)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(1)
    assert unit == pytest.approx(headed / np.linalg.norm(headed, axis=1, keepdims=True), rel=1e-5)


def test_means_of_tokens_count_every_occurrence(lcm):
    reducer = FeatureMeans(n_tokens=6, width=4, device=CPU)
    batches = [make_batch([4, 2]), make_batch([3], first_row=2)]
    list(run(lcm, batches, [reducer], device=CPU, n_blocks=None))
    means, counts = reducer.means()
    assert counts.tolist() == [0, 3, 3, 2, 1, 0]
    x = [lcm(to_tensors(batch, CPU)) for batch in batches]
    assert means[3] == pytest.approx(torch.stack([x[0][0, 2], x[1][0, 2]]).mean(0).numpy(), rel=1e-5)
    assert means[1] == pytest.approx(torch.stack([x[0][0, 0], x[0][1, 0], x[1][0, 0]]).mean(0).numpy(), rel=1e-5)
    assert np.isnan(means[[0, 5]]).all()
    assert means.dtype == np.float32


def test_several_reducers_share_one_pass(lcm, monkeypatch):
    calls = []
    forward = lcm.forward
    monkeypatch.setattr(lcm, "forward", lambda *args, **given: calls.append(1) or forward(*args, **given))
    out = np.zeros((2, 4), dtype=np.float32)
    means = FeatureMeans(n_tokens=6, width=4, device=CPU)
    reducers = (reducer for reducer in (CellVectors(out=out, pooling=readouts.MeanPooling()), means))
    list(run(lcm, [make_batch([3]), make_batch([2], first_row=1)], reducers, device=CPU, n_blocks=None))
    assert len(calls) == 2
    assert means.means()[1].sum() == 5


def test_nothing_runs_before_it_is_asked_for(lcm):
    def batches():
        raise AssertionError
        yield

    run(lcm, batches(), [], device=CPU, n_blocks=None)


# ---- memory ----


def limit_memory(monkeypatch, lcm, n_tokens, error=torch.OutOfMemoryError):
    """Let the forward pass fail for batches of more tokens than fit; return the sizes that it saw."""
    seen, forward = [], lcm.forward

    def limited(tokens, n_blocks=None):
        seen.append(tokens.token_ids_bl.numel())
        if seen[-1] > n_tokens:
            message = "CUDA out of memory"
            raise error(message)
        return forward(tokens, n_blocks=n_blocks)

    monkeypatch.setattr(lcm, "forward", limited)
    return seen


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("limit", [3, 7, 12])
def test_pass_goes_on_with_smaller_batches_where_memory_ends(lcm, monkeypatch, caplog, limit, error):
    batches = [make_batch([3] * 8), make_batch([3] * 8, first_row=8), make_batch([2] * 5, first_row=16)]
    wanted, _ = cell_vectors(lcm, batches, n_cells=21)
    seen = limit_memory(monkeypatch, lcm, limit, error)
    with caplog.at_level(logging.WARNING, "sclcm"):
        found, done = cell_vectors(lcm, batches, n_cells=21)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert sum(done) == 21
    failures = [size for size in seen if size > limit]
    assert len(failures) == len(set(failures))  # each size fails once: the budget is remembered
    assert failures[0] == 24
    assert len(caplog.records) == len(failures)
    assert "out of memory on cpu; going on with at most 12 tokens at a time" in caplog.records[0].message


def test_one_cell_that_does_not_fit_is_an_error(lcm, monkeypatch):
    limit_memory(monkeypatch, lcm, 2)
    with pytest.raises(torch.OutOfMemoryError):
        cell_vectors(lcm, [make_batch([3, 3])], n_cells=2)


def test_other_errors_are_raised_at_once(lcm, monkeypatch):
    monkeypatch.setattr(lcm, "forward", lambda *args, **given: (_ for _ in ()).throw(RuntimeError("mat1 and mat2")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cell_vectors(lcm, [make_batch([3, 3])], n_cells=2)


def test_memory_that_ends_in_a_reducer_counts_no_token_twice(lcm, monkeypatch):
    """The failed attempt must leave no trace in reducers that had their turn."""
    batches = [make_batch([3] * 4)]
    plain = FeatureMeans(n_tokens=6, width=4, device=CPU)
    list(run(lcm, batches, [plain], device=CPU, n_blocks=None))

    class Greedy:
        def update(self, step):
            if len(step.rows) > 2:
                raise torch.OutOfMemoryError

    found = FeatureMeans(n_tokens=6, width=4, device=CPU)
    list(run(lcm, batches, [found, Greedy()], device=CPU, n_blocks=None))
    assert found.means()[1].tolist() == plain.means()[1].tolist()


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("x"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("bad"), False),
    ],
)
def test_exhausted_memory_is_told_from_other_errors(error, is_memory):
    assert is_out_of_memory(error) is is_memory


def test_budget_on_a_cpu_does_not_depend_on_free_memory(lcm):
    assert token_budget(lcm, CPU) == token_budget(lcm, CPU) > 1000


@pytest.mark.gpu
def test_budget_and_batches_on_an_accelerator(lcm):
    device = torch.device("cuda" if torch.cuda.is_available() else "mps")
    assert token_budget(lcm, device) >= 1000
    wanted, _ = cell_vectors(lcm, [make_batch([4, 2])], n_cells=2)
    reducer = CellVectors(out=np.zeros((2, 4), dtype=np.float32), pooling=readouts.MeanPooling())
    list(run(lcm.to(device), [make_batch([4, 2])], [reducer], device=device, n_blocks=None))
    np.testing.assert_allclose(reducer.out, wanted, rtol=1e-3, atol=1e-4)


def test_step_holds_what_a_reducer_needs(lcm):
    batch = make_batch([2])
    tokens = to_tensors(batch, CPU)
    step = Step(lcm=lcm, x_bld=lcm(tokens), tokens=tokens, rows=batch.rows)
    reducer = CellVectors(out=np.zeros((1, 4), dtype=np.float32), pooling=readouts.FirstToken())
    reducer.update(step)
    assert reducer.out[0] == pytest.approx(step.x_bld[0, 0].numpy())
