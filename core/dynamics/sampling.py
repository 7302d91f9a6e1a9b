"""Writing bars: in-painting, both directions at once, or one after the other, by schedule alone.

Bars that are kept, and bars that are written, are shown to the network with a little noise: what
it gets then is as imperfect as what it learned from, and errors do not add up from window to
window (Chen et al., Diffusion Forcing, NeurIPS 2024, section 4.2).

All randomness is that of (seed, take, bar): a take is the same whatever else is made beside it.

Letters: B bars, L tokens of a bar, D dims of a token, A numbers of an action, S = 1 sequence (or
two, with guidance), K rows of a schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mgen.core.dynamics.guidance import Guidance, OtherConditions, guided
from mgen.core.dynamics.model import Dynamics
from mgen.core.dynamics.network import Condition
from mgen.core.dynamics.schedules import Window, staircase, windows
from mgen.core.errors import UsageError
from mgen.core.flow import Solver
from mgen.core.train_loop.draws import mixed_seed

_START, _CONTEXT, _OTHER = 0, 1, 2
"""What a bar's noise is for: its beginning, what it is shown with, other actions."""

Estimate = Callable[[Tensor, Tensor], Tensor]
"""(x_SBLD, t_SB) -> clean bars, in the space of the flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How bars are written.

    Attributes
    ----------
    steps
        Steps of each bar.
    solver
        Euler, or the midpoint rule, which asks the network twice a step.
    lag
        Steps by which each bar begins after the one before it: 0 writes all at once, `steps` one
        after the other.
    causal
        Whether no bar sees a later one.
    shift
        Above 1, steps are smaller where there is most noise (`schedules.staircase`).
    """

    steps: int = 16
    solver: Solver = "euler"
    lag: int = 0
    causal: bool = False
    shift: float = 1.0

    def levels(self, mask: list[bool], start_t: float) -> Tensor:
        """Noise levels of bars after each step (K, B)."""
        return staircase(mask, self.steps, self.lag, start_t, self.shift)


def bar_noise(shape: tuple[int, ...], seed: int, take: int, bars: range, use: int) -> Tensor:
    """Standard normal (B, *shape): of each bar its own, by seed, take and number alone."""
    return torch.stack(
        [
            torch.randn(
                shape, generator=torch.Generator().manual_seed(mixed_seed(seed, take, use, bar))
            )
            for bar in bars
        ]
    )


def denoise(
    estimate: Estimate, x_SBLD: Tensor, levels_KB: Tensor, context_BLD: Tensor, context_t: float,
    solver: Solver = "euler",
) -> Tensor:  # fmt: skip
    """Follow a schedule of noise levels; bars whose level does not change stay as they are.

    Parameters
    ----------
    estimate
        Tells the clean bars from noisy ones and their levels.
    x_SBLD
        Bars at the levels of the schedule's first row.
    levels_KB
        Noise levels after each step; they fall or stay.
    context_BLD
        Noise that bars at level 0 are shown with.
    context_t
        Its share.
    solver
        Euler, or the midpoint rule.

    Returns
    -------
    Tensor
        Bars at the levels of the last row.
    """
    for now_B, later_B in itertools.pairwise(levels_KB):
        moving_B11 = (later_B < now_B)[:, None, None]
        half_B = 0.5 * (now_B + later_B)
        clean_SBLD = _seen(estimate, x_SBLD, now_B, context_BLD, context_t)
        if solver == "midpoint":
            between_SBLD = torch.where(moving_B11, _on_the_way(x_SBLD, clean_SBLD, now_B, half_B),
                                       x_SBLD)  # fmt: skip
            clean_SBLD = _seen(estimate, between_SBLD, half_B, context_BLD, context_t)
            # the velocity at the middle, for the whole step
            velocity = (between_SBLD - clean_SBLD) / _column(half_B.clamp(min=1e-6))
            moved_SBLD = x_SBLD + _column(later_B - now_B) * velocity
        else:
            moved_SBLD = _on_the_way(x_SBLD, clean_SBLD, now_B, later_B)
        x_SBLD = torch.where(moving_B11, moved_SBLD, x_SBLD)
    return x_SBLD


def _column(t_B: Tensor) -> Tensor:
    return t_B[:, None, None]


def _on_the_way(x_SBLD: Tensor, clean_SBLD: Tensor, now_B: Tensor, later_B: Tensor) -> Tensor:
    """Along the straight path to the estimate: what is left of the noise is later / now."""
    return clean_SBLD + _column(later_B / now_B.clamp(min=1e-6)) * (x_SBLD - clean_SBLD)


