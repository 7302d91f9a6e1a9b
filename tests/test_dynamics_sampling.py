"""Writing bars: schedules, windows, guidance; kept bars stay bit for bit, takes are themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dynamics_model import ACTION, DIMS, TOKENS, noise, tiny
from torch import Tensor

from mgen.core.dynamics import Condition, Dynamics, Guidance, Sampling, autoregress, inpaint
from mgen.core.dynamics.guidance import OtherConditions, guided
from mgen.core.dynamics.sampling import bar_noise, bars_seen, denoise
from mgen.core.dynamics.schedules import shifted, staircase, windows
from mgen.core.errors import UsageError

MASKS = st.lists(st.booleans(), min_size=1, max_size=30)
WINDOW = 5


@pytest.fixture(scope="module")
def dynamics() -> Dynamics:
    return Dynamics(tiny(bars=WINDOW))


def song(bars: int, seed: int = 3) -> dict[str, Tensor]:
    """Latents, tempo and actions of some bars."""
    return {
        "z_BLD": noise(bars, TOKENS, DIMS, seed=seed),
        "bpm_B": torch.full((bars,), 120.0),
        "action_BA": noise(bars, ACTION, seed=seed + 1),
    }


def mask_of(bars: int, *written: int) -> Tensor:
    mask_B = torch.zeros(bars, dtype=torch.bool)
    mask_B[list(written)] = True
    return mask_B


# ---------------------------------------------------------------- schedules and windows


@given(
    mask=MASKS, steps=st.integers(1, 9), lag=st.integers(0, 9), start_t=st.floats(0.01, 1.0),
    shift=st.floats(0.2, 8.0),
)  # fmt: skip
def test_levels_fall_from_start_to_nothing(
    mask: list[bool], steps: int, lag: int, start_t: float, shift: float
) -> None:
    levels_KB = staircase(mask, steps, lag, start_t, shift)
    written_B = torch.tensor(mask)
    assert not levels_KB[:, ~written_B].any()
    assert torch.allclose(levels_KB[0, written_B], torch.tensor(start_t))
    assert not levels_KB[-1].any()
    assert (levels_KB.diff(dim=0) <= 0).all()
    moves = levels_KB[:, written_B].diff(dim=0) < 0
    assert (moves.sum(0) == steps).all()
    first = moves.float().argmax(0)
    assert torch.equal(first, lag * torch.arange(len(first)))


def test_the_three_schedules() -> None:
    mask = [False, True, True]
    assert staircase(mask, 2, 0).tolist() == [[0, 1, 1], [0, 0.5, 0.5], [0, 0, 0]]
    one_by_one = [[0, 1, 1], [0, 0.5, 1], [0, 0, 1], [0, 0, 0.5], [0, 0, 0]]
    assert staircase(mask, 2, 2).tolist() == one_by_one
    pyramid = [[0, 0.5, 0.5], [0, 0.25, 0.5], [0, 0, 0.25], [0, 0, 0]]
    assert staircase(mask, 2, 1, 0.5).tolist() == pyramid


def test_shifted_levels_by_their_formula() -> None:
    levels = staircase([True], 4, 0, 1.0, 3.0)[:, 0]
    torch.testing.assert_close(levels, torch.tensor([1.0, 2.25 / 2.5, 1.5 / 2.0, 0.5, 0.0]))
    assert float(shifted(torch.tensor(0.5), 3.0)) == 0.75


@pytest.mark.parametrize(
    "bad", [(0, 0, 1.0), (1, -1, 1.0), (1, 0, 1.1), (1, 0, -0.1), (1, 0, 1.0, 0.0)]
)
def test_schedules_that_make_no_sense(bad: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        staircase([True], *bad)


@given(mask=MASKS, length=st.integers(1, 12), data=st.data())
def test_windows_write_every_bar_once_with_what_is_there(
    mask: list[bool], length: int, data: st.DataObject
) -> None:
    context = data.draw(st.integers(0, length - 1))
    look_ahead = data.draw(st.integers(0, length - context - 1))
    plan = windows(mask, length, context=context, look_ahead=look_ahead)
    written = [False] * len(mask)
    for window in plan:
        assert 0 <= window.first < window.until <= window.last <= len(mask)
        assert window.last - window.first == min(length, len(mask))
        new = [i for i in range(window.first, window.until) if mask[i] and not written[i]]
        assert new  # none for nothing
        assert all(written[i] for i in range(new[0]) if mask[i])  # left to right
        if window.first and window.last < len(mask):  # context before, room behind
            assert new[0] - window.first == context
            assert window.last - window.until == look_ahead
        for i in new:
            written[i] = True
    assert written == mask


def test_a_song_that_fits_is_one_window() -> None:
    (window,) = windows([False, True, False], 3, context=1, look_ahead=1)
    assert (window.first, window.last, window.until) == (0, 3, 3)


# ---------------------------------------------------------------- the sampler


def test_the_sampler_goes_straight_to_what_it_is_told() -> None:
    target = noise(1, 4, TOKENS, DIMS)
    start, context = noise(1, 4, TOKENS, DIMS, seed=1), noise(4, TOKENS, DIMS, seed=2)
    for lag in (0, 1, 3):
        for solver in ("euler", "midpoint"):
            levels = staircase([True] * 4, 3, lag)
            found = denoise(lambda x, t: target, start, levels, context, 0.1, solver)  # type: ignore[arg-type]
            torch.testing.assert_close(found, target, atol=1e-5, rtol=1e-5)


def test_midpoint_errs_with_the_square_of_the_step() -> None:
    # clean estimate (1 - t) x: dx/dt = (x - clean) / t = x, from t = 1 to 0 it divides by e
    def estimate(x: Tensor, t_SB: Tensor) -> Tensor:
        return (1.0 - t_SB[..., None, None]) * x

    def error(solver: Any, steps: int) -> float:
        start, levels = torch.ones(1, 1, 1, 1, dtype=torch.float64), staircase([True], steps, 0)
        context = torch.zeros(1, 1, 1, dtype=torch.float64)
        end = denoise(estimate, start, levels.double(), context, 0.0, solver)
        return abs(float(end) - 1.0 / math.e)

    assert error("euler", 8) / error("euler", 16) == pytest.approx(2.0, rel=0.1)
    assert error("midpoint", 8) / error("midpoint", 16) == pytest.approx(4.0, rel=0.1)


def test_what_the_network_is_shown() -> None:
    """Kept and finished bars with the context's noise, the others as they are, each its level."""
    seen: list[tuple[Tensor, list[float]]] = []

    def estimate(x: Tensor, t_SB: Tensor) -> Tensor:
        seen.append((x.clone(), [round(t, 4) for t in t_SB[0].tolist()]))
        return torch.zeros_like(x)

    x, context = noise(1, 3, TOKENS, DIMS), noise(3, TOKENS, DIMS, seed=1)
    out = denoise(estimate, x, staircase([False, True, True], 1, 1), context, 0.25)
    assert [levels for _, levels in seen] == [[0.25, 1.0, 1.0], [0.25, 0.25, 1.0]]
    for shown, _ in seen:
        torch.testing.assert_close(shown[0, 0], 0.75 * x[0, 0] + 0.25 * context[0])
    assert torch.equal(seen[0][0][0, 1:], x[0, 1:])
    torch.testing.assert_close(seen[1][0][0, 1], 0.25 * context[1])  # it was written: all zeros
    assert torch.equal(out[0, 0], x[0, 0])
    assert not out[0, 1:].any()


