"""The band above the model's: the source bar's own, where the new bar gives reason for it.

Every band's envelope has a floor (what sounds on) and attacks on top of it. The attacks follow
those of the new bar in the octaves below: where the old bar had a hi-hat and the new one has none,
the old one's is gone, and where the new one has an attack of its own, texture of the source's own
attacks is shaped by it. Where the new bar is the old one, nothing changes.

Arrays: C channels, N samples, F frequencies, B bands, T frames of a millisecond.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.editing.filters import Spectrum, low_weights

_PRESENCE = (0.45, 0.97)
"""Shares of the crossover's frequency: the octaves by which the band above is told what to do."""

_EDGES_HZ = (9000.0, 12000.0, 16000.0)
_SLOPE = 0.04  # of a band's edge, to each side
_SMOOTH_FRAMES = 7
_FLOOR_FRAMES = 121
_RIPPLE = 1.4  # power over the lowest around it that is still no attack
_MASKED = 0.05  # of the floor is added to attacks that are compared: less than that is not heard
_HALF_LIFE = 40
_BRIGHTER = 2.0  # the floor may rise by so much
_EXCESS = 1.41  # power by which an attack has to be stronger than the old one to add anything
_LOUDEST = 2.0  # attack above the crossover over attack below it, at most
_GRAIN_FRAMES = 60
_GRAINS = 8
_TINY = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class _Envelope:
    """Levels (T,): a floor, and the attacks on top of it; their powers add up."""

    floor: npt.NDArray[np.float64]
    attack: npt.NDArray[np.float64]

    @property
    def level(self) -> npt.NDArray[np.float64]:
        return np.hypot(self.floor, self.attack)


def reshape_highs(
    highs_NC: npt.NDArray[np.float32], new_N: npt.NDArray[np.float32],
    old_N: npt.NDArray[np.float32], rate: int, crossover: float,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """The source's highs (N, C), as the new sound would have them.

    Parameters
    ----------
    highs_NC
        What the source has above the crossover, all channels.
    new_N, old_N
        Below it, mono: what is heard now, and what was there.
    crossover
        Its frequency in Hz.
    """
    hop = max(1, round(0.001 * rate))
    new, old = (_envelope(_presence(x_N, rate, crossover)[:, None], hop) for x_N in (new_N, old_N))
    spectrum = Spectrum(highs_NC, rate)
    bands = [spectrum.weighted(weights_F) for weights_F in _bands(spectrum.hertz_F)]
    envelopes = [_envelope(band_NC, hop) for band_NC in bands]
    attack_gain_T = _followed(
        _ringing(new.attack) + _MASKED * new.floor, _ringing(old.attack) + _MASKED * old.floor, 1.0
    )
    floor_gain_T = _followed(new.floor, old.floor, _BRIGHTER)
    excess_T = np.sqrt(np.maximum(0.0, new.attack**2 - _EXCESS * old.attack**2))
    starts = _strongest(sum((e.attack**2 for e in envelopes), np.zeros_like(excess_T)))
    out_NC = np.zeros_like(highs_NC)
    for band_NC, own in zip(bands, envelopes, strict=True):
        wanted_T = np.hypot(own.attack * attack_gain_T, own.floor * floor_gain_T)
        out_NC += band_NC * _at_samples(wanted_T / np.maximum(own.level, _TINY), hop, len(new_N))
        power = float((old.attack**2).sum())
        ratio = min(_LOUDEST, np.sqrt(float((own.attack**2).sum()) / power)) if power else 0.0
        if ratio * excess_T.max(initial=0.0) > _TINY:
            texture_NC = _texture(band_NC, own, starts, hop)
            out_NC += texture_NC * _at_samples(ratio * excess_T, hop, len(new_N))
    return out_NC


def _presence(
    samples_N: npt.NDArray[np.float32], rate: int, crossover: float
) -> npt.NDArray[np.float32]:
    spectrum = Spectrum(samples_N, rate)
    low, high = (share * crossover for share in _PRESENCE)
    below_F = low_weights(spectrum.hertz_F, 0.9 * low, 1.1 * low)
    return spectrum.weighted(low_weights(spectrum.hertz_F, 0.97 * high, high) * (1 - below_F))


def _bands(hertz_F: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float32]]:
    """Weights of bands that add up to 1 at every frequency."""
    lows = [
        low_weights(hertz_F, (1 - _SLOPE) * edge, (1 + _SLOPE) * edge)
        for edge in _EDGES_HZ if edge < hertz_F[-1]
    ]  # fmt: skip
    zero, one = (np.full(len(hertz_F), level, np.float32) for level in (0, 1))
    return [b - a for a, b in itertools.pairwise([zero, *lows, one])]


