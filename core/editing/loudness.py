"""Loudness by ITU-R BS.1770-5, and new bars made as loud as the ones that they replace.

Arrays: C channels, N samples, B bars.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEAM_S = 0.4
"""Seconds on each side of a seam over which its step is measured."""

SEAM_LU = 1.0
"""How far the step at a seam may at most be from the source's own."""

_QUIET_LUFS = -60.0  # softer than this, sound says nothing about how loud another should be
_MOST_DB, _LEAST_DB = 18.0, -24.0
_SEAM_DB = 18.0  # that the gain at a seam may be above that of its bar without its change
_ROUNDS = 12

# the filters of the standard's table at 48 kHz as analogue prototypes, so that they can be had at
# any rate (De Man, "Evaluation of Implementations of the EBU R128 Loudness Measurement", AES 145)
_SHELF_HZ, _SHELF_DB, _SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_SHELF_SLOPE = 0.4996667741545416
_HIGHPASS_HZ, _HIGHPASS_Q = 38.13547087602444, 0.5003270373238773
_OFFSET = -0.691
_RINGS_S = 0.25
"""The high-pass has fallen by 500 dB after that."""


def k_filter(rate: int) -> npt.NDArray[np.float64]:
    """The K-weighting at a rate in Hz: two second-order sections (2, 6), as SciPy takes them."""
    k = math.tan(math.pi * _SHELF_HZ / rate)
    high, middle = 10 ** (_SHELF_DB / 20), 10 ** (_SHELF_DB * _SHELF_SLOPE / 20)
    a0 = 1 + k / _SHELF_Q + k * k
    shelf = [
        (high + middle * k / _SHELF_Q + k * k) / a0, 2 * (k * k - high) / a0,
        (high - middle * k / _SHELF_Q + k * k) / a0, 1.0, 2 * (k * k - 1) / a0,
        (1 - k / _SHELF_Q + k * k) / a0,
    ]  # fmt: skip
    k = math.tan(math.pi * _HIGHPASS_HZ / rate)
    a0 = 1 + k / _HIGHPASS_Q + k * k
    highpass = [
        1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / _HIGHPASS_Q + k * k) / a0
    ]  # fmt: skip
    return np.array([shelf, highpass])


def channel_weights(channels: int) -> npt.NDArray[np.float64]:
    """Weights (C,): 1.41 for surround channels, none for the LFE, in the usual order of WAV files.

    Four channels are L R Ls Rs, five L R C Ls Rs, six L R C LFE Ls Rs, eight the same with two more
    surrounds; any other number counts each channel once.
    """
    layout = {4: "LRSS", 5: "LRCSS", 6: "LRCXSS", 8: "LRCXSSSS"}.get(channels, "L" * channels)
    return np.array([{"S": 1.41, "X": 0.0}.get(name, 1.0) for name in layout])


def weighted_power(samples_NC: npt.NDArray[np.floating], rate: int) -> npt.NDArray[np.float64]:
    """K-weighted power (N,), summed over the channels: its mean is what loudness measures.

    The recursive filters are applied over the spectrum, behind which silence lies for as long as
    they ring: the same but for rounding, without SciPy's signal package, half a second to import.
    """
    from scipy import fft

    count = len(samples_NC)
    size = fft.next_fast_len(count + round(_RINGS_S * rate), real=True)
    bins_FC = fft.rfft(np.asarray(samples_NC, np.float64), size, axis=0)
    response_F = k_response(rate, np.arange(len(bins_FC)) * (rate / size))
    weighted_NC = fft.irfft(bins_FC * response_F[:, None], size, axis=0)[:count]
    power_N: npt.NDArray[np.float64] = weighted_NC**2 @ channel_weights(samples_NC.shape[1])
    return power_N


