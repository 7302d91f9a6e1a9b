"""What the judge hears: 400 numbers for each window of five seconds.

Shapes: B windows, N samples of one window, T frames, M mel bands, R = M + 1 rows (every band, then
all bands together), S statistics, F = R * S + D features, D of them the traces of defects.

Levels are in dB relative to the window's own mean power: a quiet transfer of a good recording is
still good. (The last row's energy is therefore always 0.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.quality.traces import (
    BANDS_HZ,
    MAINS_HZ,
    MIRRORS_HZ,
    N_TRACES,
    TRACES,
    TRACES_VERSION,
    traces,
)

RATE = 16000
WINDOW_FRAMES = 155
N_FFT, HOP, N_BANDS = 2048, 512, 39
"""39 bands have their peaks between 41 edges; with the row of all bands there are 40 rows."""

FLOOR_DB = -80.0
"""Quieter than this under the window's mean power counts as this: digital silence is no defect."""

WINDOW_STEP = WINDOW_FRAMES * HOP
"""Samples from one window to the next: 4.96 s."""
WINDOW_SAMPLES = WINDOW_STEP - HOP + N_FFT
"""Samples that a window's frames reach over."""
WINDOW_S = WINDOW_STEP / RATE

_TINY = 1e-12  # power; -120 dBFS
QUIET_DB = -60.0
"""A window below this (mean power of the samples, dBFS) says nothing of the recording."""

STATISTICS = ("min", "max", "mean", "median", "variance", "energy", "skew", "kurtosis")
N_STATISTICS = (N_BANDS + 1) * len(STATISTICS)
N_FEATURES = N_STATISTICS + N_TRACES

FEATURE_SPEC: dict[str, Any] = {
    "version": 2,
    "rate": RATE, "n_fft": N_FFT, "hop": HOP, "bands": N_BANDS, "f_min": 20.0, "f_max": 8000.0,
    "mel": "slaney", "power": 2, "frames": WINDOW_FRAMES, "floor_db": FLOOR_DB,
    "level": "relative to the window's mean power", "rows": "bands, then all bands together",
    "statistics": list(STATISTICS), "traces_version": TRACES_VERSION,
    "traces": {name: list(figures) for name, figures in TRACES.items()},
    "traces_hz": {"bands": list(BANDS_HZ), "mirrors": list(MIRRORS_HZ), "mains": list(MAINS_HZ)},
}  # fmt: skip
"""Everything that decides the numbers; a judge stores it, and one with another is refused."""


def window_features(windows_BN: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Features of windows of sound (B, N) at 16 kHz: (B, 400).

    N is at least one frame (2048 samples). The first 320 are the seed's of this project:
    statistics over mel bands, row by row, statistic by statistic; skew and kurtosis (excess) of a
    row that does not vary are 0. Then come the traces of defects (`traces`).
    """
    import torch

    from mgen.kernels.log_mel import LogMelSpec, log_mel

    spec = LogMelSpec(
        rate=RATE, n_fft=N_FFT, hop=HOP, n_mels=N_BANDS, f_min=20.0, f_max=8000.0, power=2.0,
        normalized=True, log="none", centre=False,
    )  # fmt: skip
    sound = torch.from_numpy(np.array(windows_BN, np.float32))
    power_BTM = log_mel(sound, spec).numpy().astype(np.float64)
    marks_BD = np.stack([traces(one_N) for one_N in windows_BN])
    return np.concatenate([row_statistics(power_BTM), marks_BD], axis=1)


def row_statistics(power_BTM: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Statistics of mel power (B, T, M) by row: (B, R * S)."""
    mean_power_B = np.maximum(power_BTM.mean(axis=(1, 2)), _TINY)
    relative_BTM = power_BTM / mean_power_B[:, None, None]
    floor = 10.0 ** (FLOOR_DB / 10.0)
    db_BTM = 10.0 * np.log10(np.maximum(relative_BTM, floor))
    energy_BM = 10.0 * np.log10(np.maximum(relative_BTM.mean(axis=1), floor))
    batch, _, bands = db_BTM.shape
    features_BRS = np.empty((batch, bands + 1, len(STATISTICS)))
    features_BRS[:, :-1] = _statistics(np.moveaxis(db_BTM, 1, 2), energy_BM)
    features_BRS[:, -1] = _statistics(db_BTM.reshape(batch, -1), np.zeros(batch))
    return features_BRS.reshape(batch, -1).astype(np.float32)


def _statistics(values: npt.NDArray[np.float64], energy: npt.NDArray[np.float64]) -> Any:
    """The eight statistics over the last axis, stacked on a new last axis."""
    mean = values.mean(axis=-1)
    centred = values - mean[..., None]
    square = centred * centred
    variance = square.mean(axis=-1)
    varies = variance > 1e-9
    safe = np.where(varies, variance, 1.0)
    skew = np.where(varies, (square * centred).mean(axis=-1) / safe**1.5, 0.0)
    kurtosis = np.where(varies, (square * square).mean(axis=-1) / safe**2 - 3.0, 0.0)
    return np.stack(
        [values.min(axis=-1), values.max(axis=-1), mean, np.median(values, axis=-1), variance,
         energy, skew, kurtosis],
        axis=-1,
    )  # fmt: skip


def power_db(windows_BN: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean power of each window in dBFS (B,)."""
    power_B = np.square(windows_BN, dtype=np.float64).mean(axis=1)
    return 10.0 * np.log10(np.maximum(power_B, _TINY))


class QualityMeter:
    """Features of a song that comes in blocks; holds no more than one window of sound.

    The last window of a song is judged if at least half of it is there, or if it is the only one.
    """

    def __init__(self) -> None:
        self._rest_N = np.zeros(0, np.float32)
        self._features: list[npt.NDArray[np.float32]] = []
        self._loudness: list[npt.NDArray[np.float64]] = []

    def push(self, block_N: npt.NDArray[np.floating]) -> None:
        """Hear the next samples, any number of them (-1..1, mono, 16 kHz)."""
        held_N = np.concatenate([self._rest_N, np.asarray(block_N, np.float32)])
        whole = max(0, (len(held_N) - WINDOW_SAMPLES) // WINDOW_STEP + 1)
        if whole:
            windows_BN = np.lib.stride_tricks.sliding_window_view(held_N, WINDOW_SAMPLES)
            self._hear(windows_BN[: whole * WINDOW_STEP : WINDOW_STEP])
        self._rest_N = held_N[whole * WINDOW_STEP :].copy()

    def finish(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Features of all windows (W, F), and whether each is loud enough to say something (W,)."""
        rest = len(self._rest_N)
        if rest >= WINDOW_SAMPLES // 2 or (not self._features and rest):
            self._hear(np.pad(self._rest_N, (0, max(0, N_FFT - rest)))[None])
        self._rest_N = np.zeros(0, np.float32)
        if not self._features:
            return np.zeros((0, N_FEATURES), np.float32), np.zeros(0, np.bool_)
        return np.concatenate(self._features), np.concatenate(self._loudness) >= QUIET_DB

    def _hear(self, windows_BN: npt.NDArray[np.float32]) -> None:
        self._features.append(window_features(windows_BN))
        self._loudness.append(power_db(windows_BN))
