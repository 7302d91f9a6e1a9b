"""The parity automaton: forehand, backhand and wrist rotation of one hand, swing by swing.

A hand alternates between forehand (a downward cut) and backhand (an upward one). Each direction
costs a rotation of the wrist that depends on which of the two it is. A swing is an error where the
wrist would have to turn further than it can, so that the player must reset; then the same side
cuts again. The verdicts are those of npm `bsmap`'s `Parity(90, 45, 90)` (MIT), its quirks
included, because MapCheck and our reference checker decide with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from mgen.core.beatmap.chart import BLUE, DOT, DOWN, RED, UP, Bomb, Note
from mgen.core.beatmap.swings import CUT_ANGLE, Swing, group_swings, swing_direction

FOREHAND, BACKHAND = 0, 1
Level = Literal["none", "warning", "error"]

# Wrist rotation by hand, side and direction; 0 is the straight down (or up) cut.
_FOREHAND_RED = (180, 0, -90, 90, -135, 135, -45, 45)
_BACKHAND_RED = (0, 180, 90, -90, 45, -45, 135, -135)
_ROTATION = {
    RED: (_FOREHAND_RED, _BACKHAND_RED),
    BLUE: ((-180, *_FOREHAND_RED[1:]), (0, -180, *_BACKHAND_RED[2:])),
}
_REACH = {RED: (-155, 195), BLUE: (-195, 155)}
_ERROR_MARGIN, _WARNING_MARGIN, _ALLOWED_TURN = 45, 90, 90

_START_ROTATION = {RED: (0, 0, 90, 90, 45, -45, 45, -45), BLUE: (0, 0, -90, -90, -45, 45, -45, 45)}
# Directions that a hand opens on its forehand; all other arrows open on the backhand.
_FOREHAND_START = {RED: (1, 3, 6, 7), BLUE: (1, 2, 6, 7)}

MIDDLE_COLUMN = {RED: 1, BLUE: 2}
"""The column in which a bomb resets the hand."""
BOMB_TOLERANCE_BEATS = 0.001


@dataclass(frozen=True, slots=True)
class HandState:
    """Where a hand stands after its last swing.

    `parity` is the side of the last swing (`FOREHAND` or `BACKHAND`), None before the first;
    `rotation` is the wrist's in degrees. `notes`, `times_s` and `direction` describe the last
    swing, `angle_deg` its cut angle (a dot is taken to swing back; None where nothing tells).
    `came_from` is the state that it was judged from, so that a further note of the same swing can
    be judged again.
    """

    colour: int
    parity: int | None = None
    rotation: int = 0
    notes: tuple[Note, ...] = ()
    times_s: tuple[float, ...] = ()
    direction: int = DOT
    angle_deg: float | None = None
    came_from: HandState | None = None

    @property
    def time_s(self) -> float:
        """Second of the last swing's first note; minus infinity before the first swing."""
        return self.times_s[0] if self.times_s else float("-inf")

    @property
    def end_s(self) -> float:
        """Second of the last swing's last note; minus infinity before the first swing."""
        return self.times_s[-1] if self.times_s else float("-inf")

    @property
    def beat(self) -> float:
        """Beat of the last swing's first note; minus infinity before the first swing."""
        return self.notes[0].beat if self.notes else float("-inf")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a swing asks of the wrist.

    `parity` is the level, `side` the side it is cut with, `turn_deg` how far the wrist turned,
    `from_deg` the cut angle that the hand came from (None where nothing tells).
    """

    parity: Level
    side: int
    turn_deg: int = 0
    from_deg: float | None = None


@lru_cache(maxsize=4096)
def judge(colour: int, parity: int, rotation: int, direction: int) -> Level:
    """Verdict on a swing in `direction` after one of `parity` that left the wrist at `rotation`."""
    if direction == DOT:
        return "none"
    wanted = _ROTATION[colour][1 - parity][direction]
    low, high = _REACH[colour]
    turned = abs(rotation - wanted)
    if turned > 180 or not low + _ERROR_MARGIN <= wanted <= high - _ERROR_MARGIN:
        return "error"
    if turned > _ALLOWED_TURN or not low + _WARNING_MARGIN <= wanted <= high - _WARNING_MARGIN:
        return "warning"
    return "none"


def bomb_reset(colour: int, beat: float, bombs: Sequence[Bomb]) -> int | None:
    """Side that bombs force the next swing to: bottom row forehand, top row backhand, else None."""
    side: int | None = None
    for bomb in bombs:
        if bomb.column == MIDDLE_COLUMN[colour] and bomb.beat - BOMB_TOLERANCE_BEATS <= beat:
            if bomb.row == 0:
                side = FOREHAND
            elif bomb.row == 2:
                side = BACKHAND
    return side


def start_of_hand(
    colour: int, notes: Sequence[Note], bombs: Sequence[Bomb] = ()
) -> tuple[int | None, int]:
    """Parity and rotation that a hand is taken to hold before its first swing.

    Parameters
    ----------
    colour
        The hand.
    notes
        Notes of both hands in order, beginning anywhere before the hand's first note.
    bombs
        Bombs in order; those before the first note of the hand matter.

    Returns
    -------
    parity, rotation
        The parity is None where the hand has no notes.
    """
    first = next((i for i, n in enumerate(notes) if n.colour == colour), None)
    if first is None:
        return None, 0
    group = [notes[first]]
    for note in notes[first + 1 :]:
        if note.beat > group[-1].beat + BOMB_TOLERANCE_BEATS:
            break
        group.append(note)
    arrow = next((n for n in group if n.direction != DOT), None)
    rotation = _start_rotation(group)
    for bomb in reversed(bombs):
        if bomb.beat < group[0].beat and bomb.row in (0, 2):
            return (BACKHAND if bomb.row == 0 else FOREHAND), rotation
    if arrow is not None:
        opens_forehand = arrow.direction in _FOREHAND_START[arrow.colour]
    else:
        opens_forehand = group[0].row == 0
    return (BACKHAND if opens_forehand else FOREHAND), rotation


def _start_rotation(group: Sequence[Note]) -> int:
    rotation = 0
    for note in group:
        table = _START_ROTATION[note.colour]
        if note.direction != DOT:
            return table[note.direction]
        if note.row == 0 and note.column in (0, 3):
            rotation = table[4 if note.column == 0 else 5]
        elif note.row == 1 and note.column in (0, 3):
            rotation = table[2 if note.column == 0 else 3]
    return rotation


def entry(state: HandState, beat: float, bombs: Sequence[Bomb]) -> tuple[int, int]:
    """Parity and rotation that a swing at `beat` is judged from, after what bombs did.

    Raises
    ------
    ValueError
        If the hand has not swung yet: `start_of_hand` gives its start.
    """
    if state.parity is None:
        raise ValueError("the hand has no parity before its first swing")
    side = bomb_reset(state.colour, beat, bombs)
    return (state.parity, state.rotation) if side is None else (1 - side, 0)


def comes_from(state: HandState, beat: float, bombs: Sequence[Bomb]) -> float | None:
    """Cut angle in degrees that a hand comes from at `beat`; bombs make it wait on the far side."""
    side = bomb_reset(state.colour, beat, bombs)
    if side is None:
        return state.angle_deg
    return float(CUT_ANGLE[UP if side == FOREHAND else DOWN])


def step(
    state: HandState,
    swing_notes: Sequence[Note],
    time_s: float | Sequence[float],
    bombs: Sequence[Bomb] = (),
) -> tuple[HandState, Verdict]:
    """Judge one whole swing and move the hand on.

    Parameters
    ----------
    state
        The hand before the swing (`HandState(colour)` at the start of a chart).
    swing_notes
        The notes of the swing, in order, at least one.
    time_s
        Second of the first note, or the seconds of all notes.
    bombs
        The bombs since the first note of the hand's last swing.
    """
    notes = tuple(swing_notes)
    times = (time_s,) * len(notes) if isinstance(time_s, (int, float)) else tuple(time_s)
    if state.parity is None:
        parity, rotation = start_of_hand(state.colour, notes, bombs)
        state = HandState(state.colour, parity, rotation)
    parity, rotation = entry(state, notes[0].beat, bombs)
    forced = bomb_reset(state.colour, notes[0].beat, bombs) is not None
    direction = swing_direction(notes)
    level = judge(state.colour, parity, rotation, direction)
    # After an error the player has reset: the same side cuts again, unless bombs set the side.
    side = 1 - parity if level != "error" or forced else parity
    turned = rotation if direction == DOT else _ROTATION[state.colour][side][direction]
    came_from = comes_from(state, notes[0].beat, bombs)
    if direction != DOT:
        angle: float | None = float(CUT_ANGLE[direction])
    else:
        angle = None if came_from is None else (came_from + 180.0) % 360.0
    origin = replace(state, came_from=None)  # or the chain would keep the whole chart alive
    after = HandState(state.colour, side, turned, notes, times, direction, angle, origin)
    return after, Verdict(level, side, turned - rotation, came_from)


def judge_hand(
    colour: int, notes: Sequence[Note], bombs: Sequence[Bomb], to_seconds: Callable[[float], float]
) -> list[tuple[Swing, Verdict]]:
    """Verdicts on all swings of one hand of a whole chart.

    Parameters
    ----------
    colour
        The hand.
    notes, bombs
        All notes and bombs of the chart, in order of beats.
    to_seconds
        Second of a beat.
    """
    swings = group_swings([n for n in notes if n.colour == colour], to_seconds)
    if not swings:
        return []
    parity, rotation = start_of_hand(colour, notes, bombs)
    state = HandState(colour, parity, rotation)
    beats = [b.beat for b in bombs]
    judged = []
    last = len(swings) - 1
    for i, swing in enumerate(swings):
        # The reference hands each swing the bombs since the one before it began; the first swing
        # gets none, and the last one only those that come after it.
        low = bisect_left(beats, swings[i - 1].beat) if i > 1 else 0
        high = bisect_left(beats, swing.beat) if i else 0
        if i == last:
            low, high = (high if i else 0), len(beats)
        state, verdict = step(state, swing.notes, swing.times_s, bombs[low:high])
        judged.append((swing, verdict))
    return judged
