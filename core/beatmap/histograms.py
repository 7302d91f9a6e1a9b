"""How a chart is distributed, against modern human charts of its difficulty.

The reference (`human_histograms.json`) pools 31 human files from 14 maps, each map with the same
weight, and holds the largest divergence that one of them has from the pool of the others: a chart
at or below it is inside the human range. Divergences are Jensen-Shannon, in bits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import Chart, Difficulty, Note
from mgen.core.beatmap.states import valid_note
from mgen.core.beatmap.swings import group_swings

METRICS = ("direction", "row", "colour_column", "gap_beats")
SAME_ONSET_BEATS = 1.0 / 64.0
LONG_GAP = ">4"
_LONG_GAP_BEATS = 4.2
_GAPS = (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1.0, 1.5, 2.0, 3.0, 4.0)
GRIDS = {"1/1": 1, "1/2": 2, "1/4": 4, "1/3": 3, "1/6": 6, "1/8": 8}
"""Grids in the order in which an onset is tried on them; what fits none is `other`."""
_GRID_TOLERANCE = 0.01

# Easy and Normal rest on three files each: their own maxima would be too tight.
_LOOSE_LIMITS = {"direction": 0.10, "row": 0.10, "colour_column": 0.05, "gap_beats": 0.15}
_LOOSE = (Difficulty.EASY, Difficulty.NORMAL)

Histogram = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RangeCheck:
    """One metric of a chart: its divergence in bits, the largest human one, and whether inside."""

    jsd: float
    limit: float
    inside: bool


@dataclass(frozen=True, slots=True)
class ChartFigures:
    """Plain figures of a chart.

    `nps` and `sps` are notes and swings per second between the first and the last note;
    `doubles` the share of onsets with both hands; `grid` the share of onsets by the coarsest grid
    they lie on; `distinct_states` counts (colour, column, row, direction);
    `unique_sequences` is the share of different ones among all runs of 4 notes; `red` the share
    of red notes.
    """

    notes: int
    nps: float
    sps: float
    doubles: float
    grid: Mapping[str, float]
    distinct_states: int
    unique_sequences: float
    red: float


@cache
def _reference() -> Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]:
    text = files("mgen.core.beatmap").joinpath("human_histograms.json").read_text("utf-8")
    difficulties: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
    difficulties = json.loads(text)["difficulties"]
    return difficulties


def human_histogram(difficulty: Difficulty, metric: str) -> Histogram:
    """Share of each class in human charts of a difficulty; `metric` is one of `METRICS`."""
    return _reference()[difficulty.value]["histograms"][metric]


def human_limit(difficulty: Difficulty, metric: str) -> float:
    """Largest divergence, in bits, that still is inside the human range."""
    if difficulty in _LOOSE:
        return _LOOSE_LIMITS[metric]
    return _reference()[difficulty.value]["leave_one_out_jsd"][metric]["max"]


def onsets(notes: Iterable[Note]) -> list[list[Note]]:
    """Notes grouped by onset: those within 1/64 beat of the first one of the group."""
    groups: list[list[Note]] = []
    for note in sorted(notes, key=lambda n: n.beat):
        if groups and note.beat - groups[-1][0].beat <= SAME_ONSET_BEATS:
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups


def gap_class(beats: float) -> str:
    """Name of the nearest class of gap, as the reference spells it (`0.5`, `1`, `>4`)."""
    if beats > _LONG_GAP_BEATS:
        return LONG_GAP
    nearest = min(_GAPS, key=lambda g: abs(g - beats))
    return f"{nearest:g}" if nearest * 8 == round(nearest * 8) else repr(nearest)


def histograms(notes: Sequence[Note]) -> dict[str, dict[str, float]]:
    """Shares per class of the four metrics; empty where there is nothing to count."""
    starts = [group[0].beat for group in onsets(notes)]
    counted = {
        "direction": Counter(str(n.direction) for n in notes),
        "row": Counter(str(n.row) for n in notes),
        "colour_column": Counter(f"{n.colour}{n.column}" for n in notes),
        "gap_beats": Counter(gap_class(b - a) for a, b in pairwise(starts)),
    }
    return {metric: _shares(counts) for metric, counts in counted.items()}


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {key: count / total for key, count in sorted(counts.items())}


def jensen_shannon(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms in bits, 0 (the same) to 1 (nothing shared).

    Both have one number per class, in the same order, and are scaled to a sum of 1; an empty one
    shares nothing with any other. J. Lin, "Divergence measures based on the Shannon entropy", 1991.
    """
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if a.sum() <= 0 or b.sum() <= 0:
        return 0.0 if a.sum() == b.sum() else 1.0
    a, b = a / a.sum(), b / b.sum()
    middle = (a + b) / 2.0
    bits = 0.0
    for shares in (a, b):
        there = shares > 0
        bits += 0.5 * float(np.sum(shares[there] * np.log2(shares[there] / middle[there])))
    return max(bits, 0.0)


def divergence(p: Histogram, q: Histogram) -> float:
    """`jensen_shannon` of two histograms given as shares by the name of the class."""
    names = sorted({*p, *q})
    return jensen_shannon([p.get(n, 0.0) for n in names], [q.get(n, 0.0) for n in names])


def inside_human_range(chart: Chart) -> dict[str, RangeCheck]:
    """Compare a chart with human charts of its difficulty, on the four `METRICS`."""
    checked = {}
    for metric, shares in histograms(chart.notes).items():
        jsd = divergence(shares, human_histogram(chart.difficulty, metric))
        limit = human_limit(chart.difficulty, metric)
        checked[metric] = RangeCheck(jsd, limit, jsd <= limit)
    return checked


def grid_of(beat: float) -> str:
    """The coarsest grid that a beat lies on, of `GRIDS`; else `other`."""
    for name, per_beat in GRIDS.items():
        off = beat * per_beat - round(beat * per_beat)
        if abs(off) / per_beat <= _GRID_TOLERANCE:
            return name
    return "other"


def figures(chart: Chart, bpm: float) -> ChartFigures:
    """Plain figures of a chart; `bpm` is the map's base tempo."""
    to_seconds = chart.time_map(bpm).to_seconds
    notes = sorted(chart.notes, key=lambda n: n.beat)
    count = len(notes)
    length = to_seconds(notes[-1].beat) - to_seconds(notes[0].beat) if notes else 0.0
    groups = onsets(notes)
    grid = Counter(grid_of(group[0].beat) for group in groups)
    states = [(n.colour, n.column, n.row, n.direction) for n in notes]
    runs = list(zip(states, states[1:], states[2:], states[3:], strict=False))
    swings = group_swings([n for n in notes if valid_note(n)], to_seconds)
    both = sum({0, 1} <= {n.colour for n in group} for group in groups)
    return ChartFigures(
        notes=count,
        nps=count / length if length > 0 else 0.0,
        sps=len(swings) / length if length > 0 else 0.0,
        doubles=both / len(groups) if groups else 0.0,
        grid={name: grid[name] / len(groups) if groups else 0.0 for name in (*GRIDS, "other")},
        distinct_states=len(set(states)),
        unique_sequences=len(set(runs)) / len(runs) if runs else 0.0,
        red=sum(n.colour == 0 for n in notes) / count if count else 0.0,
    )