def _seen(
    estimate: Estimate, x_SBLD: Tensor, t_B: Tensor, context_BLD: Tensor, context_t: float
) -> Tensor:
    """The estimate of bars, those at level 0 shown with the context's noise."""
    done_B = t_B <= 0.0
    shown_SBLD = (1.0 - context_t) * x_SBLD + context_t * context_BLD
    shown_SBLD = torch.where(_column(done_B), shown_SBLD, x_SBLD)
    t_B = torch.where(done_B, context_t, t_B)
    return estimate(shown_SBLD, t_B.expand(len(x_SBLD), -1))


@torch.inference_mode()
def inpaint(
    dynamics: Dynamics,
    z_BLD: Tensor,
    mask_B: Tensor,
    bpm_B: Tensor,
    action_BA: Tensor,
    *,
    usual_LD: Tensor | None = None,
    known_B: Tensor | None = None,
    guidance: Guidance | None = None,
    sampling: Sampling | None = None,
    start_t: float = 1.0,
    seed: int = 0,
    take: int = 0,
    first_bar: int = 0,
) -> Tensor:
    """Write some bars of a stretch of a song; the others come back as they are, bit for bit.

    More bars than the model was trained on are written window by window.

    Parameters
    ----------
    dynamics
        The model.
    z_BLD
        Latents of consecutive bars of one song. Those of bars to write count where `start_t` is
        below 1.
    mask_B
        True where a bar is to be written.
    bpm_B
        Tempo of each bar; not a number where it is not known.
    action_BA
        Embedded action of each bar.
    usual_LD
        The average bar of the song, where it is known.
    known_B
        False where a bar's action is not known; all are by default.
    guidance, sampling
        How strongly actions are followed, and how bars are written.
    start_t
        Noise level that writing begins at: 1 forgets the source, 0 gives it back.
    seed, take
        Of the noise.
    first_bar
        Number of the first bar in its song: noise goes with bars, wherever a window begins.

    Returns
    -------
    Tensor
        (B, L, D), of the type of `z_BLD`, on its device.

    Raises
    ------
    UsageError
        If shapes or numbers make no sense.
    """
    sampling, guidance = sampling or Sampling(), guidance or Guidance()
    known_B = torch.ones_like(mask_B) if known_B is None else known_B
    _check(dynamics, z_BLD, mask_B, bpm_B, action_BA, known_B)
    mask, out_BLD = mask_B.tolist(), z_BLD.clone()
    sampling.levels(mask, start_t)  # refuses before anything is computed
    if start_t == 0.0:
        return out_BLD
    left = list(mask)
    for window in _plan(mask, dynamics.config.bars, sampling):
        part = slice(window.first, window.last)
        written_BLD = _write(
            dynamics, out_BLD[part], left[part], bpm_B[part], action_BA[part], known_B[part],
            usual_LD, guidance, sampling, start_t, (seed, take, first_bar + window.first),
        )  # fmt: skip
        for bar in range(window.first, window.until):
            if left[bar]:
                out_BLD[bar] = written_BLD[bar - window.first].to(out_BLD)
                left[bar] = False
    return out_BLD


def bars_seen(dynamics: Dynamics, mask_B: Tensor, sampling: Sampling | None = None) -> Tensor:
    """Which bars `inpaint` reads to write those of a mask, themselves among them: bool (B,)."""
    seen_B = torch.zeros_like(mask_B)
    for window in _plan(mask_B.tolist(), dynamics.config.bars, sampling or Sampling()):
        seen_B[window.first : window.last] = True
    return seen_B


def autoregress(
    dynamics: Dynamics,
    z_BLD: Tensor,
    bpm_B: Tensor,
    action_BA: Tensor,
    *,
    usual_LD: Tensor | None = None,
    known_B: Tensor | None = None,
    guidance: Guidance | None = None,
    steps: int = 16,
    solver: Solver = "euler",
    lag: int | None = None,
    seed: int = 0,
    take: int = 0,
    first_bar: int = 0,
) -> Tensor:
    """Go on after some bars, bar after bar, as long as actions are given.

    Parameters
    ----------
    dynamics, usual_LD, guidance, steps, solver, seed, take, first_bar
        As for `inpaint`.
    z_BLD
        Latents of the bars that are there; may be none.
    bpm_B, action_BA, known_B
        Of these bars and of all that are to be written.
    lag
        Steps by which each bar begins after the one before it; by default all of them. Fewer
        write a pyramid, in which a bar knows something of what follows.

    Returns
    -------
    Tensor
        All bars, those that were there as they were.
    """
    there, total = len(z_BLD), len(action_BA)
    if total < there:
        raise UsageError(f"{there} bars are there, but only {total} actions are given")
    more_BLD = z_BLD.new_zeros(total - there, *z_BLD.shape[1:])
    mask_B = torch.arange(total) >= there
    how = Sampling(
        steps=steps, solver=solver, lag=steps if lag is None else lag,
        causal=lag is None or lag >= steps,
    )  # fmt: skip
    return inpaint(
        dynamics, torch.cat([z_BLD, more_BLD]), mask_B, bpm_B, action_BA, usual_LD=usual_LD,
        known_B=known_B, guidance=guidance, sampling=how, seed=seed, take=take, first_bar=first_bar,
    )  # fmt: skip


