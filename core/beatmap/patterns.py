"""How human maps move: the statistics that the decoder samples from, as log scores.

`patterns.json` is written by `examples/pattern_statistics.py` from human maps (its `source` says
which). Blue is the mirror image of red, so one table serves both hands.

Shapes: S 108 states of a note, D 9 directions, C 12 cells; side 0 forehand, 1 backhand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import BLUE, RED, Difficulty
from mgen.core.beatmap.states import CELL_S, COLUMN_S, DIRECTION_S, ROW_S

FloatArray = npt.NDArray[np.float64]

MIRROR_DIRECTION = (0, 1, 3, 2, 5, 4, 7, 6, 8)
MIRROR_S = (ROW_S * 4 + 3 - COLUMN_S) * 9 + np.array(MIRROR_DIRECTION)[DIRECTION_S]
"""State of the mirror image of each state."""
MIRROR_CELL = np.array([row * 4 + 3 - column for row in range(3) for column in range(4)])

_POOLED = 0.15
"""Weight of all difficulties together, beside a difficulty's own counts."""


@dataclass(frozen=True, slots=True)
class HandTables:
    """Log scores for one hand.

    Attributes
    ----------
    state_2S
        Log probability of each state, by side.
    turn_2DS
        By side and the hand's last direction: how much more likely each state's direction is.
    move_2CS
        By side and the hand's last cell: how much more likely each state's cell is.
    cross_CS, pair_CS
        The same by the other hand's last cell, and by its cell at the same time.
    """

    state_2S: FloatArray
    turn_2DS: FloatArray
    move_2CS: FloatArray
    cross_CS: FloatArray
    pair_CS: FloatArray


@cache
def hand_tables(difficulty: Difficulty) -> tuple[HandTables, HandTables]:
    """Tables of the red and the blue hand."""
    counts = _counts()
    own = {name: counts[difficulty][name] for name in counts[difficulty]}
    pooled = {name: sum(c[name] for c in counts.values()) for name in own}
    mixed = {n: own[n] + _POOLED * pooled[n] / len(counts) * 3.0 + 0.02 for n in own}
    state_2S = mixed["state"].reshape(2, 108) + 0.3
    state_2S = np.log(state_2S / state_2S.sum(axis=1, keepdims=True))
    turn = _lift(mixed["turn"].reshape(2, 9, 9), 6.0)[:, :, DIRECTION_S]
    move = _lift(mixed["move"].reshape(2, 12, 12), 8.0)[:, :, CELL_S]
    cross = _lift(mixed["cross"].reshape(12, 12), 12.0)[:, CELL_S]
    pair = _lift(mixed["pair"].reshape(12, 12), 12.0)[:, CELL_S]
    red = HandTables(state_2S, turn, move, cross, pair)
    blue = HandTables(
        state_2S[:, MIRROR_S],
        turn[:, MIRROR_DIRECTION][:, :, MIRROR_S],
        move[:, MIRROR_CELL][:, :, MIRROR_S],
        cross[MIRROR_CELL][:, MIRROR_S],
        pair[MIRROR_CELL][:, MIRROR_S],
    )
    return red, blue


def table_of(difficulty: Difficulty, colour: int) -> HandTables:
    """Tables of one hand."""
    return hand_tables(difficulty)[RED if colour == RED else BLUE]


def _lift(counts: FloatArray, prior: float) -> FloatArray:
    """Log of how much more likely the last axis is, given the one before it, than by itself."""
    overall = counts.sum(axis=-2, keepdims=True)
    overall = (overall + 0.1) / (overall + 0.1).sum(axis=-1, keepdims=True)
    given = counts + prior * overall
    given = given / given.sum(axis=-1, keepdims=True)
    return np.asarray(np.log(given / overall), np.float64)


@cache
def _counts() -> dict[Difficulty, dict[str, FloatArray]]:
    text = files("mgen.core.beatmap").joinpath("patterns.json").read_text("utf-8")
    table = json.loads(text)["difficulties"]
    return {
        d: {name: np.array(values, np.float64) for name, values in table[d.value].items()}
        for d in Difficulty
    }
