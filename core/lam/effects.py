"""What actions do, by measurement: plain figures of bars, compared over every context there is.

A style is compared with the other bars of its song, a step with the bar before it. A name is what
differs most, in standard deviations of that difference over all bars (Cohen's d): nothing here
guesses, and an action that changes none of these figures is said to.

Letters: X bars, N samples, T frames, F bins, E figures, R actions, K numbers of a bar's action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mgen.core.store import RATE, BarTable
from mgen.kernels.log_mel import ONSETS, log_mel
from mgen.kernels.onset_strength import onset_lag, onset_strength

PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FIGURES = (
    "loudness_db", "brightness_oct", "onsets_per_beat", "bass_db", "noise_db", "build_db",
    "offbeat_db", *(f"pitch_{p}_db" for p in PITCHES),
)  # fmt: skip
"""RMS level; spectral centroid in octaves; onsets a beat; share of the power below 150 Hz; spectral
flatness of the power; level of the second half of the bar over the first; strength of onsets off
the beats over those on them; share of each pitch class, 110 Hz to 1.76 kHz."""

_WORDS = {
    "loudness_db": ("louder", "quieter"), "brightness_oct": ("brighter", "darker"),
    "onsets_per_beat": ("denser", "sparser"), "bass_db": ("more bass", "less bass"),
    "noise_db": ("noisier", "purer"), "build_db": ("builds up", "dies away"),
    "offbeat_db": ("off the beat", "on the beat"),
    **{f"pitch_{p}_db": (f"more {p}", f"less {p}") for p in PITCHES},
}  # fmt: skip
NO_EFFECT = "no clear effect"
CLEAR = 0.3
"""Standard deviations from which an effect is named: between Cohen's small (.2) and medium (.5)."""
_NAMED = 2
_CERTAIN = 3.5
"""Standard errors that a difference must be from 0 to be named: many figures are looked at."""
_FEW = 3
"""Bars below which nothing is said of an action."""

_N_FFT, _BASS_HZ = 1024, 150.0
_PITCH_FFT, _PITCH_HZ = 8192, (110.0, 1760.0)
_ON_BEAT = 0.15
"""Share of a beat, to either side of it, in which an onset is on it."""
_FLOOR = 1e-9
_NEAR, _AROUND, _RISE = 3, 10, 0.06
"""An onset is the largest in so many frames of 10 ms to either side, and so much above the mean of
those around it."""


