"""How dense a chart should be: targets for gaps between onsets, grid shares and doubles.

The figures are those of modern human maps (31 files, 2020 on), pooled per difficulty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, Difficulty
from mgen.core.beatmap.histograms import human_histogram, human_limit, jensen_shannon
from mgen.core.beatmap.tokens import nps_range

FloatArray = npt.NDArray[np.float64]

GAP_BINS = (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Gaps in beats that the human histograms are binned to; the last stands for all past 4.2."""
LONG_GAP_SLOTS = 202
"""The shortest gap of the last bin."""


@dataclass(frozen=True, slots=True)
class Style:
    """What sets a difficulty apart, in time.

    `min_gap_s`, `min_gap_beats`: between onsets. `hand_gap_s`, `hand_gap_beats`: between notes of
    one hand. `doubles`: usual share of onsets with both hands, `most_doubles` what a slow song may
    have instead of faster notes. `main_share`: least share of notes on
    whole and half beats. `off_beats`: share of onsets on 1/1, 1/2, 1/4, and finer or triplets.
    """

    min_gap_s: float
    min_gap_beats: float
    hand_gap_s: float
    hand_gap_beats: float
    doubles: float
    most_doubles: float
    main_share: float
    off_beats: tuple[float, float, float, float]


STYLES = {
    Difficulty.EASY: Style(0.26, 0.5, 0.52, 1.0, 0.17, 0.21, 0.993, (0.76, 0.236, 0.003, 0.001)),
    Difficulty.NORMAL: Style(0.132, 0.5, 0.26, 0.75, 0.17, 0.21, 0.98, (0.656, 0.33, 0.012, 0.002)),
    Difficulty.HARD: Style(0.13, 0.25, 0.16, 0.5, 0.19, 0.25, 0.955, (0.642, 0.33, 0.025, 0.003)),
    Difficulty.EXPERT: Style(0.09, 0.125, 0.15, 0.25, 0.22, 0.3, 0.84, (0.515, 0.36, 0.1, 0.025)),
    Difficulty.EXPERT_PLUS: Style(
        0.07, 0.125, 0.13, 0.25, 0.24, 0.34, 0.8, (0.494, 0.34, 0.14, 0.03)
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Densities that a chart is steered to.

    `gaps` is the share of each of `GAP_BINS`, `grid` that of whole, half, quarter and other beats,
    `doubles` that of onsets with both hands; `nps` the
    notes per second that they give, `least_nps` what the chart should not fall below.
    `human` are the untilted shares, `limit` the divergence from them that is still human;
    `firm`: the density was asked for by name and goes before both.
    """

    style: Style
    gaps: FloatArray
    grid: FloatArray
    doubles: float
    nps: float
    least_nps: float
    human: FloatArray
    limit: float
    firm: bool


@cache
def gap_bin_of_slots() -> npt.NDArray[np.int64]:
    """Bin of every gap from 0 to `LONG_GAP_SLOTS` slots, nearest first (shape 203)."""
    gaps = np.arange(LONG_GAP_SLOTS + 1) / SLOTS_PER_BEAT
    bins = np.abs(gaps[:, None] - np.array(GAP_BINS[:-1])[None]).argmin(axis=1)
    bins[LONG_GAP_SLOTS] = len(GAP_BINS) - 1
    return bins


@cache
def human_gaps(difficulty: Difficulty) -> FloatArray:
    """Share of each of `GAP_BINS` in modern human maps."""
    table = human_histogram(difficulty, "gap_beats")
    shares = np.zeros(len(GAP_BINS))
    for key, share in table.items():
        at = len(GAP_BINS) - 1 if key == ">4" else int(
            np.abs(np.array(GAP_BINS[:-1]) - float(key)).argmin()
        )  # fmt: skip
        shares[at] += share
    return shares / shares.sum()


def choose_target(difficulty: Difficulty, bpm: float, wanted_nps: float, firm: bool) -> Target:
    """Tilt the human gaps towards a density, as far as they stay human.

    Gaps are weighted by exp(-t * gap): the least change of the histogram for a given mean.

    Parameters
    ----------
    difficulty
        Whose human gaps.
    bpm
        Tempo in the middle of the song.
    wanted_nps
        Notes per second to aim at.
    firm
        Whether the density was asked for by name: it then goes before the histogram. Else only
        the limits of the difficulty's range do.
    """
    style = STYLES[difficulty]
    human = shares = human_gaps(difficulty)
    allowed = np.array(GAP_BINS) * 60.0 / bpm >= style.min_gap_s * 0.98
    shares = np.where(allowed, shares, 0.0)
    shares = shares / shares.sum()
    low, _, high = nps_range(difficulty)
    limit = human_limit(difficulty, "gap_beats")
    # Hard maps are the most alike: little of their range is left for the density.
    slack = 0.5 if difficulty is Difficulty.HARD else 0.65
    lengths = np.array(GAP_BINS)
    best = (shares, style.doubles, 0.0)
    best_cost = np.inf
    for doubles in (style.doubles, 0.5 * (style.doubles + style.most_doubles), style.most_doubles):
        for tilt in np.linspace(-2.5, 7.0, 96):
            q = shares * np.exp(-tilt * lengths)
            q /= q.sum()
            nps = (1.0 + doubles) * bpm / 60.0 / float(q @ lengths)
            cost = abs(np.log(nps / wanted_nps)) + 1.5 * (doubles - style.doubles)
            if not firm:
                outside = max(0.0, np.log(1.08 * low / nps), np.log(nps / (0.9 * high)))
                cost += 60.0 * outside + 25.0 * max(0.0, jensen_shannon(q, human) - slack * limit)
            if cost < best_cost:
                best, best_cost = (q, doubles, nps), cost
    q, doubles, nps = best
    least = min(nps, 1.08 * low)
    return Target(style, q, _grid(style, q, shares), doubles, nps, least, human, limit, firm)


def _grid(style: Style, gaps: FloatArray, human: FloatArray) -> FloatArray:
    """Shares of the grid that go with tilted gaps: more short gaps need more quarter beats."""
    quarter = GAP_BINS.index(0.25)
    grid = np.array(style.off_beats)
    finer = grid[2] * np.sqrt((gaps[quarter] + 0.01) / (human[quarter] + 0.01))
    grid[2] = min(finer, max(1.0 - style.main_share - grid[3], grid[2]))
    grid[:2] *= (1.0 - grid[2:].sum()) / grid[:2].sum()
    return grid