def k_response(rate: int, hertz_F: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """The K-weighting's response (F,) at frequencies."""
    delay_F = np.exp(-2j * np.pi * hertz_F / rate)
    powers_3F = np.stack([np.ones_like(delay_F), delay_F, delay_F**2])
    sections_S2F = k_filter(rate).reshape(-1, 2, 3) @ powers_3F
    response_F: npt.NDArray[np.complex128] = (sections_S2F[:, 0] / sections_S2F[:, 1]).prod(0)
    return response_F


def to_lufs(power: float) -> float:
    """Loudness of a mean weighted power in LUFS; minus infinity for none."""
    return _OFFSET + 10 * math.log10(power) if power > 0 else -math.inf


def loudness(samples_NC: npt.NDArray[np.floating], rate: int, *, gated: bool = False) -> float:
    """Loudness in LUFS.

    Parameters
    ----------
    samples_NC
        Float samples, full scale is 1.0.
    gated
        Whether blocks of 400 ms, three quarters overlapping, softer than -70 LUFS or 10 LU below
        the mean of the others are left out (the integrated loudness of a programme).
    """
    power_N = weighted_power(samples_NC, rate)
    if not gated:
        return to_lufs(float(power_N.mean())) if len(power_N) else -math.inf
    block, hop = round(0.4 * rate), round(0.1 * rate)
    if len(power_N) < block:
        return -math.inf
    total = np.concatenate([[0.0], np.cumsum(power_N)])
    start = np.arange(0, len(power_N) - block + 1, hop)
    power_B = (total[start + block] - total[start]) / block
    loud_B = power_B[power_B > 10 ** ((-70 - _OFFSET) / 10)]
    if not len(loud_B):
        return -math.inf
    kept_B = loud_B[loud_B > loud_B.mean() * 0.1]
    return to_lufs(float(kept_B.mean()))


# matching


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where the bars of a span lie, and how their loudness is to change.

    Attributes
    ----------
    edges
        First samples of the bars and the end of the last one (B + 1), from the span's beginning.
    change_LU
        By how much each bar (B) may become louder or softer than the one that it replaces.
    first_beat, last_beat
        Samples over which the change comes in and goes out.
    opens, closes
        Whether sound that stays is before and after the span.
    seams_LU
        By how much the first and the last 400 ms are to differ from the old sound.
    """

    edges: tuple[int, ...]
    change_LU: tuple[float, ...]
    first_beat: int
    last_beat: int
    opens: bool = True
    closes: bool = True
    seams_LU: tuple[float, float] = (0.0, 0.0)


def match_loudness(
    new_NC: npt.NDArray[np.float32], old_NC: npt.NDArray[np.float32], rate: int, shape: Shape
) -> npt.NDArray[np.float32]:
    """Make new bars as loud as the old ones, changed by what is wished.

    The gain (in dB) runs linearly from the middle of one bar to that of the next, and over the
    first and the last beat between the bar's and the seam's. They are set so that the 400 ms at a
    seam are as loud as the old sound's, and so that the rest of each bar is, but for its change.
    Gains are bounded, so sound that lacks more than `_MOST_DB` stays too soft. Where the old sound
    is all but silent nothing is matched.
    """
    count = len(new_NC)
    power_new, power_old = (weighted_power(x_NC, rate) for x_NC in (new_NC, old_NC))
    windows, points, knot_of = _windows(shape, rate)
    wanted = [
        _level(power_old, window) + change
        for window, change in zip(windows, _changes(shape), strict=True)
    ]
    usable = [
        _level(power_old, window) > _QUIET_LUFS
        and _level(power_new, window) > _QUIET_LUFS - _MOST_DB
        for window in windows
    ]
    knots = np.zeros(len(windows))
    at_N = np.arange(count)
    for _ in range(_ROUNDS):
        gain_N = 10 ** (np.interp(at_N, points, knots[knot_of]) / 10)
        for i, window in enumerate(windows):
            if usable[i]:
                knots[i] += wanted[i] - _level(power_new * gain_N, window)
        knots = _kept_near(knots, usable, shape)
    gain_dB = np.interp(at_N, points, knots[knot_of])
    return (new_NC * (10 ** (gain_dB / 20))[:, None]).astype(np.float32)


def _changes(shape: Shape) -> tuple[float, ...]:
    """The change of each window of `_windows`."""
    before, after = shape.seams_LU
    return (*(before,) * shape.opens, *shape.change_LU, *(after,) * shape.closes)


def _windows(shape: Shape, rate: int) -> tuple[list[slice], list[float], list[int]]:
    """What is measured (a seam's 400 ms, each bar, the other seam's): windows of samples.

    And the points between which the gain runs, with the window that each one's gain is of. Bars at
    a seam are measured without the beat over which the gain gets to theirs, unless that is most of
    them.
    """
    count = shape.edges[-1]
    seam = min(round(SEAM_S * rate), count // 2)
    bars = [slice(a, b) for a, b in itertools.pairwise(shape.edges)]
    windows = [slice(0, seam)] * shape.opens + bars + [slice(count - seam, count)] * shape.closes
    first, last = int(shape.opens), len(windows) - 1 - shape.closes
    places = [((w.start + w.stop) / 2, i) for i, w in enumerate(windows)]
    begin = max(seam, shape.first_beat) if shape.opens else 0
    end = count - max(seam, shape.last_beat) if shape.closes else count
    if shape.opens:
        places.append((min(float(begin), places[first][0]), first))
    if shape.closes:
        places.append((max(float(end), places[last][0]), last))
    for i in {first, last}:
        inner = slice(max(windows[i].start, begin), min(windows[i].stop, end))
        if 2 * (inner.stop - inner.start) >= windows[i].stop - windows[i].start:
            windows[i] = inner
    places.sort()
    return windows, [at for at, _ in places], [i for _, i in places]


def _level(power_N: npt.NDArray[np.float64], window: slice) -> float:
    return to_lufs(float(power_N[window].mean()))


def _kept_near(
    knots: npt.NDArray[np.float64], usable: Sequence[bool], shape: Shape
) -> npt.NDArray[np.float64]:
    """Gains within bounds; those that nothing is known of are taken from the nearest that is."""
    known = np.flatnonzero(usable)
    if not len(known):
        return np.zeros_like(knots)
    nearest = known[np.abs(np.arange(len(knots))[:, None] - known).argmin(axis=1)]
    knots = np.clip(knots[nearest], _LEAST_DB, _MOST_DB)
    if shape.opens:
        knots[0] = min(knots[0], knots[1] - shape.change_LU[0] + _SEAM_DB)
    if shape.closes:
        knots[-1] = min(knots[-1], knots[-2] - shape.change_LU[-1] + _SEAM_DB)
    return knots