def test_noise_belongs_to_seed_take_use_and_bar() -> None:
    one = bar_noise((TOKENS, DIMS), 1, 2, range(3, 9), 0)
    assert torch.equal(one[2:4], bar_noise((TOKENS, DIMS), 1, 2, range(5, 7), 0))
    others = [bar_noise((TOKENS, DIMS), *k) for k in
              ((2, 2, range(3, 9), 0), (1, 3, range(3, 9), 0), (1, 2, range(3, 9), 1))]  # fmt: skip
    for other in others:
        assert (one - other).abs().amax((1, 2)).min() > 0.1
    many = bar_noise((64, 16), 0, 0, range(40), 0)
    assert float(many.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(many.std()) == pytest.approx(1.0, abs=0.02)


# ---------------------------------------------------------------- in-painting


@settings(deadline=None, max_examples=12)
@given(
    mask=st.lists(st.booleans(), min_size=1, max_size=9), lag=st.integers(0, 3),
    causal=st.booleans(), start_t=st.floats(0.1, 1.0), half=st.booleans(),
)  # fmt: skip
def test_kept_bars_come_back_bit_for_bit(
    dynamics: Dynamics, mask: list[bool], lag: int, causal: bool, start_t: float, half: bool
) -> None:
    given_song, mask_B = song(len(mask)), torch.tensor(mask)
    z_BLD = given_song.pop("z_BLD")
    z_BLD = z_BLD.half() if half else z_BLD
    before = z_BLD.clone()
    out = inpaint(
        dynamics, z_BLD, mask_B, **given_song, start_t=start_t,
        sampling=Sampling(steps=2, lag=lag, causal=causal),
    )  # fmt: skip
    assert out.dtype == z_BLD.dtype
    assert torch.equal(out[~mask_B], before[~mask_B])
    assert torch.equal(z_BLD, before)
    assert out.isfinite().all()
    if mask_B.any():
        assert (out[mask_B] != before[mask_B]).flatten(1).any(1).all()


HOW = {
    "plain": {}, "pyramid": {"sampling": Sampling(steps=3, lag=1)},
    "causal": {"sampling": Sampling(steps=3, causal=True)},
    "midpoint": {"sampling": Sampling(steps=2, solver="midpoint")},
    "cfg": {"guidance": Guidance(scale=2.0, rescale=0.7)},
    "icg": {"guidance": Guidance(scale=2.0, kind="icg", candidates_NA=noise(7, ACTION, seed=8))},
}  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_a_take_is_the_same_whatever_is_made_beside_it(dynamics: Dynamics, how: str) -> None:
    given_song, mask_B = song(8), mask_of(8, 1, 2, 6)
    takes = [
        inpaint(dynamics, **given_song, mask_B=mask_B, seed=4, take=k, **HOW[how]) for k in range(3)
    ]
    alone = inpaint(dynamics, **given_song, mask_B=mask_B, seed=4, take=2, **HOW[how])
    assert torch.equal(takes[2], alone)
    other_seed = inpaint(dynamics, **given_song, mask_B=mask_B, seed=5, take=2, **HOW[how])
    for one, other in ((takes[0], takes[1]), (takes[1], takes[2]), (alone, other_seed)):
        assert (one - other)[mask_B].abs().amax((1, 2)).min() > 1e-3


def test_noise_goes_with_the_bar_of_the_song(dynamics: Dynamics) -> None:
    """Nothing but context: far from it a bar is what its noise makes of it."""
    alone = {k: v[3:4] for k, v in song(8).items()}
    one = inpaint(dynamics, **alone, mask_B=mask_of(1, 0), first_bar=3)
    other = inpaint(dynamics, **alone, mask_B=mask_of(1, 0), first_bar=4)
    assert torch.equal(one, inpaint(dynamics, **alone, mask_B=mask_of(1, 0), first_bar=3))
    assert (one - other).abs().max() > 1e-3


def test_a_start_near_the_source_stays_near_it(dynamics: Dynamics) -> None:
    given_song, mask_B = song(4), mask_of(4, 1, 2)
    assert torch.equal(
        inpaint(dynamics, **given_song, mask_B=mask_B, start_t=0.0), given_song["z_BLD"]
    )

    def distance(start_t: float) -> float:
        out = inpaint(dynamics, **given_song, mask_B=mask_B, start_t=start_t)
        return float((out - given_song["z_BLD"])[mask_B].square().mean())

    near = [distance(t) for t in (0.02, 0.2, 1.0)]
    assert near[0] < 0.05
    assert near == sorted(near)


def test_the_average_bar_of_the_song_is_shown_with_and_without_guidance(
    dynamics: Dynamics,
) -> None:
    given_song, mask_B = song(7), mask_of(7, 2, 6)
    usual_LD = noise(TOKENS, DIMS, seed=8)
    for guidance in (None, Guidance(scale=2.0)):
        plain, told, like_all = (
            inpaint(dynamics, **given_song, mask_B=mask_B, guidance=guidance, usual_LD=usual)
            for usual in (None, usual_LD, dynamics.network.mean_D.expand(TOKENS, DIMS))
        )
        assert torch.equal(plain, like_all)
        assert ((told - plain).abs().amax((1, 2)) > 1e-4).tolist() == mask_B.tolist()


def test_guidance_of_1_is_none_and_goes_on_in_a_line(dynamics: Dynamics) -> None:
    given_song, mask_B = song(4), mask_of(4, 1, 2)
    plain = inpaint(dynamics, **given_song, mask_B=mask_B)
    for kind in ("cfg", "icg"):
        off = Guidance(scale=1.0, kind=kind)
        assert torch.equal(inpaint(dynamics, **given_song, mask_B=mask_B, guidance=off), plain)
    # the long way round, through two estimates, comes to the same
    near = Guidance(scale=1.0 + 1e-6)
    torch.testing.assert_close(
        inpaint(dynamics, **given_song, mask_B=mask_B, guidance=near), plain, atol=1e-4, rtol=1e-4
    )
    one, other = noise(1, 3, TOKENS, DIMS), noise(1, 3, TOKENS, DIMS, seed=1)
    torch.testing.assert_close(guided(one, other, Guidance(scale=3.0)), other + 3 * (one - other))
    assert torch.equal(guided(one, other, Guidance(scale=0.0)), other)


def test_guidance_away_from_nothing_is_that_of_nothing_known(dynamics: Dynamics) -> None:
    """Scale 0 is the other estimate alone: the conditions make no difference then."""
    given_song, mask_B = song(4), mask_of(4, 1, 2)
    nothing = Guidance(scale=0.0)
    out = inpaint(dynamics, **given_song, mask_B=mask_B, guidance=nothing)
    other = {**given_song, "action_BA": noise(4, ACTION, seed=77), "bpm_B": torch.full((4,), 60.0)}
    torch.testing.assert_close(inpaint(dynamics, **other, mask_B=mask_B, guidance=nothing), out)


def test_rescaling_gives_the_spread_back() -> None:
    one, other = noise(2, 3, TOKENS, DIMS), noise(2, 3, TOKENS, DIMS, seed=1)
    full = guided(one, other, Guidance(scale=4.0, rescale=1.0))
    torch.testing.assert_close(full.flatten(2).std(-1), one.flatten(2).std(-1))
    plain, half = (guided(one, other, Guidance(scale=4.0, rescale=r)) for r in (0.0, 0.5))
    torch.testing.assert_close(half, 0.5 * full + 0.5 * plain)


def test_other_actions_are_others_and_only_of_written_bars() -> None:
    candidates = noise(5, ACTION)
    actions = torch.stack([candidates[i] for i in (0, 1, 2, 3)])[None]
    known = torch.tensor([[True, True, False, False]])
    given_to = Condition(torch.full((1, 4), 90.0), actions, known, known)
    how = Guidance(scale=2.0, kind="icg", candidates_NA=candidates)
    others = OtherConditions(how, given_to, [False, True, True, False], (1, 0, 2, 10))
    again = OtherConditions(how, given_to, [False, True, True, False], (1, 0, 2, 10))
    picked: set[int] = set()
    for _ in range(40):
        other = others.next()
        assert torch.equal(other.action_SBA, again.next().action_SBA)
        assert torch.equal(other.action_SBA[0, [0, 3]], actions[0, [0, 3]])
        assert other.knows_action_SB.tolist() == [[True, True, True, False]]
        (index,) = (candidates == other.action_SBA[0, 1]).all(1).nonzero()[0].tolist()
        picked.add(index)
    assert picked == {0, 2, 3, 4}  # never its own
    shifted = OtherConditions(how, given_to, [True, False, False, False], (1, 0, 2, 11))
    first = OtherConditions(how, given_to, [False, True, False, False], (1, 0, 2, 10))
    assert shifted._generators[0].initial_seed() == first._generators[1].initial_seed()


# ---------------------------------------------------------------- longer than the trained length


def test_a_long_song_is_written_window_by_window(dynamics: Dynamics) -> None:
    bars = 4 * WINDOW + 1
    given_song, mask_B = song(bars), mask_of(bars, *range(1, bars, 2), 6, 12)
    seen: list[int] = []
    real = Dynamics.clean

    def watched(self: Dynamics, x: Tensor, *rest: Any) -> Tensor:
        seen.append(x.shape[1])
        return real(self, x, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dynamics, "clean", watched)
        out = inpaint(dynamics, **given_song, mask_B=mask_B, sampling=Sampling(steps=1))
    assert set(seen) == {WINDOW}
    assert torch.equal(out[~mask_B], given_song["z_BLD"][~mask_B])
    assert (out != given_song["z_BLD"])[mask_B].flatten(1).any(1).all()


def test_going_on_bar_by_bar(dynamics: Dynamics) -> None:
    there, bars = 3, 2 * WINDOW + 4
    given_song = song(bars)
    z_BLD = given_song.pop("z_BLD")[:there]
    out = autoregress(dynamics, z_BLD, **given_song, steps=2)
    assert out.shape == (bars, TOKENS, DIMS)
    assert torch.equal(out[:there], z_BLD)
    assert out.isfinite().all()
    shorter = {name: x[: WINDOW - 1] for name, x in given_song.items()}
    # what comes later changes nothing, bit for bit but for the shapes that are computed
    begun = autoregress(dynamics, z_BLD, **shorter, steps=2)
    torch.testing.assert_close(begun, out[: WINDOW - 1], atol=1e-5, rtol=1e-4)
    from_nothing = autoregress(dynamics, z_BLD[:0], **shorter, steps=2)
    assert from_nothing.abs().amax((1, 2)).min() > 0
    pyramid = autoregress(dynamics, z_BLD, **shorter, steps=2, lag=1)
    assert (pyramid - begun)[there:].abs().max() > 1e-3
    with pytest.raises(UsageError, match="only 2 actions"):
        autoregress(dynamics, z_BLD, given_song["bpm_B"][:2], given_song["action_BA"][:2])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z_BLD": torch.zeros(4, TOKENS, DIMS + 1)}, "take the tokenizer"),
        ({"action_BA": torch.zeros(4, ACTION - 1)}, "take the action model"),
        ({"bpm_B": torch.zeros(3)}, "4 numbers each"),
        ({"mask_B": torch.zeros(4)}, "must be bool"),
        ({"start_t": 1.5}, "0 to 1"),
        ({"sampling": Sampling(steps=0)}, "1 step or more"),
    ],
)
def test_what_does_not_fit_is_refused(
    dynamics: Dynamics, changed: dict[str, Any], message: str
) -> None:
    whole: dict[str, Any] = {**song(4), "mask_B": mask_of(4, 1)}
    with pytest.raises(UsageError, match=message):
        inpaint(dynamics, **{**whole, **changed})


