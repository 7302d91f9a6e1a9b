"""How good a recording sounds: features of five seconds -> probability -> a verdict on a song.

The judge is a forest of plain arrays. Scores are kept for every song, so that a person can choose
another threshold later.
"""

from mgen.core.quality.degradations import DEGRADATIONS, degrade
from mgen.core.quality.features import FEATURE_SPEC, N_FEATURES, QualityMeter, window_features
from mgen.core.quality.forest import Forest
from mgen.core.quality.judge import Judge, load_judge, save_judge, shipped_judge
from mgen.core.quality.verdict import (
    THRESHOLD,
    Screening,
    Verdict,
    WeighedWindows,
    smooth_curve,
    stretches,
    weigh,
)

__all__ = [
    "DEGRADATIONS",
    "FEATURE_SPEC",
    "N_FEATURES",
    "THRESHOLD",
    "Forest",
    "Judge",
    "QualityMeter",
    "Screening",
    "Verdict",
    "WeighedWindows",
    "degrade",
    "load_judge",
    "save_judge",
    "shipped_judge",
    "smooth_curve",
    "stretches",
    "weigh",
    "window_features",
]
