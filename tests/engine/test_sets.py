"""Sets of cells: gone over in pieces where they are large, and in smaller ones where memory ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sclcm.engine.sets import CellRows, Pieces, ReadCell, run_sets, through_blocks
from sclcm.nn.backbone import Block
from sclcm.nn.configs import BackboneConfig, FeedForward, KernelAttention, LayerNorm, LCMConfig, SoftmaxAttention
from sclcm.nn.lcm import LCM
from sclcm.nn.set_configs import BagOfGenes, FlowAttention

FLOW = FlowAttention(n_heads=2)
KINDS = {
    "flow": FLOW,
    "softmax": SoftmaxAttention(n_heads=2),
    "kernel": KernelAttention(n_heads=2, d_head=4, n_features=8),
}


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(attention=FLOW):
    config = LCMConfig(
        d_model=8,
        gene=BagOfGenes(n_tokens=4),
        backbone=BackboneConfig(
            n_blocks=2,
            attention=attention,
            feed_forward=FeedForward(d_hidden=16),
            norm="pre",
            final_norm=LayerNorm(),
        ),
    )
    lcm = LCM(config).requires_grad_(False).eval()
    for parameter in lcm.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return lcm


def run(lcm, x, sets, *, n_at_once=100, n_blocks=None):
    out = np.full((len(x), 8), np.nan, dtype=np.float32)
    done = run_sets(lcm, x, sets, reducers=[CellRows(out=out, read=ReadCell())], n_blocks=n_blocks, n_at_once=n_at_once)
    return out, list(done)


SETS = [np.array([0, 3, 4, 9]), np.array([1]), np.array([2, 5, 6, 7, 8])]


@pytest.mark.parametrize("kind", KINDS)
def test_cells_meet_within_their_sets(kind):
    lcm, x = make(KINDS[kind]), torch.randn(10, 8)
    found, done = run(lcm, x, SETS)
    assert done == [4, 1, 5]
    for rows in SETS:
        wanted = lcm.backbone(x[rows].unsqueeze(0), None)[0]
        np.testing.assert_allclose(found[rows], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_at_once", [1, 2, 3, 4])
def test_number_of_cells_at_a_time_does_not_matter(kind, n_at_once):
    lcm, x = make(KINDS[kind]), torch.randn(10, 8)
    wanted, _ = run(lcm, x, SETS)
    np.testing.assert_allclose(run(lcm, x, SETS, n_at_once=n_at_once)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_blocks", [0, 1, 2])
def test_reducers_see_the_depth_that_is_asked_for(n_blocks):
    lcm, x = make(), torch.randn(10, 8)
    found, _ = run(lcm, x, [np.arange(10)], n_blocks=n_blocks, n_at_once=3)
    np.testing.assert_allclose(found, lcm.backbone(x[None], None, n_blocks)[0], rtol=1e-5, atol=1e-6)


def test_vectors_that_enter_are_left_alone():
    lcm, x = make(), torch.randn(10, 8)
    before = x.clone()
    run(lcm, x, SETS, n_at_once=2)
    assert x.equal(before)


def out_of_memory_above(limit, monkeypatch, names):
    """Let parts of a block fail for more than so many cells, as a full device does."""
    for name in names:
        plain = getattr(Block, name)

        def work(self, x_bld, *args, plain=plain):
            if x_bld.shape[1] > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(self, x_bld, *args)

        monkeypatch.setattr(Block, name, work)


@pytest.mark.parametrize(("limit", "size"), [(1, 1), (2, 2), (4, 2), (5, 5)])
def test_memory_that_ends_makes_pieces_smaller_and_changes_nothing(monkeypatch, caplog, limit, size):
    lcm, x = make(), torch.randn(10, 8)
    wanted, _ = run(lcm, x, [np.arange(10)])
    out_of_memory_above(limit, monkeypatch, ["forward", "gather", "mix"])
    found, _ = run(lcm, x, [np.arange(10)])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert f"going on with at most {size} cells at a time" in caplog.text


@pytest.mark.parametrize("kind", ["softmax", "kernel"])
def test_set_that_must_be_seen_at_once_and_does_not_fit_is_refused(monkeypatch, kind):
    lcm = make(KINDS[kind])
    out_of_memory_above(4, monkeypatch, ["forward"])
    with pytest.raises(MemoryError, match="A set of 10 cells does not fit into the memory of cpu"):
        through_blocks(lcm, torch.randn(10, 8), n_blocks=None, pieces=Pieces(2))


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def fail(self, *args):
        raise RuntimeError("something else")

    monkeypatch.setattr(Block, "forward", fail)
    with pytest.raises(RuntimeError, match="something else"):
        run(make(), torch.randn(10, 8), SETS)


def test_one_cell_that_does_not_fit_is_an_error(monkeypatch):
    out_of_memory_above(0, monkeypatch, ["forward", "gather", "mix"])
    with pytest.raises(torch.OutOfMemoryError):
        run(make(), torch.randn(10, 8), SETS)


def test_failing_reducer_gets_smaller_pieces_and_none_twice():
    class Small:
        def __init__(self):
            self.rows = []

        def update(self, step):
            if len(step.rows) > 3:
                raise torch.OutOfMemoryError("out of memory")
            self.rows += step.rows.tolist()

    small = Small()
    list(run_sets(make(), torch.randn(10, 8), SETS, reducers=[small], n_blocks=None, n_at_once=100))
    assert small.rows == [0, 3, 4, 9, 1, 2, 5, 6, 7, 8]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_device_gives_what_the_processor_gives():
    lcm, x = make(), torch.randn(10, 8)
    wanted, _ = run(lcm, x, SETS)
    found, _ = run(lcm.cuda(), x.cuda(), SETS, n_at_once=3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
