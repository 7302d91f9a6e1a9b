"""librosa's beat tracker (Ellis 2007), with our downbeats."""

from __future__ import annotations

import numpy as np

from mgen.core.beats.confidence import beat_confidence
from mgen.core.beats.decoder import level_activations
from mgen.core.beats.features import FPS, RATE, Samples, blocks, extract, framed
from mgen.core.beats.grid import Beats
from mgen.core.beats.meter import place_beats

HOP = 320
N_FFT = 1024


def track(samples_N: Samples, rate: int) -> Beats:
    """Beats of a song by `librosa.beat.beat_track` on librosa's own onset envelope.

    The envelope is computed a minute at a time; the tracker then sees the whole song at once.
    """
    import librosa

    envelopes = [
        librosa.onset.onset_strength(
            S=librosa.power_to_db(
                librosa.feature.melspectrogram(
                    y=piece, sr=RATE, hop_length=HOP, n_fft=N_FFT, center=False
                ),
                top_db=None,
            ),
            center=False,
        )
        for piece in framed(blocks(samples_N, rate, RATE), N_FFT, HOP)
    ]
    features = extract(samples_N, rate)
    envelope = np.concatenate(envelopes) if envelopes else np.zeros(0, np.float32)
    if len(envelope) < 2 or not envelope.any():
        return Beats(np.zeros(0), np.zeros(0, np.int8), np.zeros(0, np.float32))
    _, frames = librosa.beat.beat_track(onset_envelope=envelope, sr=RATE, hop_length=HOP)
    time_s = np.unique(np.asarray(frames)) * HOP / RATE
    time_s = time_s[time_s < features.duration_s]
    confidence = beat_confidence(
        level_activations(features.onsets_TK, FPS), np.round(time_s * FPS).astype(np.int64)
    )
    return Beats(time_s, place_beats(time_s, features), confidence)
