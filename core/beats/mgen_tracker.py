"""The tracker that ships: a small network and onset activations -> decoder -> meter.

The network (model.py) says how much each frame sounds like a beat and like a downbeat. The decoder
finds the tempo and the chain of beats that explain its beats and the plain onsets best, and the
meter finds the bars, from the network's downbeats and from bass, harmony and repetition. The plain
onsets keep it on its feet where music is unlike what the network was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgen.core.beats.confidence import posterior_confidence
from mgen.core.beats.decoder import (
    DecoderSettings,
    decode_beats,
    learned_template,
    level_activations,
    onset_template,
)
from mgen.core.beats.features import FPS, Samples, extract
from mgen.core.beats.grid import Beats
from mgen.core.beats.meter import WITH_NETWORK, place_beats
from mgen.core.weights import shipped

Array = npt.NDArray[np.float64]

ONSET_SHARE = 0.2
SETTINGS = DecoderSettings(
    fps=FPS, template_KJ=np.concatenate([learned_template(), ONSET_SHARE * onset_template()])
)
VERSION = 2
"""Counts up with every change that moves beats: stores record it, so that no layer mixes two."""


def track(samples_N: Samples, rate: int, model: Path | None = None) -> Beats:
    """Beats and downbeats of a song by the model in a folder, the shipped one by default.

    Raises
    ------
    AudioError
        If the samples cannot be used.
    InputNotFoundError, InputError
        If the folder holds no tracker.
    """
    from mgen.core.beats.model import LogitStream, load_beat_net

    stream = LogitStream(load_beat_net(model or shipped("tracker")))
    features = extract(samples_N, rate, on_mel=stream.push)
    if not features.onsets_TK.any():  # nothing ever begins
        return Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0, np.float32))
    logits_T2 = doubled(stream.finish(), len(features.onsets_TK))
    beat_T = 1.0 / (1.0 + np.exp(-logits_T2[:, 0]))
    onset_TK = level_activations(features.onsets_TK, FPS)
    frames_n = decode_beats(np.concatenate([beat_T[:, None], onset_TK], axis=1), SETTINGS)
    time_s = frames_n / FPS
    learned_n = peak_near(logits_T2[:, 1], frames_n)
    place_n = place_beats(time_s, features, WITH_NETWORK, learned_n)
    return Beats(
        time_s, place_n, posterior_confidence(logits_T2[:, 0], onset_TK.max(axis=1), frames_n)
    )


def doubled(logits_U2: npt.NDArray[np.float32], n_frames: int) -> Array:
    """From the network's 50 frames a second to the decoder's 100: (U, 2) -> (n_frames, 2)."""
    if len(logits_U2) == 0:
        return np.zeros((n_frames, 2))
    at, known = np.arange(n_frames) / 2.0, np.arange(len(logits_U2))
    return np.stack([np.interp(at, known, logits_U2[:, k]) for k in range(2)], axis=1)


def peak_near(x_T: Array, frames_n: npt.NDArray[np.int64], reach: int = 6) -> Array:
    """The largest value within `reach` frames of each beat (n,)."""
    if len(x_T) == 0:
        return np.zeros(len(frames_n))
    near = np.clip(frames_n[:, None] + np.arange(-reach, reach + 1), 0, len(x_T) - 1)
    return np.asarray(x_T[near].max(axis=1))