def _plan(mask: list[bool], length: int, sampling: Sampling) -> list[Window]:
    """Bars one after the other see as much as there is before them: a window a bar costs no more.
    Bars together need room: a third of the window is context, and they know the quarter that
    follows, so that four bars are written at once in a window of twelve.
    """
    if sampling.lag >= sampling.steps:
        return windows(mask, length, context=length - 1, look_ahead=0)
    look_ahead = 0 if sampling.causal else length // 4
    return windows(mask, length, context=length // 3, look_ahead=look_ahead)


def _write(
    dynamics: Dynamics, z_BLD: Tensor, mask: list[bool], bpm_B: Tensor, action_BA: Tensor,
    known_B: Tensor, usual_LD: Tensor | None, guidance: Guidance, sampling: Sampling,
    start_t: float, key: tuple[int, int, int],
) -> Tensor:  # fmt: skip
    """One window: its bars, float32; key: seed, take, number of its first bar."""
    network, device = dynamics.network, dynamics.device
    seed, take, first = key
    bars, shape = range(first, first + len(z_BLD)), tuple(z_BLD.shape[1:])
    start_BLD = bar_noise(shape, seed, take, bars, _START).to(device)
    context_BLD = bar_noise(shape, seed, take, bars, _CONTEXT).to(device)
    levels_KB = sampling.levels(mask, start_t).to(device)
    x_BLD = network.to_flow(z_BLD.to(device))
    t_B11 = _column(levels_KB[0])
    x_BLD = (1.0 - t_B11) * x_BLD + t_B11 * start_BLD
    knows_bpm_B = torch.isfinite(bpm_B) & (bpm_B > 0)
    usual_LD = network.mean_D if usual_LD is None else usual_LD.to(device)
    condition = Condition(
        bpm_B[None].float().to(device), action_BA[None].float().to(device),
        knows_bpm_B[None].to(device), known_B[None].to(device),
        usual_LD.expand(1, *z_BLD.shape[1:]),
    )  # fmt: skip
    others = OtherConditions(guidance, condition, mask, (seed, take, _OTHER, first))

    def estimate(x_SBLD: Tensor, t_SB: Tensor) -> Tensor:
        if not guidance.on:
            return dynamics.clean(x_SBLD, t_SB, condition, sampling.causal)
        both = condition.and_then(others.next())
        x_SBLD, t_SB = x_SBLD.expand(2, -1, -1, -1), t_SB.expand(2, -1)
        clean_SBLD = dynamics.clean(x_SBLD, t_SB, both, sampling.causal)
        return guided(clean_SBLD[:1], clean_SBLD[1:], guidance)

    x_SBLD = denoise(
        estimate, x_BLD[None], levels_KB, context_BLD, dynamics.config.context_t, sampling.solver
    )
    return network.from_flow(x_SBLD[0])


def _check(
    dynamics: Dynamics, z_BLD: Tensor, mask_B: Tensor, bpm_B: Tensor, action_BA: Tensor,
    known_B: Tensor,
) -> None:  # fmt: skip
    c, n = dynamics.config, len(z_BLD)
    if z_BLD.shape != (n, c.tokens, c.dims):
        raise UsageError(
            f"latents {tuple(z_BLD.shape)} are not bars of {c.tokens} x {c.dims}, which this"
            " dynamics model writes; take the tokenizer that it was trained with"
        )
    if action_BA.shape != (n, c.action):
        raise UsageError(
            f"actions {tuple(action_BA.shape)} are not {n} of {c.action} numbers; take the action"
            " model that this dynamics model was trained with"
        )
    if not mask_B.shape == bpm_B.shape == known_B.shape == (n,):
        raise UsageError(f"mask, tempo and known of {n} bars must be {n} numbers each")
    if mask_B.dtype != torch.bool or known_B.dtype != torch.bool:
        raise UsageError("mask and known must be bool")
