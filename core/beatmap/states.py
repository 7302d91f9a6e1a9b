"""The 108 states a note can take (12 cells x 9 directions) and which of them clash.

A state's index is `(row * 4 + column) * 9 + direction`. Suffix S: one axis of 108 states. The
tables for two notes at the same time follow MapCheck's geometry: a note's path is the line through
its cell along its cut; what lies against the cut is the pre-swing, what lies along it the
follow-through.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mgen.core.beatmap.chart import DOT, Bomb, Note
from mgen.core.beatmap.swings import CUT_ANGLE, CUT_VECTOR, grid_distance, note_angle, turn

COLUMNS, ROWS, DIRECTIONS = 4, 3, 9
STATES = COLUMNS * ROWS * DIRECTIONS

COLUMN_S = np.arange(STATES) // DIRECTIONS % COLUMNS
ROW_S = np.arange(STATES) // (DIRECTIONS * COLUMNS)
DIRECTION_S = np.arange(STATES) % DIRECTIONS
CELL_S = np.arange(STATES) // DIRECTIONS

# (largest distance in cells, tolerance in degrees): the nearer, the more of a slant is in the way.
_CLAP_TOWARDS = ((1.0, 45.0), (1.5, 30.0), (2.0, 15.0))
_CLAP_AWAY = ((1.0, 135.0), (2.0, 160.0))
_PATH_DISTANCE, _PATH_DEG = 2.0, 150.0
_PARALLEL_DEG, _SWINGABLE_DEG = 45.0, 30.0


def state_index(column: int, row: int, direction: int) -> int:
    """Index of a state."""
    return (row * COLUMNS + column) * DIRECTIONS + direction


def state_note(index: int, colour: int, beat: float) -> Note:
    """The note of a colour in a state, at a beat."""
    cell, direction = divmod(int(index), DIRECTIONS)
    return Note(beat, cell % COLUMNS, cell // COLUMNS, colour, direction)


def index_of(note: Note) -> int:
    """State of a note inside the grid."""
    return state_index(note.column, note.row, note.direction)


def valid_cell(thing: Note | Bomb) -> bool:
    """Whether an object lies in the grid of 4 by 3 cells."""
    return 0 <= thing.column < COLUMNS and 0 <= thing.row < ROWS


def valid_note(note: Note) -> bool:
    """Whether a note lies in the grid and has a colour and a direction that exist."""
    return valid_cell(note) and note.colour in (0, 1) and 0 <= note.direction <= DOT


def bearing(a: Note, b: Note) -> float:
    """Direction from the cell of `a` to that of `b`, as a cut angle in degrees (0 is down)."""
    return math.degrees(math.atan2(b.row - a.row, b.column - a.column)) + 90.0


def off_path(note: Note, target: Note) -> float | None:
    """Degrees between a note's cut and the way to a target cell; None for a dot or the same cell.

    0: the saber goes on into the target; 180: it comes through the target.
    """
    same = note.column == target.column and note.row == target.row
    if note.direction == DOT or same:
        return None
    return turn(note_angle(note), bearing(note, target))


def is_handclap(a: Note, b: Note) -> bool:
    """Whether the two hands would hit each other: both cut towards or both away from the other."""
    ways = (off_path(a, b), off_path(b, a))
    if ways[0] is None or ways[1] is None:
        return False
    low, high = min(ways[0], ways[1]), max(ways[0], ways[1])
    distance = grid_distance(a, b)
    towards = any(distance <= reach and high <= deg for reach, deg in _CLAP_TOWARDS)
    away = any(distance <= reach and low >= deg for reach, deg in _CLAP_AWAY)
    return towards or away


def is_hitbox_path(a: Note, b: Note) -> bool:
    """Whether one of two same-time notes of different colours lies in the other's pre-swing."""
    if grid_distance(a, b) > _PATH_DISTANCE:
        return False
    return any(way is not None and way > _PATH_DEG for way in (off_path(a, b), off_path(b, a)))


def is_parallel(a: Note, b: Note) -> bool:
    """Whether two same-time notes of one hand are cut side by side, where no one swing does it."""
    if DOT in (a.direction, b.direction) or turn(note_angle(a), note_angle(b)) > _PARALLEL_DEG:
        return False
    ways = (off_path(a, b), off_path(b, a))
    return all(way is None or way > _SWINGABLE_DEG for way in ways)


@lru_cache(maxsize=1)
def clash_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which same-time pairs of the two hands clash.

    Returns
    -------
    handclap_SS, hitbox_path_SS, same_cell_SS
        Symmetric (108, 108) tables of bool.
    """
    notes = [state_note(i, 0, 0.0) for i in range(STATES)]
    clap = np.zeros((STATES, STATES), bool)
    path = np.zeros((STATES, STATES), bool)
    for i, a in enumerate(notes):
        for j in range(i + 1, STATES):
            b = notes[j]
            if grid_distance(a, b) > _PATH_DISTANCE:
                continue
            clap[i, j] = clap[j, i] = is_handclap(a, b)
            path[i, j] = path[j, i] = is_hitbox_path(a, b)
    return clap, path, CELL_S[:, None] == CELL_S[None, :]


@lru_cache(maxsize=64)
def turn_table(angle_deg: float) -> NDArray[np.float64]:
    """Degrees between an angle and the cut of each state, (108,); infinity for dots."""
    by_direction = [turn(angle_deg, CUT_ANGLE[d]) for d in range(DIRECTIONS - 1)] + [math.inf]
    return np.asarray(by_direction)[DIRECTION_S]


@lru_cache(maxsize=16)
def off_path_table(column: int, row: int) -> NDArray[np.float64]:
    """Degrees off the path to a target cell for each state, (108,); NaN for dots and that cell.

    The states are those of the note that is cut; see `off_path`.
    """
    target = Note(0.0, column, row, 0, DOT)
    ways = (off_path(state_note(i, 0, 0.0), target) for i in range(STATES))
    return np.asarray([math.nan if way is None else way for way in ways])


@lru_cache(maxsize=64)
def cell_table(column: int, row: int) -> NDArray[np.bool_]:
    """Whether each state is in a cell, (108,); all False outside the grid."""
    return np.equal(COLUMN_S, column) & np.equal(ROW_S, row)


@lru_cache(maxsize=16)
def distance_table(column: int, row: int) -> NDArray[np.float64]:
    """Distance from a cell to the cell of each state, (108,)."""
    return np.hypot(COLUMN_S - column, ROW_S - row)


def follow_through(note: Note, direction: int) -> tuple[int, int] | None:
    """Column and row that the saber moves into after the note; None where nothing tells."""
    if direction == DOT:
        return None
    dx, dy = CUT_VECTOR[direction]
    return note.column + dx, note.row + dy