def bar_figures(
    pcm_XN: npt.NDArray[np.int16], beats_X: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64]:
    """Figures (X, E) of warped bars; silence is at the floor of each."""
    samples_XN = torch.from_numpy(pcm_XN.astype(np.float32) / np.float32(32768))
    power_XFT = torch.stft(
        samples_XN, _N_FFT, _N_FFT // 2, window=torch.hann_window(_N_FFT), center=False,
        return_complex=True,
    ).abs().square().double() / _N_FFT  # fmt: skip
    hz_F = torch.arange(_N_FFT // 2 + 1, dtype=torch.float64) * (RATE / _N_FFT)
    power_XF = power_XFT.mean(-1) + _FLOOR / len(hz_F)
    total_X = power_XF.sum(1)
    centroid_X = (power_XF * hz_F).sum(1) / total_X
    bass_X = power_XF[:, hz_F < _BASS_HZ].sum(1) / total_X
    flat_X = (power_XF.log().mean(1) - power_XF.mean(1).log()) * (10.0 / math.log(10.0))
    level_X = samples_XN.double().square().mean(1).clamp(min=_FLOOR)
    env_XT = onset_strength(log_mel(samples_XN, ONSETS), onset_lag(ONSETS))
    density_X = _onsets(env_XT) / torch.from_numpy(beats_X.astype(np.float64)).clamp(min=1.0)
    half = samples_XN.shape[1] // 2
    halves_X2 = samples_XN[:, : 2 * half].unflatten(1, (2, half)).double().square().mean(2)
    halves_X2 = 10.0 * halves_X2.clamp(min=_FLOOR).log10()
    columns = (10.0 * level_X.log10(), centroid_X.clamp(min=20.0).log2(), density_X,
               10.0 * bass_X.log10(), flat_X, halves_X2[:, 1] - halves_X2[:, 0],
               _off_beat(env_XT, beats_X))  # fmt: skip
    plain_XE = torch.stack(columns, dim=1)
    found_XE: npt.NDArray[np.float64] = torch.cat([plain_XE, _pitches(samples_XN)], 1).numpy()
    return found_XE


def _pitches(samples_XN: torch.Tensor) -> torch.Tensor:
    """Share of each pitch class in dB (X, 12), of square roots of the power: a loud note does not
    drown the chord.
    """
    spectrum_XFT = torch.stft(
        samples_XN, _PITCH_FFT, _PITCH_FFT // 2, window=torch.hann_window(_PITCH_FFT),
        center=False, return_complex=True,
    ).abs()  # fmt: skip
    hz_F = torch.arange(_PITCH_FFT // 2 + 1) * (RATE / _PITCH_FFT)
    inside_F = (hz_F >= _PITCH_HZ[0]) & (hz_F <= _PITCH_HZ[1])
    midi_F = 69.0 + 12.0 * (hz_F[inside_F] / 440.0).log2()
    member_FP = torch.nn.functional.one_hot(midi_F.round().long() % 12, 12).double()
    member_FP /= member_FP.sum(0)
    strength_XP = spectrum_XFT[:, inside_F].double().mean(2) @ member_FP + _FLOOR
    return 10.0 * (strength_XP / strength_XP.mean(1, keepdim=True)).log10()


def _off_beat(env_XT: torch.Tensor, beats_X: npt.NDArray[np.int8]) -> torch.Tensor:
    """Mean onset strength away from the beats over that on them, in dB (X,)."""
    env_XT = env_XT.double()
    place_T = torch.arange(env_XT.shape[1]) / env_XT.shape[1]
    beats_X1 = torch.from_numpy(beats_X.astype(np.float64)).clamp(min=1.0)[:, None]
    phase_XT = (place_T * beats_X1 + 0.5) % 1.0 - 0.5
    on_XT = (phase_XT.abs() <= _ON_BEAT).double()
    on_X = (env_XT * on_XT).sum(1) / on_XT.sum(1).clamp(min=1.0)
    off_X = (env_XT * (1.0 - on_XT)).sum(1) / (1.0 - on_XT).sum(1).clamp(min=1.0)
    return 10.0 * ((off_X + 0.01) / (on_X + 0.01)).log10()


def _onsets(env_XT: torch.Tensor) -> torch.Tensor:
    """How many sounds begin in each bar (X,)."""
    around_XT = torch.nn.functional.avg_pool1d(
        env_XT[:, None], 2 * _AROUND + 1, 1, _AROUND, count_include_pad=False
    )[:, 0]
    largest_XT = torch.nn.functional.max_pool1d(env_XT[:, None], 2 * _NEAR + 1, 1, _NEAR)[:, 0]
    return ((env_XT >= largest_XT) & (env_XT > around_XT + _RISE)).sum(1).double()


def differences(
    figures_XE: npt.NDArray[np.float64], table: BarTable, *, steps: bool
) -> npt.NDArray[np.float64]:
    """How bars differ from what they are compared with (X, E); NaN where there is nothing.

    Parameters
    ----------
    figures_XE
        Of the bars of `table`, whose rows of one song stand together, in order.
    table
        The bars.
    steps
        Whether with the bar before, or else with the mean of the song's other bars.
    """
    out_XE = np.full(figures_XE.shape, np.nan)
    if steps:
        before = np.flatnonzero((np.diff(table.song) == 0) & (np.diff(table.index) == 1))
        out_XE[before + 1] = np.diff(figures_XE, axis=0)[before]
        return out_XE
    for song in np.unique(table.song):
        rows = np.flatnonzero(table.song == song)
        if len(rows) > 1:
            total_E = figures_XE[rows].sum(axis=0)
            others_XE = (total_E - figures_XE[rows]) / (len(rows) - 1)
            out_XE[rows] = figures_XE[rows] - others_XE
    return out_XE


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an action does: mean differences, and in standard deviations, by name of the figure.

    A size below `least` says nothing: it is small, or may be chance in so few bars.
    """

    mean: dict[str, float]
    size: dict[str, float]
    least: float = CLEAR

    @property
    def name(self) -> str:
        """What differs most, in words: `louder, brighter`."""
        order = sorted(self.size, key=lambda figure: -abs(self.size[figure]))
        clear = [f for f in order if abs(self.size[f]) >= self.least][:_NAMED]
        words = [_WORDS[f][0 if self.size[f] > 0 else 1] for f in clear]
        return ", ".join(words) or NO_EFFECT


def effects_of(
    differences_XE: npt.NDArray[np.float64], carriers: Sequence[npt.NDArray[np.int64]]
) -> list[Effect]:
    """The effect of each action over the bars that carry it.

    Parameters
    ----------
    differences_XE
        As `differences` gives them.
    carriers
        Rows of the bars with each action.
    """
    known_X: npt.NDArray[np.bool_] = np.asarray(np.isfinite(differences_XE).all(axis=1))
    spread_E = np.ones(len(FIGURES))
    if known_X.sum() > 1:
        spread_E = np.maximum(differences_XE[known_X].std(axis=0), 1e-9)
    found = []
    for rows in carriers:
        mine = rows[known_X[rows]]
        mean_E = differences_XE[mine].mean(axis=0) if len(mine) >= _FEW else np.zeros(len(FIGURES))
        size_E = mean_E / spread_E
        found.append(
            Effect(
                mean={f: round(float(v), 4) for f, v in zip(FIGURES, mean_E, strict=True)},
                size={f: round(float(v), 4) for f, v in zip(FIGURES, size_E, strict=True)},
                least=max(CLEAR, _CERTAIN / math.sqrt(max(1, len(mine)))),
            )
        )
    return found


def shared_information(first_X: npt.ArrayLike, second_X: npt.ArrayLike) -> float:
    """Normalised mutual information of two labellings: 0 where neither tells of the other, 1 where
    each gives the other; over the mean of their entropies (0 where one of them is constant).
    """
    _, first = np.unique(np.asarray(first_X), return_inverse=True)
    _, second = np.unique(np.asarray(second_X), return_inverse=True)
    if not len(first):
        return 0.0
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1.0 / len(first))
    entropies = [_entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))]
    if min(entropies) < 1e-9:
        return 0.0
    return max(0.0, (sum(entropies) - _entropy(joint.ravel())) / (0.5 * sum(entropies)))


def _entropy(p: npt.NDArray[np.float64]) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
