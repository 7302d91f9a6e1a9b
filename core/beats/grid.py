"""What every tracker hands on: beats with their place in the bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.errors import UsageError

MIN_BPM, MAX_BPM = 10.0, 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """Beats of one song, in order.

    Attributes
    ----------
    time_s
        Seconds from the first sample (n,), float64, strictly increasing.
    beat_in_bar
        Place in the bar (n,), int8: 1 is the downbeat, 0 is unknown.
    confidence
        How much the sound supports each beat (n,), float32 in 0..1: near 1 on a click track, near 0
        where the grid is only a guess.

    Raises
    ------
    ValueError
        If lengths differ, or times are not finite and strictly increasing.
    """

    time_s: npt.NDArray[np.float64]
    beat_in_bar: npt.NDArray[np.int8]
    confidence: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "time_s", np.asarray(self.time_s, np.float64))
        object.__setattr__(self, "beat_in_bar", np.asarray(self.beat_in_bar, np.int8))
        confidence = np.clip(np.asarray(self.confidence, np.float32), 0.0, 1.0)
        object.__setattr__(self, "confidence", confidence)
        shapes = {self.time_s.shape, self.beat_in_bar.shape, self.confidence.shape}
        if len(shapes) != 1 or self.time_s.ndim != 1:
            raise ValueError(f"beats need three equally long columns, not {sorted(shapes)}")
        if not np.isfinite(self.time_s).all() or (np.diff(self.time_s) <= 0).any():
            raise ValueError("beat times must be finite and strictly increasing")

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def bpm(self) -> float:
        """Median tempo; 0 where there are fewer than two beats."""
        return 60.0 / float(np.median(np.diff(self.time_s))) if len(self) > 1 else 0.0


def fixed_beats(
    duration_s: float, bpm: float, offset_s: float = 0.0, beats_per_bar: int = 4
) -> Beats:
    """A metronome over the whole song: `offset_s` is a downbeat, and the grid reaches back from it
    to the start, so that a pickup before the first downbeat has beats too.

    Raises
    ------
    UsageError
        If the tempo is outside 10 to 1000 BPM, the meter outside 1 to 16, or a time not finite.
    """
    if not (math.isfinite(bpm) and MIN_BPM <= bpm <= MAX_BPM):
        raise UsageError(f"a tempo of {bpm:g} BPM makes no sense; give one between 10 and 1000")
    if not 1 <= beats_per_bar <= 16:
        raise UsageError(f"a bar of {beats_per_bar} beats makes no sense; give one from 1 to 16")
    if not (math.isfinite(offset_s) and math.isfinite(duration_s)):
        raise UsageError(f"an offset of {offset_s:g} s makes no sense; give the first downbeat's")
    period = 60.0 / bpm
    # a beat that rounding puts a hair before zero is at zero
    first = math.ceil(-offset_s / period - 1e-9)
    last = math.ceil((duration_s - offset_s) / period - 1e-9)
    index = np.arange(first, max(first, last))
    time_s = np.maximum(offset_s + index * period, 0.0)
    return Beats(
        time_s, (index % beats_per_bar + 1).astype(np.int8), np.ones(len(index), np.float32)
    )
