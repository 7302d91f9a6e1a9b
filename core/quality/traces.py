"""Traces that defects leave in five seconds of sound and that mel bands cannot show.

Shapes: N samples of one window, T frames, K bins, G blocks, P partials, D figures.

A mel band averages over 32 ms and tens of hertz: a click of 1 ms, a line of mains hum, a flattened
peak, a step of eight bits or a pitch that wavers by a hundredth are gone in it. Each function
looks at the samples, or at finer spectra, for one of them. Every figure is the same for the same
sound at another level.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]
Figures = list[float]

_RATE = 16000
_TINY = 1e-9
_FRAME, _HOP = 2048, 512
_FLOOR = 1e-8
"""Power below the window's own by more than 80 dB counts as this: digital silence is no defect."""

TRACES_VERSION = 1
"""Counted up with every change of what a figure means."""

BANDS_HZ = (100, 300, 700, 1500, 2500, 3500, 4500, 5500, 6500, 7500)
MIRRORS_HZ = (4000.0, 5512.5)
MAINS_HZ = (50.0, 60.0)
_NOT_MAINS_HZ = (46.9, 53.3, 56.6, 63.4)
_PARTIALS = 12

TRACES: dict[str, tuple[str, ...]] = {
    "peaks": (
        "crest_db", "share_over_99", "share_over_97", "share_over_90", "share_one_side",
        "flat_blocks_mean", "flat_blocks_median", "flat_samples", "peak_spread_db",
        "blocks_at_peak",
    ),
    "steps": ("distinct", "repeated", "mirror_4000", "mirror_5512"),
    "noise": tuple(
        f"{name}_{low}"
        for low in BANDS_HZ[:-1]
        for name in ("floor_db", "flatness", "flattest")
    ),
    "edges": ("rumble_db", "bass_db", "drop_db", "drop_hz", "reach_hz"),
    "hum": (
        "mains_low", "mains_high", "mains_low_more", "mains_high_more", "lines", "lines_db",
        "bass_floor_db",
    ),
    "impulses": (
        *(
            f"{name}_{scale}"
            for scale in ("short", "long")
            for name in ("over_12", "over_18", "over_24", "top_5", "q_99", "q_999")
        ),
        "peaked_mean", "peaked_most",
    ),
    "gaps": ("falls", "rises", "both", "steepest_db"),
    "wavering": (
        "common_q50", "common_q75", "common_q90", "apart", "share_common", "slow", "fast",
        "slow_peak", "fast_peak",
    ),
}  # fmt: skip
"""What is measured, by the defect that it is meant for, in the order of the figures."""

N_TRACES = sum(len(names) for names in TRACES.values())


def traces(sound_N: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Figures (D,) of one window of sound at 16 kHz, of at least 2048 samples; finite always."""
    sound = np.asarray(sound_N, np.float32)
    sound = sound - sound.mean()
    spectrum = np.fft.rfft(sound)
    hz = np.fft.rfftfreq(len(sound), 1 / _RATE)
    power = np.square(spectrum.real, dtype=np.float64) + np.square(spectrum.imag, dtype=np.float64)
    above = float(power[hz >= 40].sum())
    deep = [_db(float(power[(hz >= a) & (hz < b)].sum()) / (above + _TINY)) for a, b in _DEEP_HZ]
    # what lies below hearing must not decide how loud the rest is
    spectrum[hz < 40] = 0
    heard = np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    rms = float(np.sqrt(np.mean(np.square(heard, dtype=np.float64))))
    if rms < 1e-7:
        return np.zeros(N_TRACES, np.float32)
    heard /= rms
    stft_TK = _stft(heard, _FRAME, _HOP)
    power_TK = np.square(stft_TK.real) + np.square(stft_TK.imag)
    found = [
        *_peaks(sound / rms), *_steps(sound / rms, power_TK), *_noise(power_TK),
        *deep, *_edges(power_TK), *_hum(heard), *_impulses(heard), *_gaps(heard),
        *_wavering(stft_TK, power_TK),
    ]  # fmt: skip
    return np.array(found, np.float32)


_DEEP_HZ = ((0, 40), (40, 100))


def _db(power: Any) -> Any:
    return 10.0 * np.log10(np.maximum(power, _FLOOR))


def _rfft(rows: npt.NDArray[np.float32], size: int | None = None) -> npt.NDArray[np.complex64]:
    """torch's is some three times as fast as numpy's on rows of a power of two."""
    import torch

    spectra: npt.NDArray[np.complex64] = torch.fft.rfft(torch.from_numpy(rows), size).numpy()
    return spectra


def _irfft(rows: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    import torch

    sound: npt.NDArray[np.float32] = torch.fft.irfft(torch.from_numpy(rows)).numpy()
    return sound


def _log_share(share: float) -> float:
    return float(np.log10(share + 1e-5))


def _stft(sound: Sound, frame: int, hop: int) -> npt.NDArray[np.complex64]:
    """Frames of a Hann window, scaled so that the power of all bins is the sound's own."""
    if len(sound) < frame:
        sound = np.pad(sound, (0, frame - len(sound)))
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    window *= np.float32(np.sqrt(2.0 / (frame * np.square(window).sum())))
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop]
    return _rfft(frames * window)


