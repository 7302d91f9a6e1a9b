"""Notes grouped into swings: what one movement of one hand cuts.

The grouping is that of npm `bsmap` (MIT), which MapCheck and our reference checker count with: a
note more than 70 ms after the last one of its hand starts a new swing, and so does an arrow that
turns 90 degrees or more, or a note in a cell that the swing has already been through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mgen.core.beatmap.chart import (
    DOT,
    DOWN,
    DOWN_LEFT,
    DOWN_RIGHT,
    LEFT,
    RIGHT,
    UP,
    UP_LEFT,
    UP_RIGHT,
    Note,
)

SAME_SWING_S = 0.07
SAME_TIME_S = 0.005
TURN_DEG = 90.0

CUT_ANGLE = (180, 0, 270, 90, 225, 135, 315, 45, 0)
"""Degrees counter-clockwise from a downward cut, by direction; a dot counts as down."""

CUT_VECTOR = ((0, 1), (0, -1), (-1, 0), (1, 0), (-1, 1), (1, 1), (-1, -1), (1, -1), (0, 0))
"""Column and row step of each direction."""

OPPOSITE = (DOWN, UP, RIGHT, LEFT, DOWN_RIGHT, DOWN_LEFT, UP_RIGHT, UP_LEFT, DOT)


@dataclass(frozen=True, slots=True)
class Swing:
    """One movement of one hand.

    `times_s` are the seconds of `notes`; `direction` is the way the saber moves, `DOT` where
    nothing tells.
    """

    colour: int
    notes: tuple[Note, ...]
    times_s: tuple[float, ...]
    direction: int

    @property
    def beat(self) -> float:
        """Beat of the first note."""
        return self.notes[0].beat

    @property
    def time_s(self) -> float:
        """Second of the first note."""
        return self.times_s[0]

    @property
    def end_s(self) -> float:
        """Second of the last note."""
        return self.times_s[-1]


def turn(a_deg: float, b_deg: float) -> float:
    """Smallest angle between two directions given in degrees, 0 to 180."""
    difference = abs(a_deg - b_deg) % 360.0
    return min(difference, 360.0 - difference)


def note_angle(note: Note) -> float:
    """Cut angle of a note in degrees, its own extra angle included."""
    return CUT_ANGLE[note.direction] + note.angle if 0 <= note.direction <= DOT else 0.0


def grid_distance(a: Note, b: Note) -> float:
    """Distance between the cells of two notes, in cells."""
    return math.hypot(a.column - b.column, a.row - b.row)


def starts_new_swing(
    note: Note, time_s: float, swing_notes: Sequence[Note], last_time_s: float
) -> bool:
    """Whether `note` begins a swing of its own after the open swing of the same hand.

    Parameters
    ----------
    note, time_s
        The note that comes next, and its second.
    swing_notes, last_time_s
        The notes of the open swing in order (at least one), and the second of its last note.
    """
    if time_s - last_time_s > SAME_SWING_S:
        return True
    later = last_time_s + SAME_TIME_S < time_s
    for other in swing_notes:
        if other.column == note.column and other.row == note.row:
            return True
        if later and note.direction != DOT and other.direction != DOT:
            turned = turn(CUT_ANGLE[note.direction], CUT_ANGLE[other.direction])
            if turned >= TURN_DEG:
                return True
    return False


def swing_direction(notes: Sequence[Note]) -> int:
    """Direction in which a swing moves: its last arrow; for dots alone, the line they lie on.

    `bsmap` reads a direction from dots only where the line goes left, straight up or straight
    down; dots that run to the right stay `DOT`. Kept as it is, so that the verdicts agree.
    """
    direction = DOT
    previous: Note | None = None
    for note in notes:
        if note.direction != DOT:
            direction = note.direction
        elif direction == DOT and previous is not None and note.beat > previous.beat:
            direction = _direction_of_dots(previous, note)
        previous = note
    return direction


_BY_STEP = {
    (0, 1): UP, (0, -1): DOWN, (-1, 0): LEFT, (-1, 1): UP_LEFT, (-1, -1): DOWN_LEFT,
    (1, 0): DOT, (1, 1): DOT, (1, -1): DOT, (0, 0): DOT,
}  # fmt: skip


def _direction_of_dots(start: Note, end: Note) -> int:
    dx, dy = end.column - start.column, end.row - start.row
    return _BY_STEP[(dx > 0) - (dx < 0), (dy > 0) - (dy < 0)]


def group_swings(notes: Iterable[Note], to_seconds: Callable[[float], float]) -> list[Swing]:
    """Group the notes of a chart into swings, both hands, ordered by their first note.

    Parameters
    ----------
    notes
        In order of beats; the order within a beat is kept.
    to_seconds
        Second of a beat, as `TimeMap.to_seconds`.
    """
    swings: list[Swing] = []
    open_notes: dict[int, list[Note]] = {}
    open_times: dict[int, list[float]] = {}

    def close(colour: int) -> None:
        cut = tuple(open_notes[colour])
        swings.append(Swing(colour, cut, tuple(open_times[colour]), swing_direction(cut)))

    for note in notes:
        time_s = to_seconds(note.beat)
        held = open_notes.get(note.colour)
        if held is not None and starts_new_swing(note, time_s, held, open_times[note.colour][-1]):
            close(note.colour)
            held = None
        if held is None:
            open_notes[note.colour], open_times[note.colour] = [note], [time_s]
        else:
            held.append(note)
            open_times[note.colour].append(time_s)
    for colour in sorted(open_notes):
        close(colour)
    swings.sort(key=lambda s: (s.notes[0].beat, s.colour))
    return swings


def effective_bpm(gap_s: float) -> float:
    """Tempo at which swings this far apart would be a stream of half beats: 30 / gap."""
    return 30.0 / gap_s if gap_s > 0 else math.inf
