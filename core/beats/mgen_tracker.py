"""The tracker that ships: onset activations -> decoder -> meter.

A learned model takes the place of `activations` and nothing else: whatever gives (T, K) activations
at 100 frames a second goes through the same decoder.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mgen.core.beats.confidence import beat_confidence
from mgen.core.beats.decoder import DecoderSettings, decode_beats, level_activations
from mgen.core.beats.features import FPS, Features, Samples, extract
from mgen.core.beats.grid import Beats
from mgen.core.beats.meter import place_beats

SETTINGS = DecoderSettings(fps=FPS)
VERSION = 1
"""Counts up with every change that moves beats: stores record it, so that no layer mixes two."""


def track(samples_N: Samples, rate: int) -> Beats:
    """Beats of a song by onset activations in three bands."""
    return track_features(extract(samples_N, rate))


def track_features(features: Features) -> Beats:
    """Beats from features that are already there."""
    level_TK = activations(features)
    frames_n = decode_beats(level_TK, SETTINGS)
    time_s = frames_n / FPS
    return Beats(time_s, place_beats(time_s, features), beat_confidence(level_TK, frames_n))


def activations(features: Features) -> npt.NDArray[np.float64]:
    """How much each frame sounds like a beat, per band (T, K)."""
    return level_activations(features.onsets_TK, FPS)
