"""Walls beside the player and bombs between notes: never in the way of a swing or of the head.

Walls stand only in an outer column, one wide, so that nobody has to dodge one; they mark the
beginnings of sections and frame calm stretches. Bombs lie only in the outer columns, where they
leave the wrist's side alone, and at a distance from every note.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, Bomb, Note, TimeMap, Wall
from mgen.core.beatmap.hands import Bars

FULL_HEIGHT = 5
_WALL_CLEAR_S = 0.2
_MIN_WALL_BEATS, _MAX_WALL_BEATS = 1.0, 4.0
_WALL_SHARE = 0.4
_BOMB_CLEAR_S = 0.3
_BOMB_GAP_S = 0.9
_BOMB_SHARE = 0.5


def make_walls(
    notes: Sequence[Note],
    clock: TimeMap,
    bars: Bars,
    sections: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Wall, ...]:
    """Walls for a finished set of notes.

    Parameters
    ----------
    notes
        In order of beats.
    clock
        Seconds of beats.
    bars, sections
        The bars, and the section of each.
    rng
        Chooses among the places that are free.
    """
    if not notes:
        return ()
    busy = {
        column: [clock.to_seconds(n.beat) for n in notes if n.column == column] for column in (0, 3)
    }
    beats = [n.beat for n in notes]
    walls: list[Wall] = []
    side = int(rng.integers(2))
    usual = len(notes) * bars.length / max((beats[-1] - beats[0]) * SLOTS_PER_BEAT, 1.0)
    for bar in range(len(sections)):
        start = (bars.origin + bar * bars.length) / SLOTS_PER_BEAT
        end = start + bars.length / SLOTS_PER_BEAT
        if end <= beats[0] or start >= beats[-1]:
            continue
        opens = bar > 0 and sections[bar] != sections[bar - 1]
        count = bisect.bisect_left(beats, end) - bisect.bisect_left(beats, start)
        calm = count < 0.75 * usual
        if not opens and rng.random() > _WALL_SHARE * (1.5 if calm else 0.7):
            continue
        for column in (0, 3) if opens else ((0, 3)[side],):
            free = _longest_free(start, end, busy[column], clock)
            if free is not None:
                walls.append(Wall(free[0], free[1] - free[0], column, 0, 1, FULL_HEIGHT))
                side = 1 - side
    return tuple(sorted(walls))


def _longest_free(
    start: float, end: float, busy_s: Sequence[float], clock: TimeMap
) -> tuple[float, float] | None:
    """Longest run of half beats in a bar that keeps clear of all notes of a column."""
    best: tuple[float, float] | None = None
    run_start: float | None = None
    steps = int((end - start) * 2)
    for k in range(steps + 1):
        beat = start + k / 2
        if run_start is None:
            run_start = beat
        low = bisect.bisect_left(busy_s, clock.to_seconds(run_start) - _WALL_CLEAR_S)
        high = bisect.bisect_right(busy_s, clock.to_seconds(beat) + _WALL_CLEAR_S)
        if high > low:  # a note comes too near: the run ends half a beat ago
            run_start = None
            continue
        length = min(beat - run_start, _MAX_WALL_BEATS)
        if length >= _MIN_WALL_BEATS and (best is None or length > best[1] - best[0]):
            best = (run_start, run_start + length)
    return best


def make_bombs(
    notes: Sequence[Note], walls: Sequence[Wall], clock: TimeMap, rng: np.random.Generator
) -> tuple[Bomb, ...]:
    """Bombs in the rests between notes, both hands having begun.

    Parameters
    ----------
    notes
        In order of beats.
    walls
        Where bombs would hang inside a wall they are left out.
    clock
        Seconds of beats.
    rng
        Chooses among the rests.
    """
    begun = max(
        (min((n.beat for n in notes if n.colour == c), default=0.0) for c in (0, 1)), default=0.0
    )
    beats = sorted({n.beat for n in notes})
    bombs: list[Bomb] = []
    for before, after in itertools.pairwise(beats):
        if before < begun or clock.to_seconds(after) - clock.to_seconds(before) < _BOMB_GAP_S:
            continue
        if rng.random() > _BOMB_SHARE:
            continue
        beat = round((before + after) / 2 * 2) / 2
        clear = min(
            clock.to_seconds(beat) - clock.to_seconds(before),
            clock.to_seconds(after) - clock.to_seconds(beat),
        )
        if clear < _BOMB_CLEAR_S:
            continue
        row = int(rng.integers(3))
        for column in (0, 3):
            walled = any(
                w.column <= column < w.column + w.width and w.beat <= beat <= w.beat + w.duration
                for w in walls
            )
            if not walled:
                bombs.append(Bomb(beat, column, row))
    return tuple(bombs)
