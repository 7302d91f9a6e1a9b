"""Note jump speed and its offset: how fast notes fly at the player, and how long they are seen.

Human medians per difficulty (speed, reaction time) come from 31 modern maps; the half jump
duration follows the game's rule, as community map checkers compute it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mgen.core.beatmap.chart import Difficulty
from mgen.core.errors import UsageError

_USUAL = {
    Difficulty.EASY: (10.0, 1.25, 2.3),
    Difficulty.NORMAL: (12.0, 0.95, 3.4),
    Difficulty.HARD: (15.0, 0.77, 4.8),
    Difficulty.EXPERT: (16.0, 0.63, 6.5),
    Difficulty.EXPERT_PLUS: (18.0, 0.55, 8.0),
}
"""Speed, reaction time in seconds, and the notes per second above which a chart is called fast."""

MIN_REACTION_S = 0.42
MIN_JUMP, MAX_JUMP = 18.2, 35.0
MIN_NJS, MAX_NJS = 3.0, 23.0


@dataclass(frozen=True, slots=True)
class Speed:
    """What Info.dat says of a chart: jump speed in metres per second, offset in beats."""

    njs: float
    offset_beats: float
    reaction_s: float

    @property
    def jump_m(self) -> float:
        """Jump distance in metres."""
        return 2.0 * self.njs * self.reaction_s


def half_jump_beats(bpm: float, njs: float, offset_beats: float = 0.0) -> float:
    """Beats for which a note is seen before it is cut (the game's rule)."""
    half = 4.0
    while njs * 60.0 / bpm * half > 17.999:
        half /= 2.0
    return max(max(half, 1.0) + offset_beats, 0.25)


def choose_speed(
    difficulty: Difficulty, bpm: float, notes_per_s: float, njs: float | None = None
) -> Speed:
    """Choose the jump speed and its offset for a chart.

    Parameters
    ----------
    difficulty
        Sets the usual speed and reaction time.
    bpm
        Base tempo of the map.
    notes_per_s
        Density that the chart has; a dense one gets 1 or 2 m/s more.
    njs
        A speed that the mapper asked for; the reaction time is kept.

    Raises
    ------
    UsageError
        If `njs` is outside what the game and its players can use.
    """
    usual, reaction_s, fast = _USUAL[difficulty]
    if njs is None:
        njs = usual + (1.0 if notes_per_s > fast else 0.0) + (1.0 if notes_per_s > fast + 1 else 0)
    elif not (math.isfinite(njs) and MIN_NJS <= njs <= MAX_NJS):
        raise UsageError(
            f"a note jump speed of {njs} makes no playable map; give one from 3 to 23, "
            f"or leave it out for {usual:g}"
        )
    highest = min(MAX_JUMP, 18.0 / 1.07**njs + 18.0 - 0.2)
    jump_m = min(max(2.0 * njs * reaction_s, MIN_JUMP), max(highest, MIN_JUMP))
    reaction_s = max(jump_m / (2.0 * njs), MIN_REACTION_S)
    base = half_jump_beats(bpm, njs)
    offset = max(round(reaction_s * bpm / 60.0 - base, 3), 0.25 - base)
    return Speed(njs, offset, half_jump_beats(bpm, njs, offset) * 60.0 / bpm)
