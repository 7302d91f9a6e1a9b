"""The tracker that ships: a small network and onset activations -> decoder -> grid -> meter.

The network (model.py) says how much each frame sounds like a beat and like a downbeat. The decoder
finds the tempo and the chain of beats that explain its beats and the plain onsets best. Where the
tempo is steady, one grid for the whole song, which network, attacks and harmony speak for together
(tempo.py, with its rule for half and double tempo), takes the chain's place. The meter finds the
bars, from the network's downbeats and from bass, harmony and repetition. The plain onsets keep it
on its feet where music is unlike what the network was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgen.core.beats.attacks import Attacks, listen
from mgen.core.beats.confidence import BEAT_ODDS, posterior_confidence
from mgen.core.beats.decoder import (
    DecoderSettings,
    decode_beats,
    learned_template,
    level_activations,
    onset_template,
)
from mgen.core.beats.features import FPS, Features, Samples, extract
from mgen.core.beats.grid import Beats
from mgen.core.beats.meter import halve_odd_bars, place_beats
from mgen.core.beats.pulse import find_pulse
from mgen.core.beats.tempo import Grid, HeardBeats, drifts, fit_grid, smoothed
from mgen.core.weights import shipped

Array = npt.NDArray[np.float64]

ONSET_SHARE = 0.2
SETTINGS = DecoderSettings(
    fps=FPS, template_KJ=np.concatenate([learned_template(), ONSET_SHARE * onset_template()])
)
MIN_GRID_BEATS, MAX_GRID_S = 16, 900.0
"""Shorter, a song has no tempo of its own; longer, it is several songs."""
MIN_GRID_CONFIDENCE = 0.25
"""Noise stays below this: there a grid is only a guess."""
GRID_SHARE = 0.3
"""What the grid's log-odds of a downbeat count for beside the network's."""
MIN_HEARD = 0.03
"""Probability from which a peak of the network counts at all."""
VERSION = 5
"""Counts up with every change that moves beats: stores record it, so that no layer mixes two."""


def track(
    samples_N: Samples, rate: int, model: Path | None = None, attacks: Attacks | None = None
) -> Beats:
    """Beats and downbeats of a song by the model in a folder, the shipped one by default. `attacks`
    are those of the same samples, where they are known already.

    Raises
    ------
    AudioError
        If the samples cannot be used.
    InputNotFoundError, InputError
        If the folder holds no tracker.
    """
    heard = hear(samples_N, rate, model, attacks)
    if heard is None:
        return Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0, np.float32))
    place_n = place_beats(heard.time_s, heard.features, learned_n=heard.learned_n)
    time_s, place_n = halve_odd_bars(heard.time_s, place_n, heard.logits_T2[:, 1])
    confidence_n = posterior_confidence(
        heard.logits_T2[:, 0], heard.audible_T, frame_of(time_s, len(heard.audible_T)),
        steady=heard.steady,
    )  # fmt: skip
    return Beats(time_s, place_n, confidence_n)


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What is known of a song before its bars are looked for.

    Attributes
    ----------
    features
        Onsets, chroma, bass and mel.
    logits_T2
        The network's, of beat and downbeat, at FPS.
    audible_T
        Onset activations, the largest of all bands.
    time_s
        Beats (n,), increasing.
    learned_n
        How much a downbeat network and grid hear at each (n,), log-odds.
    steady
        Whether the beats are one even grid.
    """

    features: Features
    logits_T2: Array
    audible_T: Array
    time_s: Array
    learned_n: Array
    steady: bool


def hear(
    samples_N: Samples, rate: int, model: Path | None = None, attacks: Attacks | None = None
) -> Heard | None:
    """Beats of a song, and what speaks for its bars; None where nothing ever begins. Arguments and
    errors are those of `track`.
    """
    from mgen.core.beats.model import LogitStream, load_beat_net

    stream = LogitStream(load_beat_net(model or shipped("tracker")))
    features = extract(samples_N, rate, on_mel=stream.push)
    if not features.onsets_TK.any():
        return None
    logits_T2 = doubled(stream.finish(), len(features.onsets_TK))
    beat_T = 1.0 / (1.0 + np.exp(-logits_T2[:, 0]))
    onset_TK = level_activations(features.onsets_TK, FPS)
    frames_n = decode_beats(np.concatenate([beat_T[:, None], onset_TK], axis=1), SETTINGS)
    time_s, grid_odds_n = frames_n / FPS, np.zeros(len(frames_n))
    grid = None
    if len(frames_n) >= MIN_GRID_BEATS and features.duration_s <= MAX_GRID_S:
        grid = steady_grid(attacks or listen(samples_N, rate), logits_T2, time_s)
        if grid is not None:
            time_s, grid_odds_n = grid.beats(features.duration_s)
    learned_n = peak_near(logits_T2[:, 1], frame_of(time_s, len(onset_TK))) + GRID_SHARE * np.clip(
        grid_odds_n, -6.0, 6.0
    )
    return Heard(
        features, logits_T2, onset_TK.max(axis=1), time_s, learned_n, steady=grid is not None
    )


def frame_of(time_s: Array, n_frames: int) -> npt.NDArray[np.int64]:
    """The frame at each time (n,)."""
    return np.minimum(np.round(time_s * FPS).astype(np.int64), n_frames - 1)


def steady_grid(attacks: Attacks, logits_T2: Array, time_s: Array) -> Grid | None:
    """One grid for the whole song; None where its tempo drifts, or nothing speaks for a grid.

    Parameters
    ----------
    attacks
        The song's.
    logits_T2
        The network's, of beat and downbeat, at FPS.
    time_s
        The decoder's beats (n,), two or more.
    """
    pulse = find_pulse(attacks)
    grid = fit_grid(pulse, heard_beats(logits_T2, 60.0 / float(np.median(np.diff(time_s)))))
    if grid is None or grid.confidence < MIN_GRID_CONFIDENCE:
        return None
    return None if drifts(pulse, smoothed(time_s), grid.bpm) else grid


def heard_beats(logits_T2: Array, bpm: float) -> HeardBeats:
    """Peaks of the network's beats as probabilities (its training's odds taken back), and how much
    of a downbeat it hears there.
    """
    odds_T2 = np.exp(logits_T2) / BEAT_ODDS
    heard_T2 = odds_T2 / (1.0 + odds_T2)
    beat_T = heard_T2[:, 0]
    inner = beat_T[1:-1]
    is_peak = (inner > beat_T[:-2]) & (inner >= beat_T[2:]) & (inner > MIN_HEARD)
    at_H = 1 + np.flatnonzero(is_peak)
    return HeardBeats(at_H / FPS, beat_T[at_H], peak_near(heard_T2[:, 1], at_H, 3), bpm)


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