def _peaks(sound: Sound) -> Figures:
    """Clipping: samples crowd at the rail, tops are flat, and every loud moment is as loud."""
    size = np.abs(sound)
    top = float(size.max()) + _TINY
    shares = [_log_share(float((size >= part * top).mean())) for part in (0.99, 0.97, 0.9)]
    high, low = float(sound.max()), float(sound.min())
    one_side = max(float((sound >= 0.97 * high).mean()), float((sound <= 0.97 * low).mean()))
    block_GN = size[: len(size) // 160 * 160].reshape(-1, 160)  # 10 ms
    tops_G = block_GN.max(axis=1)
    loud_G = tops_G >= 0.4 * tops_G.max()  # the last samples are in no block
    flat_G = (block_GN[loud_G] >= 0.95 * tops_G[loud_G, None]).mean(axis=1)
    still = np.abs(np.diff(sound)) < 0.004 * top
    flat = float((still & (size[1:] > 0.6 * top)).mean())
    longer_G = np.sort(size[: len(size) // 800 * 800].reshape(-1, 800).max(axis=1))  # 50 ms
    upper_G = longer_G[len(longer_G) // 2 :]
    return [
        _db(float(np.square(sound).mean())) * -1 + 2 * _db(top), *shares, _log_share(one_side),
        float(flat_G.mean()), float(np.median(flat_G)), _log_share(flat),
        float(np.std(20 * np.log10(upper_G + _TINY))), float((longer_G >= 0.93 * top).mean()),
    ]  # fmt: skip


def _steps(sound: Sound, power_TK: npt.NDArray[np.floating]) -> Figures:
    """Few bits: few different values; a low rate whose samples are held mirrors the spectrum."""
    ordered = np.sort(sound)
    step = 1e-5 * max(float(ordered[-1] - ordered[0]), _TINY)
    distinct = float((np.diff(ordered) > step).mean())
    repeated = float((np.abs(np.diff(sound)) <= step).mean())
    return [
        _log_share(distinct), _log_share(repeated),
        *(_mirror(power_TK, hz) for hz in MIRRORS_HZ),
    ]  # fmt: skip


def _mirror(power_TK: npt.NDArray[np.floating], hz: float) -> float:
    """Correlation of what happens above a frequency with the mirror of what happens below it."""
    at = hz * _FRAME / _RATE
    away = np.arange(20, 200)
    sides = []
    for sign in (-1, 1):
        part = np.log(power_TK[:, np.round(at + sign * away).astype(int)] + _FLOOR)
        part -= part.mean(axis=0)
        part -= part.mean(axis=1, keepdims=True)
        sides.append(part)
    below, above = sides
    scale = float(np.sqrt(np.square(below).sum() * np.square(above).sum()))
    return float((below * above).sum()) / scale if scale > _TINY else 0.0


def _noise(power_TK: npt.NDArray[np.floating]) -> Figures:
    """Hiss and surface noise: the floor between the partials in quiet moments, and how even it is.

    Flatness is the arithmetic over the geometric mean of a frame's bins in dB: 2.5 for noise,
    more for tones and for the holes that a coder leaves.
    """
    db_TK = 10.0 * np.log10(power_TK + _FLOOR * 1e-2)
    quiet = max(0, int(0.1 * (len(power_TK) - 1)))
    floor_K = np.partition(db_TK, quiet, axis=0)[quiet]
    found = []
    edges = [round(hz * _FRAME / _RATE) for hz in BANDS_HZ]
    for first, stop in itertools.pairwise(edges):
        even_T = 10 * np.log10(power_TK[:, first:stop].mean(axis=1) + _FLOOR * 1e-2)
        even_T -= db_TK[:, first:stop].mean(axis=1)
        flattest = float(np.partition(even_T, quiet)[quiet])
        found += [float(np.median(floor_K[first:stop])), float(even_T.mean()), flattest]
    return found


def _edges(power_TK: npt.NDArray[np.floating]) -> Figures:
    """A limited band: the steepest fall of the mean spectrum, where, and how far up it reaches."""
    mean_K = power_TK.mean(axis=0)
    db = 10 * np.log10(mean_K[:1024].reshape(-1, 16).mean(axis=1) + _FLOOR * 1e-3)  # by 125 Hz
    falls = db[4:-3] - db[7:]
    falls = np.where(db[4:-3] > db.max() - 50, falls, 0.0)
    steepest = int(np.argmax(falls))
    reach = np.flatnonzero(db > db.max() - 60)[-1]
    return [float(falls[steepest]), (steepest + 5.5) * 125.0, float(reach * 125.0)]


def _hum(heard: Sound) -> Figures:
    """Mains hum: lines that stand still for five seconds, at multiples of 50 or 60 Hz."""
    frame = 8192
    power_TK = np.square(np.abs(_stft(heard, frame, frame // 2)[:, :800]))
    nearly_least = min(1, len(power_TK) - 1)
    floor_K = np.partition(power_TK, nearly_least, axis=0)[nearly_least].astype(np.float64)
    db_K = 10 * np.log10(floor_K + _FLOOR * 1e-2)
    around_KN = np.lib.stride_tricks.sliding_window_view(np.pad(db_K, 12, mode="edge"), 25)
    over_K = db_K - np.partition(around_KN, 12, axis=1)[:, 12]
    low, high = np.array([_comb(over_K, hz) for hz in (*MAINS_HZ, *_NOT_MAINS_HZ)]).T
    line_K = over_K > 12
    return [
        float(low[:2].max()), float(high[:2].max()),
        float(low[:2].max() - low[2:].mean()), float(high[:2].max() - high[2:].mean()),
        float(line_K.sum()), float(_db(floor_K[line_K].sum())), float(_db(floor_K[20:66].sum())),
    ]  # fmt: skip


def _comb(over_K: npt.NDArray[np.float64], hz: float) -> tuple[float, float]:
    """How far the lowest 6 harmonics, and the 10 after them, stand above what is around."""
    at = np.round(np.arange(1, 17) * hz * 8192 / _RATE).astype(int)
    height = np.clip(np.maximum.reduce([over_K[at - 1], over_K[at], over_K[at + 1]]), 0, 30)
    return float(height[:6].mean()), float(height[6:].mean())


def _impulses(heard: Sound) -> Figures:
    """Clicks and crackle: moments of a millisecond that nothing before or after explains.

    The sound is whitened block by block (linear prediction of order 24), which leaves little of
    tones, and each moment is set against those around it, before as well as after: a drum goes on.
    (Godsill and Rayner 1998, Digital Audio Restoration, ch. 5: clicks show in that residual.)
    """
    rest_GN = _whitened(heard)
    usual_G = np.median(np.abs(rest_GN[:, ::4]), axis=1) + 1e-6
    power = np.square(rest_GN / usual_G[:, None])
    peaked_G = np.log10(np.square(power).mean(axis=1) / np.square(power.mean(axis=1)))
    flat = power.reshape(-1)
    found: Figures = []
    for size, before, after in ((8, (4, 14), (4, 14)), (32, (2, 8), (7, 13))):
        found += _isolated(flat[: len(flat) // size * size].reshape(-1, size), before, after)
    return [*found, float(peaked_G.mean()), float(peaked_G.max())]


def _whitened(heard: Sound, block: int = 4096, order: int = 24) -> npt.NDArray[np.float32]:
    """Residual of linear prediction, block by block (G, block)."""
    count = max(1, len(heard) // block)
    padded = np.pad(heard, (order, max(0, count * block - len(heard))))
    starts = np.arange(count)[:, None] * block
    block_GN = padded[starts + np.arange(block + order)]
    window = np.hanning(block + order).astype(np.float32)
    spectrum = _rfft(block_GN * window, 2 * block)
    lags_GL = _irfft(spectrum * spectrum.conj())[:, : order + 1].astype(np.float64)
    lags_GL[:, 0] = lags_GL[:, 0] * (1 + 1e-6) + 1e-6
    apart = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    weights_GL = np.linalg.solve(lags_GL[:, apart], lags_GL[:, 1:, None])[..., 0]
    taps_GL = np.concatenate([np.ones((count, 1)), -weights_GL], axis=1).astype(np.float32)
    whole = _rfft(block_GN, 2 * block) * _rfft(taps_GL, 2 * block)
    return _irfft(whole)[:, order : order + block]


def _isolated(
    power: npt.NDArray[np.floating], before: tuple[int, int], after: tuple[int, int]
) -> Figures:
    """How many moments a second stand out, and by how much; moments are rows of samples."""
    most = power.max(axis=1).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(power.mean(axis=1), dtype=np.float64)])
    reach = max(before[1], after[1]) + 1
    n = len(most) - 2 * reach
    if n < 8:
        return [0.0] * 6
    at = np.arange(reach, reach + n)
    earlier = (total[at - before[0] + 1] - total[at - before[1] + 1]) / (before[1] - before[0])
    later = (total[at + after[1]] - total[at + after[0]]) / (after[1] - after[0])
    over = 10 * np.log10((most[at] + 1e-3) / (np.maximum(earlier, later) + 1e-3))
    middle = over[1:-1]
    summit = middle[(middle >= over[:-2]) & (middle > over[2:])]
    seconds = n * power.shape[1] / _RATE
    counts = [float(np.log10(0.1 + (summit > db).sum() / seconds)) for db in (12, 18, 24)]
    ordered = np.sort(over)
    return [
        *counts, float(ordered[-5:].mean()), float(ordered[int(0.99 * (n - 1))]),
        float(ordered[int(0.999 * (n - 1))]),
    ]  # fmt: skip


def _gaps(heard: Sound) -> Figures:
    """Dropouts: the sound falls away, or comes back, within 8 ms."""
    power = np.square(heard[: len(heard) // 64 * 64]).reshape(-1, 64).mean(axis=1)  # 4 ms
    db = 10 * np.log10(power + 1e-5)
    change = db[2:] - db[:-2]
    seconds = len(heard) / _RATE
    falls, rises = (float((side > 22).sum()) / seconds for side in (-change, change))
    return [
        float(np.log10(0.1 + falls)), float(np.log10(0.1 + rises)),
        float(np.log10(0.1 + min(falls, rises))), float((-change).max(initial=0.0)),
    ]  # fmt: skip


def _wavering(stft_TK: npt.NDArray[np.complex64], power_TK: npt.NDArray[np.floating]) -> Figures:
    """Wow and flutter: all partials rise and fall together, in cents from one frame to the next.

    The strongest partials' frequencies come from the phase (Flanagan and Golden 1966); their common
    movement is the median, and how far they part from it tells vibrato and new notes from a
    turntable.
    """
    first, stop = 38, 640  # 300 Hz to 5 kHz
    frames = len(stft_TK)
    if frames < 20:
        return [0.0] * len(TRACES["wavering"])
    part = power_TK[:, first:stop]
    inner = part[:, 1:-1]
    summit = np.where((inner > part[:, :-2]) & (inner >= part[:, 2:]), inner, 0.0)
    bins_TP = np.argpartition(-summit, _PARTIALS, axis=1)[:, :_PARTIALS]
    strong_TP = np.take_along_axis(summit, bins_TP, axis=1)[:-2]
    bins_TP = (bins_TP + first + 1)[:-2]
    rows = np.arange(frames - 2)[:, None]
    phase = [np.angle(stft_TK[rows + step, bins_TP]) for step in range(3)]
    expected = 2 * np.pi * _HOP / _FRAME * bins_TP
    turns = 2 * np.pi * _HOP / _FRAME
    now, then = (
        bins_TP + (np.mod(phase[i + 1] - phase[i] - expected + np.pi, 2 * np.pi) - np.pi) / turns
        for i in (0, 1)
    )
    cents_TP = 1200 * np.log2(np.maximum(then, 1) / np.maximum(now, 1))
    loud_TP = strong_TP > 1e-4 * strong_TP.max(axis=1, keepdims=True) + _FLOOR
    cents_TP = np.where(loud_TP, cents_TP, np.nan)
    enough_T = loud_TP.sum(axis=1) >= 3
    if enough_T.sum() < 10:
        return [0.0] * len(TRACES["wavering"])
    common_T, apart_T = np.zeros(frames - 2), np.full(frames - 2, 50.0)
    common_T[enough_T] = np.nanmedian(cents_TP[enough_T], axis=1)
    parted = np.abs(cents_TP[enough_T] - common_T[enough_T, None])
    apart_T[enough_T] = np.nanmedian(parted, axis=1)
    size_T = np.abs(common_T[enough_T])
    steady_T = np.where(apart_T < 6.0, np.clip(common_T, -15, 15), 0.0)
    spectrum = np.square(np.abs(np.fft.rfft(steady_T * np.hanning(frames - 2), 512))) / (frames - 2)
    hz = np.fft.rfftfreq(512, _HOP / _RATE)
    slow, fast = (spectrum[(hz >= a) & (hz < b)] for a, b in ((0.3, 2.5), (4.0, 12.0)))
    return [
        *(float(np.log10(np.quantile(size_T, q) + 0.05)) for q in (0.5, 0.75, 0.9)),
        float(np.log10(np.median(apart_T) + 0.05)),
        float((np.abs(common_T) > 2 * apart_T).mean()),
        float(np.log10(slow.mean() + 1e-3)), float(np.log10(fast.mean() + 1e-3)),
        float(slow.max() / (spectrum.mean() + 1e-3)), float(fast.max() / (spectrum.mean() + 1e-3)),
    ]  # fmt: skip
