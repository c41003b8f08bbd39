"""Greedy decoding, against the same model read anew for every token, cell by cell."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from sclcm.encoding.batches import TokenBatch
from sclcm.engine.generate import NONE, Decoding, Generated, generate
from sclcm.nn import configs, readouts, table_configs
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

CPU = torch.device("cpu")
STOP, N_TOKENS, WIDTH = 0, 12, 16
LENGTHS = (9, 5, 7, 1, 3, 9)


def make_lcm(*, norm="pre", n_positions=None, causal=True, bias=True, seed=0):
    heads = {name: readouts.LinearHead(d_in=WIDTH, d_out=N_TOKENS, bias=False) for name in ("next", "value")}
    config = configs.LCMConfig(
        d_model=WIDTH,
        gene=configs.TableEncoder(n_tokens=N_TOKENS),
        value=configs.ValueTable(n_values=5),
        position=None if n_positions is None else configs.LearnedPositions(n_positions=n_positions),
        backbone=configs.BackboneConfig(
            n_blocks=3,
            attention=configs.SoftmaxAttention(n_heads=2, causal=causal, bias=bias),
            feed_forward=configs.FeedForward(d_hidden=32, bias=bias),
            norm=norm,
            final_norm=configs.LayerNorm(),
        ),
        heads=heads,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lcm = LCM(config)
        for parameter in lcm.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return lcm.requires_grad_(False).eval()


def make_batch(lengths=LENGTHS, *, width=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (len(lengths), width or max(lengths))
    ids, values, mask = np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
    for cell, length in enumerate(lengths):
        ids[cell, :length] = rng.permutation(np.arange(1, N_TOKENS))[:length]
        values[cell, :length] = rng.integers(0, 5, length)
        mask[cell, :length] = True
    return TokenBatch(
        rows=np.arange(len(lengths))[::-1].copy(),
        token_ids=ids,
        features=np.where(mask, ids, -1).astype(np.int32),
        mask=mask,
        values={"value": values},
    )


def decoding(**changes):
    given = {"n_tokens": 3, "max_value": 10, "bans_last": False, **changes}
    return Decoding(token_head="next", value_head="value", stop=STOP, **given)


def decode(lcm, batches, how, *, places=0, n_forward=None, n_cells=None):
    n_cells = sum(batch.n_cells for batch in batches) if n_cells is None else n_cells
    out = Generated.empty(n_cells, how.n_forward([places]) if n_forward is None else n_forward, WIDTH)
    done = list(generate(lcm, batches, out, decoding=how, places=places, device=CPU))
    return out, done


def plain(lcm, batch, cell, how):
    """Decode one cell without padding, batch or cache: tokens, values, and vectors of what the last step read."""
    real = batch.mask[cell]
    ids, values = batch.token_ids[cell, real].tolist(), batch.values["value"][cell, real].tolist()
    n_before = len(ids)
    while True:
        value_bl = torch.tensor([values]).clamp(max=4)
        tokens = TokenTensors(
            token_ids_bl=torch.tensor([ids]), mask_bl=None, gene_mask_bl=value_bl > 0, value_bl=value_bl
        )
        x_ld = lcm(tokens)[0]
        scores = lcm.heads["next"](x_ld[-1:])[0].clone()
        scores[[*how.ignored, *(ids if how.bans_last else ids[:-1])]] = -torch.inf
        ids.append(int(scores.argmax()))
        values.append(float(np.clip(np.round(float(lcm.heads["value"](x_ld[-1:])[0, ids[-1]])), 0, how.max_value)))
        if ids[-1] == how.stop or len(ids) - n_before == how.n_tokens:
            return ids[n_before:], values[n_before:], x_ld.numpy()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("n_positions", [None, 40])
@pytest.mark.parametrize("bans_last", [False, True])
@pytest.mark.parametrize("ignored", [(), (2, 7)])
def test_decoding_with_a_cache_and_padding_is_that_without(norm, n_positions, bans_last, ignored):
    seen, batch = set(), make_batch(width=13)
    for seed, (n_tokens, places) in itertools.product((0, 1, 2), ((1, 1), (3, 0), (3, 1), (6, 2))):
        lcm = make_lcm(norm=norm, n_positions=n_positions, seed=seed)
        how = decoding(n_tokens=n_tokens, bans_last=bans_last, ignored=ignored)
        out, done = decode(lcm, [batch], how, places=places)
        assert done == [batch.n_cells]
        n_known = out.token_ids.shape[1]
        for cell, row in enumerate(batch.rows):
            ids, values, x_ld = plain(lcm, batch, cell, how)
            n = min(len(ids), n_known)
            seen.add(len(ids))
            assert out.n_steps[row] == len(ids)
            assert out.token_ids[row].tolist() == ids[:n] + [NONE] * (n_known - n)
            assert out.values[row, :n].tolist() == values[:n]
            for back in range(places, len(ids)):  # the last token need not be known, those before it are
                if back:
                    assert out.from_end(back)[0][row] == ids[-1 - back]
            assert out.from_end(len(ids))[0][row] == NONE
            if len(x_ld) > places:
                assert out.vectors[row] == pytest.approx(x_ld[-1 - places], rel=1e-4, abs=1e-4)
    assert len(seen) > 2  # sentences that end early, and some that do not


def test_results_do_not_depend_on_batches():
    lcm, how = make_lcm(), decoding(n_tokens=5, classes=(3, 4, 5))
    batch = make_batch()
    together, _ = decode(lcm, [batch], how, places=1)
    halves, done = decode(lcm, batch.halves(), how, places=1)
    assert done == [3, 3]
    for name in ("token_ids", "values", "n_steps"):
        assert (getattr(together, name) == getattr(halves, name)).all()
    for name in ("shares", "vectors"):
        assert getattr(halves, name) == pytest.approx(getattr(together, name), rel=1e-5, abs=1e-6)


class Choosing(torch.nn.Module):
    """A head that gives the same scores whatever it sees."""

    def __init__(self, scores):
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, x_bd):
        return self.scores.expand(len(x_bd), -1)


def chosen(scores, prompt, values=None, **how):
    lcm = make_lcm()
    lcm.heads["next"] = Choosing([float(score) for score in scores])
    lcm.heads["value"] = Choosing([0.0] * N_TOKENS if values is None else values)
    batch = make_batch((len(prompt),))
    batch.token_ids[0] = prompt
    how = decoding(**how)
    return decode(lcm, [batch], how, n_forward=how.n_tokens)[0]


DESCENDING = [0, *range(30, 19, -1)]  # token 1 is the best, then 2, ...; the stop token the worst


@pytest.mark.parametrize(
    ("prompt", "bans_last", "wanted"),
    [
        ([9, 1, 2], True, [3, 4, 5]),
        ([9, 2, 1], False, [1, 3, 3]),  # the last token may be chosen again, once
        ([1, 9, 1], False, [2, 2, 3]),  # unless it stands before as well
        ([9], False, [1, 1, 2]),
        ([9], True, [1, 2, 3]),
    ],
)
def test_tokens_of_the_sentence_are_banned(prompt, bans_last, wanted):
    assert chosen(DESCENDING, prompt, bans_last=bans_last).token_ids[0].tolist() == wanted


def test_ignored_tokens_are_never_chosen():
    found = chosen(DESCENDING, [9], bans_last=True, ignored=(1, 3))
    assert found.token_ids[0].tolist() == [2, 4, 5]


def test_padding_bans_nothing():
    """The padding token, here the stop token itself, stays free where it pads."""
    lcm = make_lcm()
    lcm.heads["next"] = Choosing([9.0] + [0.0] * (N_TOKENS - 1))
    found, _ = decode(lcm, [make_batch((3, 2), width=6)], decoding(bans_last=True))
    assert found.token_ids[:, 0].tolist() == [STOP, STOP]
    assert found.n_steps.tolist() == [1, 1]


@pytest.mark.parametrize(("raw", "wanted"), [(0.5, 0), (1.5, 2), (2.5, 2), (-3.0, 0), (10.6, 10), (3.49, 3)])
def test_values_are_rounded_half_to_even_and_clipped(raw, wanted):
    found = chosen(DESCENDING, [9], values=[0.0, raw, *[0.0] * (N_TOKENS - 2)], n_tokens=1)
    assert found.values[0].tolist() == [wanted]


def test_share_of_a_token_is_its_probability_among_the_classes():
    found = chosen([0, 0, 3, 5, 1, *[0] * 7], [9], bans_last=True, classes=(2, 3, 4), n_tokens=4)
    two, three, four = np.exp([3.0, 5.0, 1.0])
    assert found.token_ids[0, :3].tolist() == [3, 2, 4]
    assert found.shares[0, :3] == pytest.approx([three / (two + three + four), two / (two + four), 1], rel=1e-5)
    assert found.shares[0, 3] == 0  # no class


def test_no_step_runs_that_nobody_asks_for(monkeypatch):
    lcm = make_lcm()
    calls = []
    step = lcm.step
    monkeypatch.setattr(lcm, "step", lambda *given: calls.append(len(given[0].token_ids_bl)) or step(*given))
    how = decoding(n_tokens=3)
    assert how.n_forward([1, 2]) == 2
    found, _ = decode(lcm, [make_batch()], how, places=1)
    assert len(calls) == 1
    assert calls[0] == (found.token_ids[:, 0] != STOP).sum()  # those that are finished have left


@pytest.mark.parametrize(("n_tokens", "places", "n_forward"), [(3, [1, 2], 2), (3, [0], 3), (1, [2], 1), (4, [], 4)])
def test_number_of_passes(n_tokens, places, n_forward):
    assert decoding(n_tokens=n_tokens).n_forward(places) == n_forward


def test_value_beyond_the_table_is_read_as_its_last():
    lcm = make_lcm()
    lcm.heads["value"] = Choosing([9.0] * N_TOKENS)
    batch, how = make_batch(), decoding(n_tokens=4)
    found, _ = decode(lcm, [batch], how)
    assert found.values[found.token_ids != NONE].tolist() == [9] * int((found.token_ids != NONE).sum())
    ids, _, _ = plain(lcm, batch, 0, how)
    assert found.token_ids[batch.rows[0]].tolist()[: len(ids)] == ids


def test_batch_that_exhausts_memory_is_halved(monkeypatch):
    lcm, batch, how = make_lcm(), make_batch(), decoding(n_tokens=4)
    wanted, _ = decode(lcm, [batch], how)
    prefill = lcm.prefill

    def limited(tokens, **given):
        if len(tokens.token_ids_bl) > 2:
            msg = "CUDA out of memory"
            raise torch.OutOfMemoryError(msg)
        return prefill(tokens, **given)

    monkeypatch.setattr(lcm, "prefill", limited)
    found, done = decode(lcm, [batch], how)
    assert sum(done) == batch.n_cells
    assert max(done) <= 2
    assert (found.token_ids == wanted.token_ids).all()
    assert found.vectors == pytest.approx(wanted.vectors, rel=1e-5, abs=1e-6)


def test_half_precision_scores_tokens_in_float32():
    lcm = make_lcm().bfloat16()
    scores = torch.zeros(N_TOKENS, WIDTH)
    scores[4], scores[5] = 1.0, 1.0 + 2**-7  # apart in bfloat16, but not their sums over a vector
    lcm.heads["next"].out.weight.copy_(scores.bfloat16())
    found, _ = decode(lcm, [make_batch((2,))], decoding(n_tokens=1))
    x_d = lcm.prefill(to_tokens(make_batch((2,))), n_last=1, n_more=0)[0][0, -1].float()
    assert found.token_ids[0, 0] == int((lcm.heads["next"].out.weight.float() @ x_d).argmax())
    assert lcm.heads["next"].out.weight.dtype == torch.bfloat16  # the model itself stays as it is


def to_tokens(batch):
    from sclcm.engine.infer import to_tensors

    return to_tensors(batch, CPU)


def test_model_that_looks_ahead_is_refused():
    with pytest.raises(ValueError, match="not causal"):
        decode(make_lcm(causal=False), [make_batch()], decoding())


def test_decoding_runs_under_autocast():
    lcm, batch = make_lcm(), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = decode(lcm, [batch], decoding())
    assert (found.token_ids[:, 0] >= 0).all()
    assert np.isfinite(found.vectors).all()


@pytest.mark.parametrize("repeats", [False, True])
def test_tokens_without_values_are_added_to_the_end_and_may_repeat(repeats):
    lcm, batch = make_lcm(n_positions=40), make_batch()
    plainer = LCM(dataclasses.replace(lcm.config, value=None, segment=table_configs.SharedSegment(row=3)))
    plainer.load_state_dict(
        {name: t for name, t in lcm.state_dict().items() if ".value." not in name or "heads" in name}
    )
    plainer.requires_grad_(False).eval()
    how = Decoding(
        token_head="next", value_head=None, n_tokens=2, stop=NONE, max_value=0, bans_last=True, repeats=repeats
    )
    out, _ = decode(plainer, [batch], how, n_forward=2)
    for cell, row in enumerate(batch.rows):
        ids = batch.token_ids[cell, batch.mask[cell]].tolist()
        for step in range(2):
            ids_bl = torch.tensor([ids])
            every = torch.ones_like(ids_bl, dtype=torch.bool)
            x_ld = plainer(TokenTensors(token_ids_bl=ids_bl, mask_bl=None, gene_mask_bl=every))[0]
            scores = plainer.heads["next"](x_ld[-1]).clone()
            if not repeats:
                scores[ids] = -torch.inf
            ids.append(int(scores.argmax()))
            assert out.token_ids[row, step] == ids[-1]
    assert out.n_steps.tolist() == [2] * batch.n_cells
    assert not out.values.any()
