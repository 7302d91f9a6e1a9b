"""Bars: where they lie in a song, and each one warped to the same length and back."""

from mgen.core.bars.grid import (
    BAR_RATE,
    BAR_S,
    BAR_SAMPLES,
    MAX_STRETCH,
    MIN_STRETCH,
    BarGrid,
    bars_from_beats,
    jitter_grid,
)
from mgen.core.bars.warp import STRETCHERS, bar_samples, unwarp_bar, warp_bar, warp_song_bar

__all__ = [
    "BAR_RATE",
    "BAR_S",
    "BAR_SAMPLES",
    "MAX_STRETCH",
    "MIN_STRETCH",
    "STRETCHERS",
    "BarGrid",
    "bar_samples",
    "bars_from_beats",
    "jitter_grid",
    "unwarp_bar",
    "warp_bar",
    "warp_song_bar",
]