@pytest.mark.parametrize(
    "bad",
    [{"kind": "magic"}, {"scale": -1.0}, {"scale": math.nan}, {"rescale": 2.0},
     {"kind": "icg", "scale": 2.0}],
)  # fmt: skip
def test_guidance_that_makes_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Guidance(**bad)
    assert replace(Guidance(), scale=2.0).on


def test_unknown_tempo_and_actions_are_taken(dynamics: Dynamics) -> None:
    given_song, mask_B = song(4), mask_of(4, 1)
    unknown = {**given_song, "bpm_B": torch.full((4,), math.nan)}
    nothing_B = torch.zeros(4, dtype=torch.bool)
    out = inpaint(dynamics, **unknown, mask_B=mask_B, known_B=nothing_B)
    same = {**unknown, "action_BA": noise(4, ACTION, seed=50)}
    assert torch.equal(inpaint(dynamics, **same, mask_B=mask_B, known_B=nothing_B), out)
    assert out.isfinite().all()


def test_bars_that_are_not_seen_have_no_say() -> None:
    dynamics = Dynamics(tiny(bars=4), bf16=False)
    bars, sampling = 14, Sampling(steps=2)
    mask_B = torch.zeros(bars, dtype=torch.bool)
    mask_B[[2, 3, 9]] = True
    seen_B = bars_seen(dynamics, mask_B, sampling)
    assert seen_B[mask_B].all()
    assert 0 < (~seen_B).sum() < bars - 3
    z_BLD, bpm_B = noise(bars, TOKENS, DIMS), 100.0 + 10.0 * noise(bars)
    action_BA = noise(bars, ACTION, seed=3)

    def written(seen: bool) -> Tensor:
        where_B = seen_B if seen else ~seen_B
        there_B = where_B & ~mask_B
        other = [torch.where(there_B.view(-1, *[1] * (x.ndim - 1)), x + 1.0, x)
                 for x in (z_BLD, bpm_B, action_BA)]  # fmt: skip
        return inpaint(dynamics, other[0], mask_B, other[1], other[2], sampling=sampling)[mask_B]

    plain = inpaint(dynamics, z_BLD, mask_B, bpm_B, action_BA, sampling=sampling)[mask_B]
    assert torch.equal(written(seen=False), plain)
    assert not torch.allclose(written(seen=True), plain)


def test_bf16_is_near_f32_and_an_answer_in_float32() -> None:
    x_SBLD, t_SB = noise(1, 4, TOKENS, DIMS), torch.full((1, 4), 0.7)
    told = Condition(torch.full((1, 4), 110.0), noise(1, 4, ACTION), *[torch.ones(1, 4).bool()] * 2)
    exact, quick = (Dynamics(tiny(), bf16=bf16).clean(x_SBLD, t_SB, told) for bf16 in (False, True))
    assert quick.dtype == exact.dtype == torch.float32
    error = (quick - exact).square().mean() / exact.square().mean()
    assert 0.0 < error < 0.03**2
