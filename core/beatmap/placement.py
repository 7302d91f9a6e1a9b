"""When notes come: which of the heard events become onsets of a chart, and which of them doubles.

A chart's onsets are the best path through the candidates: each brings its salience, each gap
between two its weight, and the weights are adjusted until the gaps are spread as in human maps of
the difficulty (Viterbi decoding inside dual ascent on the histogram). Each difficulty chooses from
the onsets of the next harder one, so that all of them share one rhythm.

Shapes: E heard events, N candidates, O onsets of a chart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, TimeMap
from mgen.core.beatmap.density import (
    GAP_BINS,
    LONG_GAP_SLOTS,
    Style,
    Target,
    gap_bin_of_slots,
)  # fmt: skip
from mgen.core.beatmap.histograms import jensen_shannon

if TYPE_CHECKING:
    from mgen.core.beatmap.hearing import Heard

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FIRST_NOTE_S, LAST_NOTE_S = 2.0, 2.0
"""Quiet before the first note and after the last one, in seconds of the padded audio."""

_CLOSED = -1e9
_ROUNDS = 24
_REST_SLOTS = 4 * SLOTS_PER_BEAT
_QUIET = 0.25
"""Loudness of a beat (0..1 is -40..+6 dB of the song's own) under which nothing is filled in."""
_FILL_SALIENCE = -0.45
_FINE_FILL = 0.6
_MOST_FILL = 0.12
"""Share of fills that a steady stream may take, unless the chart would get too sparse."""
_GOOD = 0.02
"""Cost in bits at which there is nothing left to improve."""
_GAP_WEIGHT = 0.25
_GRID_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Candidates:
    """Times at which a note may come, in order.

    Attributes
    ----------
    slot_N, time_N
        1/48 beats and seconds of the chart (of the padded audio).
    salience_N
        How much the moment asks for a note, about 0 to 1.5; negative where nothing was heard.
    accent_N
        How much it stands out, 0 to 1.
    low_N, high_N
        Shares of the low and the high band, 0 to 1.
    heard_N
        False for fills: grid positions inside sound without an attack of their own.
    """

    slot_N: IntArray
    time_N: FloatArray
    salience_N: FloatArray
    accent_N: FloatArray
    low_N: FloatArray
    high_N: FloatArray
    heard_N: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.slot_N)

    def take(self, index: IntArray) -> Candidates:
        """Some of them, by index."""
        return Candidates(
            self.slot_N[index], self.time_N[index], self.salience_N[index], self.accent_N[index],
            self.low_N[index], self.high_N[index], self.heard_N[index],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Onsets:
    """The onsets of one chart: candidates, and which of them take both hands."""

    at: Candidates
    double_O: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.at)


def find_candidates(
    heard: Heard, clock: TimeMap, beats_per_bar: int, lead_beats: int, duration_s: float
) -> Candidates:
    """All moments at which any difficulty may have a note.

    Parameters
    ----------
    heard
        The events; slots count from the source's beat 0.
    clock
        Seconds of chart beats.
    beats_per_bar
        For the weight of downbeats.
    lead_beats, duration_s
        Padding, and the length of the padded audio.
    """
    slot_E = np.asarray(heard.slot_E, np.int64) + lead_beats * SLOTS_PER_BEAT
    loud_K = np.asarray(heard.loudness_K, np.float64)
    strength_E = np.asarray(heard.strength_E, np.float64)
    order = np.lexsort((-strength_E, slot_E))
    order = order[np.unique(slot_E[order], return_index=True)[1]]
    slot_E, strength_E = slot_E[order], strength_E[order]
    bands_E3 = np.stack(
        [np.asarray(b, np.float64)[order] for b in (heard.low_E, heard.mid_E, heard.high_E)], 1
    )
    salience_E, accent_E = _rate(slot_E, strength_E, bands_E3, beats_per_bar, lead_beats)
    fill = _fills(slot_E, loud_K, lead_beats)
    blank = np.zeros(len(fill))
    finer = 1.0 + _FINE_FILL * (fill % 24 != 0)
    slot_N = np.concatenate([slot_E, fill])
    salience_N = np.concatenate(
        [salience_E, _FILL_SALIENCE * finer + _metre(fill, beats_per_bar, lead_beats)]
    )
    accent_N = np.concatenate([accent_E, blank])
    low_N = np.concatenate([_ranks(bands_E3[:, 0]), blank + 0.5])
    high_N = np.concatenate([_ranks(bands_E3[:, 2]), blank + 0.5])
    heard_N = np.concatenate([np.ones(len(slot_E), bool), np.zeros(len(fill), bool)])
    time_N = np.array([clock.to_seconds(s / SLOTS_PER_BEAT) for s in slot_N.tolist()])
    inside = (time_N >= FIRST_NOTE_S) & (time_N <= duration_s - LAST_NOTE_S) & (slot_N >= 0)
    order = np.argsort(slot_N, kind="stable")
    everything = Candidates(slot_N, time_N, salience_N, accent_N, low_N, high_N, heard_N)
    return everything.take(order[inside[order]])