def _envelope(samples_NC: npt.NDArray[np.float32], hop: int) -> _Envelope:
    """Level of a band over all channels, a frame per `hop` samples."""
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    power_N = (samples_NC.astype(np.float64) ** 2).sum(axis=1)
    power_T = np.pad(power_N, (0, -len(power_N) % hop)).reshape(-1, hop).mean(axis=1)
    window = np.hanning(_SMOOTH_FRAMES + 2)[1:-1]
    smooth_T = np.convolve(power_T, window / window.sum(), mode="same")
    power_T = np.maximum(smooth_T, 0.0)
    lowest_T = minimum_filter1d(power_T, _FLOOR_FRAMES, mode="nearest")
    steady_T = _RIPPLE * uniform_filter1d(lowest_T, _FLOOR_FRAMES, mode="nearest")
    floor_T = np.minimum(power_T, steady_T)
    return _Envelope(np.sqrt(floor_T), np.sqrt(power_T - floor_T))


def _ringing(attack_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Attacks that fall no faster than by half in `_HALF_LIFE` frames.

    Above, a cymbal rings on when nothing of it is left below: its tail goes with its attack.
    """
    keep = 0.5 ** (1 / _HALF_LIFE)
    held = 0.0
    out_T = np.empty_like(attack_T)
    for i, level in enumerate(attack_T.tolist()):
        held = max(level, held * keep)
        out_T[i] = held
    return out_T


def _followed(
    new_T: npt.NDArray[np.float64], old_T: npt.NDArray[np.float64], most: float
) -> npt.NDArray[np.float64]:
    """Gain that lets a level follow from the old to the new; 0 where there is no new one."""
    return np.minimum(most, new_T / np.maximum(old_T, _TINY))


def _at_samples(values_T: npt.NDArray[np.float64], hop: int, count: int) -> npt.NDArray[np.float32]:
    middles = (np.arange(len(values_T)) + 0.5) * hop
    return np.interp(np.arange(count), middles, values_T)[:, None].astype(np.float32)


def _strongest(power_T: npt.NDArray[np.float64]) -> list[int]:
    """Frames of the strongest attacks, a grain apart, the strongest first."""
    left_T = power_T.copy()
    found: list[int] = []
    for _ in range(_GRAINS):
        at = int(left_T.argmax())
        if left_T[at] <= max(0.01 * power_T.max(), _TINY**2):
            break
        found.append(at)
        left_T[max(0, at - _GRAIN_FRAMES) : at + _GRAIN_FRAMES] = 0.0
    return found


def _texture(
    band_NC: npt.NDArray[np.float32], own: _Envelope, starts: list[int], hop: int
) -> npt.NDArray[np.float32]:
    """What the attacks of a band are made of, at an even level of 1, as long as the band.

    Grains of 60 ms around the strongest attacks, each divided by its own envelope, end to end with
    crossfades of half their length.
    """
    out_NC = np.zeros_like(band_NC)
    level_T = np.maximum(own.level, 0.05 * own.level.max(initial=_TINY) + _TINY)
    even_NC = band_NC / _at_samples(level_T, hop, len(band_NC))
    length, half = _GRAIN_FRAMES * hop, _GRAIN_FRAMES * hop // 2
    window = np.sin(np.pi * (np.arange(2 * half) + 0.5) / (2 * half)).astype(np.float32)
    last = max(0, len(band_NC) - length)
    for number, at in enumerate(range(0, len(out_NC), half) if starts else ()):
        begin = min(max(0, starts[number % len(starts)] * hop - 5 * hop), last)
        grain_NC = even_NC[begin : begin + 2 * half] * window[: len(band_NC) - begin, None]
        room_NC = out_NC[at : at + len(grain_NC)]
        room_NC += grain_NC[: len(room_NC)]
    return out_NC
