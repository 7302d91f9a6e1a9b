"""Findings on one hand: parity, turns, sliders, speed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from mgen.core.beatmap import rules
from mgen.core.beatmap.chart import BLUE, DOT, DOWN_LEFT, DOWN_RIGHT, RED, UP, Note
from mgen.core.beatmap.findings.sheet import Finding, Sheet, hand_name
from mgen.core.beatmap.parity import Verdict
from mgen.core.beatmap.swings import CUT_ANGLE, Swing, effective_bpm, grid_distance, turn

WINDOW_DISTANCE = 1.8
MAX_DOUBLE_SHARE = 0.6
MIN_SWINGS_FOR_SHARE = 20
VARYING_S = 0.001
_SHRADO_FROM = {RED: DOWN_RIGHT, BLUE: DOWN_LEFT}


def check(sheet: Sheet) -> Iterator[Finding]:
    """All findings on single hands."""
    yield from _parity(sheet)
    for hand in sheet.judged:
        swings = [swing for swing, _ in hand]
        yield from _inline(sheet, hand)
        yield from _shrado(sheet, swings)
        yield from _sliders(sheet, swings)
        yield from _speed(sheet, swings)
    yield from _doubles(sheet)


def _parity(sheet: Sheet) -> Iterator[Finding]:
    for colour, hand in enumerate(sheet.judged):
        who, last_s = hand_name(colour), float("-inf")
        for swing, verdict in hand:
            if verdict.parity == "error":
                yield _reset(sheet, swing, who, swing.time_s - last_s)
            elif verdict.parity == "warning":
                text = f"the {who} wrist turns {abs(verdict.turn_deg)} degrees"
                yield sheet.finding("Parity warning", "warning", text, swing.beat)
            last_s = swing.end_s
            if swing.direction == DOT or verdict.from_deg is None:
                continue
            turned = turn(CUT_ANGLE[swing.direction], verdict.from_deg)
            if turned <= rules.DOUBLE_DIRECTIONAL_DEG:
                text = f"the {who} hand swings the same way twice"
                yield sheet.finding("Double-directional", "warning", text, swing.beat)


def _reset(sheet: Sheet, swing: Swing, who: str, rest_s: float) -> Finding:
    """A parity error; only a warning where Easy or Normal leaves the time to reset.

    Parity is a rule of the community for Hard and above: easy charts by people repeat the
    downward cut by design, with a pause.
    """
    if sheet.rules.may_reset and rest_s >= sheet.rules.reset_s - 1e-6:
        text = f"the {who} hand must reset before this swing, and has the time"
        return sheet.finding("Parity error", "warning", text, swing.beat)
    text = f"the {who} hand must reset before this swing"
    return sheet.finding("Parity error", "error", text, swing.beat)


def _inline(sheet: Sheet, hand: list[tuple[Swing, Verdict]]) -> Iterator[Finding]:
    times, start = sheet.note_times, 0
    for swing, verdict in hand:
        first = swing.notes[0]
        if first.direction == DOT or verdict.from_deg is None:
            continue
        if turn(CUT_ANGLE[first.direction], verdict.from_deg) > rules.INLINE_TURN_DEG:
            continue
        while times[start] < swing.time_s - rules.INLINE_S - 0.001:
            start += 1
        i = start
        while times[i] < swing.time_s:
            other = sheet.notes[i]
            if other.column == first.column and other.row == first.row:
                text = f"a sharp turn in the same cell after {swing.time_s - times[i]:.3f} s"
                yield sheet.finding("Inline sharp angle", "warning", text, swing.beat)
                break
            i += 1


def _shrado(sheet: Sheet, swings: list[Swing]) -> Iterator[Finding]:
    for last, swing in pairwise(swings):
        if last.direction != _SHRADO_FROM[swing.colour] or swing.notes[0].direction != UP:
            continue
        near = grid_distance(last.notes[-1], swing.notes[0]) < rules.SHRADO_DISTANCE
        if not near and swing.time_s - last.end_s <= rules.SHRADO_S + 1e-9:
            text = "an outward diagonal, then straight up"
            yield sheet.finding("shrado angle", "warning", text, swing.beat)


def slider_speeds(swing: Swing) -> tuple[float, float]:
    """Slowest and fastest pace through a swing's notes, in seconds per cell; zeros for one note.

    Where a slider has both a straight and a slanted leg, the first straight one counts for all.
    """
    paces, straight_pace, slanted = [], None, False
    for (a, b), (ta, tb) in zip(pairwise(swing.notes), pairwise(swing.times_s), strict=True):
        pace = (tb - ta) / (grid_distance(a, b) or 1.0)
        dx, dy = abs(a.column - b.column), abs(a.row - b.row)
        if 0 in (dx, dy) and straight_pace is None:
            straight_pace = pace
        slanted |= dx == dy or (_is_window(a, b) and 0 not in (dx, dy))
        paces.append(pace)
    if not paces:
        return 0.0, 0.0
    if straight_pace is not None and slanted:
        return straight_pace, straight_pace
    return max(paces), min(paces)


def _is_window(a: Note, b: Note) -> bool:
    return grid_distance(a, b) > WINDOW_DISTANCE


def _sliders(sheet: Sheet, swings: list[Swing]) -> Iterator[Finding]:
    for swing in swings:
        slow, fast = slider_speeds(swing)
        if slow > rules.SLIDER_S_PER_CELL + 1e-6:
            text = f"a slider of {slow * 1000:.0f} ms per cell"
            yield sheet.finding("Slow slider", "warning", text, swing.beat)
        if slow > 0 and slow - fast > VARYING_S:
            text = f"a slider between {fast * 1000:.0f} and {slow * 1000:.0f} ms per cell"
            yield sheet.finding("Varying swing speed", "warning", text, swing.beat)


def _speed(sheet: Sheet, swings: list[Swing]) -> Iterator[Finding]:
    limit, swing_limit = sheet.rules.max_ebpm, sheet.rules.max_swing_ebpm
    for last, swing in pairwise(swings):
        notes = effective_bpm(swing.time_s - last.end_s)
        starts = effective_bpm(swing.time_s - last.time_s)
        if notes > limit + 0.5 and not math.isinf(notes):
            text = f"{notes:.0f} effective BPM, more than {limit:.0f}"
            yield sheet.finding("Effective BPM", "warning", text, swing.beat)
        elif starts > swing_limit + 0.5 and not math.isinf(starts):
            text = f"{starts:.0f} effective BPM of swings, more than {swing_limit:.0f}"
            yield sheet.finding("Effective BPM (swing)", "warning", text, swing.beat)


def _doubles(sheet: Sheet) -> Iterator[Finding]:
    starts = [[swing.time_s for swing, _ in hand] for hand in sheet.judged]
    total = len(starts[0]) + len(starts[1])
    if not starts[0] or not starts[1] or total < MIN_SWINGS_FOR_SHARE:
        return
    i = j = doubled = 0
    while i < len(starts[0]) and j < len(starts[1]):
        dt = starts[0][i] - starts[1][j]
        if abs(dt) <= rules.SAME_TIME_S:
            doubled += 2
        i += dt <= rules.SAME_TIME_S
        j += dt >= -rules.SAME_TIME_S
    if doubled > MAX_DOUBLE_SHARE * total:
        text = f"{100 * doubled / total:.0f} % of the swings are doubles, more than 60"
        yield sheet.finding("Excessive double", "warning", text)