def _rate(
    slot_E: IntArray, strength_E: FloatArray, bands_E3: FloatArray, beats_per_bar: int, lead: int
) -> tuple[FloatArray, FloatArray]:
    """Salience and accent of the events, from their strength, bands and place in the bar."""
    if len(slot_E) == 0:
        return np.zeros(0), np.zeros(0)
    everywhere = _ranks(strength_E)
    near = np.empty(len(slot_E))
    reach = 8 * SLOTS_PER_BEAT
    left = np.searchsorted(slot_E, slot_E - reach)
    right = np.searchsorted(slot_E, slot_E + reach, "right")
    for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        near[i] = np.mean(strength_E[a:b] <= strength_E[i])
    metre = _metre(slot_E, beats_per_bar, lead)
    low, mid, high = (_ranks(bands_E3[:, k]) for k in range(3))
    kick, snare = low, 0.5 * (mid + high)
    salience = 0.45 * everywhere + 0.45 * near + metre + 0.1 * np.maximum(kick, snare)
    accent = 0.35 * everywhere + 0.2 * near + 0.25 * np.maximum(kick, snare) + 0.8 * metre
    return salience, _ranks(accent)


def _metre(slots: IntArray, beats_per_bar: int, lead: int) -> FloatArray:
    """Weight of the place in the bar: downbeat, beat, half, quarter, others."""
    inside = slots % SLOTS_PER_BEAT
    beat = (slots // SLOTS_PER_BEAT - lead) % max(beats_per_bar, 1)
    return np.select(
        [(inside == 0) & (beat == 0), inside == 0, inside == 24, inside % 12 == 0,
         inside % 16 == 0],
        [0.3, 0.2, 0.1, 0.0, -0.05], -0.2,
    )  # fmt: skip


def _ranks(values: FloatArray) -> FloatArray:
    """Rank of each value, 0 to 1; equal values share one."""
    if len(values) == 0:
        return np.zeros(0)
    ordered = np.sort(values)
    place = 0.5 * (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right"))
    return np.asarray(place / len(values), np.float64)


def _fills(slot_E: IntArray, loud_K: FloatArray, lead_beats: int) -> IntArray:
    """Half beats inside sound at which nothing begins, and quarters beside something that does."""
    if len(loud_K) == 0 or len(slot_E) == 0:
        return np.zeros(0, np.int64)
    sounding = np.flatnonzero(loud_K > _QUIET) + lead_beats
    grid = (sounding[:, None] * SLOTS_PER_BEAT + np.arange(0, SLOTS_PER_BEAT, 12)).ravel()
    near = np.searchsorted(slot_E, grid)
    gap = np.minimum(
        np.abs(grid - slot_E[np.maximum(near - 1, 0)]),
        np.abs(grid - slot_E[np.minimum(near, len(slot_E) - 1)]),
    )
    # A fill next to an event would be the event, mistimed.
    return np.sort(grid[(gap >= 6) & ((grid % 24 == 0) | (gap <= 12))])


def choose_onsets(candidates: Candidates, target: Target, rng: np.random.Generator) -> Onsets:
    """Choose the onsets of one chart, and its doubles.

    Parameters
    ----------
    candidates
        Where to choose from: all of them, or the onsets of the next harder chart.
    target
        What the gaps should be like.
    rng
        Breaks ties between equal songs; the same generator gives the same onsets.
    """
    style = target.style
    candidates = candidates.take(_allowed(candidates, style))
    if len(candidates) == 0:
        return Onsets(candidates, np.zeros(0, bool))
    salience_N = candidates.salience_N + 0.15 * rng.standard_normal(len(candidates))
    grid_N = _grid_class(candidates.slot_N)
    gap_b = np.log(np.maximum(target.gaps, 1e-4))
    grid_4 = np.zeros(4)
    # Beats with sound in them: a song's silences have no notes to miss.
    sounding = np.minimum(np.diff(candidates.slot_N), _REST_SLOTS).sum() / SLOTS_PER_BEAT
    wanted_mean = float(target.gaps @ np.array(GAP_BINS))
    reward = -_GAP_WEIGHT * float(target.gaps @ gap_b)
    less_fill = 0.0
    best: IntArray = np.zeros(0, np.int64)
    best_cost = np.inf
    for turn in range(_ROUNDS):
        value_N = salience_N + grid_4[grid_N] + reward - less_fill * ~candidates.heard_N
        path = _best_path(candidates, value_N, gap_b * _GAP_WEIGHT, style)
        gaps, shares = _gap_shares(candidates.slot_N[path]), _shares(grid_N[path], 4)
        sparse = float(np.log(max(sounding, 1.0) / max(len(path), 1) / wanted_mean))
        filled = max(0.0, float(np.mean(~candidates.heard_N[path])) - _MOST_FILL)
        length_s = float(np.ptp(candidates.time_N[path])) if len(path) > 1 else 1.0
        density = len(path) * (1.0 + target.doubles) / length_s
        if density > 1.12 * target.least_nps:
            less_fill += 1.5 * filled
        cost = 0.4 * filled + _cost(target, gaps, shares, density, sparse)
        room = _room_for_both(candidates.slot_N[path], candidates.time_N[path], style)
        cost += 1.5 * max(0.0, 1.2 * target.doubles - float(room.mean()))
        if cost < best_cost:
            best, best_cost = path, cost
        if best_cost < _GOOD:
            break
        speed = 1.6 / (1.0 + 0.35 * turn)
        gap_b += speed * np.clip(np.log((target.gaps + 0.01) / (gaps + 0.01)), -1.5, 1.5)
        grid_4 += _GRID_WEIGHT * np.clip(
            np.log((target.grid + 0.004) / (shares + 0.004)), -1.5, 1.5
        )  # fmt: skip
        grid_4[2:] -= 3.0 * max(0.0, style.main_share - float(shares[:2].sum()))
        reward += 0.35 * speed * float(np.clip(sparse, -1.0, 1.0))
    chosen = candidates.take(best)
    return Onsets(chosen, choose_doubles(chosen, style, target.doubles))


def _cost(
    target: Target, gaps: FloatArray, shares: FloatArray, density: float, sparse: float
) -> float:
    """How far a path is from its target: bits, and logs of densities weighed against them."""
    cost = jensen_shannon(gaps, target.gaps) + 0.3 * jensen_shannon(shares, target.grid)
    if target.firm:
        return cost + 1.5 * abs(float(np.log(density / target.nps)))
    cost += 0.12 * abs(sparse)
    cost += 12.0 * max(0.0, target.style.main_share - float(shares[:2].sum()))
    cost += 3.0 * max(0.0, jensen_shannon(gaps, target.human) - 0.9 * target.limit)
    return cost + 4.0 * max(0.0, float(np.log(max(target.least_nps, 0.01) / density)))


def choose_doubles(onsets: Candidates, style: Style, share: float) -> npt.NDArray[np.bool_]:
    """Give both hands to the strongest accents that leave both hands time on either side."""
    free = _room_for_both(onsets.slot_N, onsets.time_N, style)
    rating = np.where(free, onsets.accent_N, -1.0)
    wanted = round(share * len(onsets))
    double = np.zeros(len(onsets), bool)
    for i in np.argsort(-rating, kind="stable").tolist():
        if wanted <= 0 or rating[i] < 0:
            break
        # Three doubles in a row read as a hammering, not as an accent.
        run = double[max(i - 2, 0) : i + 3].sum()
        if run < 2:
            double[i] = True
            wanted -= 1
    return double


def _room_for_both(slots: IntArray, time_s: FloatArray, style: Style) -> npt.NDArray[np.bool_]:
    """Onsets at which both hands have time on either side."""
    room_s = max(style.hand_gap_s, style.min_gap_s)
    room = max(style.hand_gap_beats, 0.5) * SLOTS_PER_BEAT
    wide = (np.diff(time_s) >= room_s - 1e-6) & (np.diff(slots) >= room)
    return np.concatenate([[True], wide]) & np.concatenate([wide, [True]])


def _allowed(candidates: Candidates, style: Style) -> IntArray:
    """Candidates on the grid that a difficulty knows."""
    inside = candidates.slot_N % SLOTS_PER_BEAT
    on_grid = inside % 24 == 0
    if style.min_gap_beats < 0.5:
        on_grid |= (inside % 12 == 0) | (inside % 16 == 0)
    if style.min_gap_beats < 0.25:  # eighths and sixths; nobody reads anything finer
        on_grid |= (inside % 6 == 0) | (inside % 8 == 0)
    return np.flatnonzero(on_grid)


def _best_path(
    candidates: Candidates, value_N: FloatArray, weight_b: FloatArray, style: Style
) -> IntArray:
    """Indices of the candidates on the best path: most salience, gaps of most weight."""
    slots, times, count = candidates.slot_N, candidates.time_N, len(candidates)
    weights = weight_b[gap_bin_of_slots()]
    steps = np.arange(LONG_GAP_SLOTS + 1)
    weights = weights - 0.3 * (steps % 12 != 0) * (steps % 16 != 0)
    weights[steps < style.min_gap_beats * SLOTS_PER_BEAT] = _CLOSED
    first = np.searchsorted(slots, slots - LONG_GAP_SLOTS + 1)
    last = np.searchsorted(times, times - style.min_gap_s + 1e-6, "right")
    best = np.empty(count)
    back = np.full(count, -1)
    prefix_best, prefix_at = np.empty(count), np.empty(count, np.int64)
    long_weight = float(weights[LONG_GAP_SLOTS])
    for i in range(count):
        a, b = int(first[i]), int(min(last[i], i))
        top, origin = (0.0, -1) if a == 0 else (prefix_best[a - 1] + long_weight, prefix_at[a - 1])
        if b > a:
            scores = best[a:b] + weights[slots[i] - slots[a:b]]
            j = int(scores.argmax())
            if scores[j] > top or (origin == -1 and scores[j] > top - 2.0):
                top, origin = float(scores[j]), a + j
        best[i], back[i] = top + value_N[i], origin
        keep = i > 0 and prefix_best[i - 1] >= best[i]
        prefix_best[i] = prefix_best[i - 1] if keep else best[i]
        prefix_at[i] = prefix_at[i - 1] if keep else i
    path = []
    at = int(prefix_at[-1])
    while at >= 0:
        path.append(at)
        at = int(back[at])
    return np.array(path[::-1], np.int64)


def _gap_shares(slots: IntArray) -> FloatArray:
    gaps = np.minimum(np.diff(slots), LONG_GAP_SLOTS)
    return _shares(gap_bin_of_slots()[gaps], len(GAP_BINS))


def _grid_class(slots: IntArray) -> IntArray:
    """0 whole beats, 1 half, 2 quarter, 3 triplets and finer."""
    inside = slots % SLOTS_PER_BEAT
    return np.select([inside == 0, inside == 24, inside % 12 == 0], [0, 1, 2], 3).astype(np.int64)


def _shares(classes: IntArray, count: int) -> FloatArray:
    return np.bincount(classes, minlength=count) / max(len(classes), 1)


def notes_per_second(onsets: Onsets) -> float:
    """Density from the first to the last note."""
    if len(onsets) < 2:
        return 0.0
    return (len(onsets) + int(onsets.double_O.sum())) / float(np.ptp(onsets.at.time_N))
