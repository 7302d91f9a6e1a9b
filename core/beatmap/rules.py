"""Thresholds of the playability rules, under MapCheck's names: shared by masks and findings.

Source: MapCheck 2.7.1's defaults. Times in seconds, distances in cells, angles in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

from mgen.core.beatmap.chart import Difficulty
from mgen.core.beatmap.speed import half_jump_beats

SAME_TIME_S = 0.01
STACKED_BOMB_S = 0.02
HAMMER_BEFORE_S, HAMMER_AFTER_S = 0.125, 0.075
HAMMER_DISTANCE, HAMMER_DEG = 2.0, 15.0
INLINE_S, INLINE_TURN_DEG = 0.15, 90.0
STAIR_S = 0.15
SHRADO_S, SHRADO_DISTANCE = 0.25, 1.0
SABER_REACH = 1.425
REVERSE_STAIR_S, REVERSE_STAIR_DISTANCE, REVERSE_STAIR_DEG = 0.0341, 1.5, 15.0
SLIDER_S_PER_CELL = 0.025
DOUBLE_DIRECTIONAL_DEG = 45.0

VISION_WINDOW_S = {
    Difficulty.EASY: (0.025, 1.2), Difficulty.NORMAL: (0.05, 1.0), Difficulty.HARD: (0.08, 0.75),
    Difficulty.EXPERT: (0.1, 0.625), Difficulty.EXPERT_PLUS: (0.1, 0.5),
}  # fmt: skip

_CROSSOVER_COSTS = {
    Difficulty.HARD: 2.0, Difficulty.EXPERT: 1.0, Difficulty.EXPERT_PLUS: 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds for one difficulty of one song."""

    difficulty: Difficulty
    bpm: float
    njs: float
    njs_offset: float = 0.0

    @property
    def reaction_s(self) -> float:
        """Seconds between a note's appearance and the player."""
        return half_jump_beats(self.bpm, self.njs, self.njs_offset) * 60.0 / self.bpm

    @property
    def vision_window_s(self) -> tuple[float, float]:
        """Seconds after a note in the middle during which it hides its side of the grid."""
        low, high = VISION_WINDOW_S[self.difficulty]
        return low, min(high, self.reaction_s)

    @property
    def max_ebpm(self) -> float:
        """Effective BPM that notes of one hand may not pass."""
        return min(450.0, 1.2857 * 2.0 * self.bpm)

    @property
    def max_swing_ebpm(self) -> float:
        """Effective BPM that swings of one hand, first note to first note, may not pass."""
        return min(350.0, 2.0 * self.bpm)

    @property
    def may_reset(self) -> bool:
        """Whether a parity error is open where there is time to reset: Easy and Normal."""
        return self.difficulty in (Difficulty.EASY, Difficulty.NORMAL)

    @property
    def reset_s(self) -> float:
        """Time a hand needs to reset: one beat, and at least 0.6 s."""
        return max(60.0 / self.bpm, 0.6)

    @property
    def crossover_cost(self) -> float | None:
        """Cost of red in the last column or blue in the first; None: not allowed."""
        return _CROSSOVER_COSTS.get(self.difficulty)
