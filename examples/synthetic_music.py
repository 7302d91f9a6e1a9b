"""Music made of simple waves, for the judge's good examples: chiptunes, synths, fuzz, ambience.

What is rough on purpose (pulse waves, noise drums, distortion, drifting pads, wind) must not be
taken for a defect, and few free songs sound like that. Each seed is one piece; nothing is sampled
from a recording.
"""

from __future__ import annotations

import numpy as np

RATE = 16000
_INNER = 4  # oversampling, so that steep waves do not alias into a defect of their own
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


def _wave(kind: str, hz: float, n: int, rng: np.random.Generator) -> np.ndarray:
    phase = (np.arange(n) * hz / (RATE * _INNER) + rng.random()) % 1.0
    if kind == "pulse":
        return np.where(phase < rng.choice([0.125, 0.25, 0.5]), 1.0, -1.0)
    if kind == "triangle":
        return 4 * np.abs(phase - 0.5) - 1
    if kind == "stepped":  # a four-bit triangle, as a console's bass is
        return np.round((4 * np.abs(phase - 0.5) - 1) * 7.5) / 7.5
    if kind == "saws":
        return sum(((phase * d) % 1.0) * 2 - 1 for d in (1.0, 1.004, 0.996)) / 3
    return np.sin(2 * np.pi * phase)


def _note(kind: str, hz: float, n: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(n) / (RATE * _INNER)
    fall = np.exp(-t * rng.choice([0.5, 2.0, 6.0]))
    edge = min(n // 2, int(0.003 * RATE * _INNER))
    shape = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / max(1, edge))
    return _wave(kind, hz, n, rng) * fall * shape


def _drum(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(n) / (RATE * _INNER)
    if kind == "kick":
        return np.sin(2 * np.pi * (45 * t + 12 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14)
    hold = int(rng.integers(1, 9)) * _INNER // 2 + 1  # a noise channel holds its values
    noise = np.repeat(rng.uniform(-1, 1, n // hold + 1), hold)[:n]
    return noise * np.exp(-t * (18 if kind == "snare" else 60)) * (0.8 if kind == "snare" else 0.4)


def _ambience(n: int, rng: np.random.Generator) -> np.ndarray:
    """Slow pads, each voice drifting in pitch by itself, a bed of wind, a long echo."""
    from scipy.signal import butter, fftconvolve, sosfilt

    t = np.arange(n) / RATE
    out = np.zeros(n)
    scale, root = _SCALES[rng.integers(len(_SCALES))], 55 * 2 ** (rng.integers(0, 12) / 12)
    fall = rng.uniform(0.7, 2.0)
    for _ in range(int(rng.integers(4, 14))):
        octave = 12 * rng.integers(0, 4)
        hz = root * 2 ** ((scale[rng.integers(len(scale))] + octave) / 12)
        drift = rng.uniform(0, 0.006) * np.sin(2 * np.pi * (rng.uniform(0.1, 5) * t + rng.random()))
        phase = 2 * np.pi * hz * np.cumsum(1 + drift) / RATE
        partials = range(1, 1 + min(20, int(5500 // hz)))
        voice = sum(k**-fall * np.sin(k * phase + rng.uniform(0, 6)) for k in partials)
        start, length = rng.uniform(-2, n / RATE - 3), rng.uniform(4, 12)
        out += (
            voice
            * np.clip(np.sin(np.pi * (t - start) / length), 0, None)
            * ((t > start) & (t < start + length))
        )
    out /= max(1e-9, float(np.std(out)))
    if rng.random() < 0.7:
        low = rng.uniform(100, 1500)
        band = butter(1, [low, low * rng.uniform(1.5, 5)], "bandpass", fs=RATE, output="sos")
        wind = sosfilt(band, rng.standard_normal(n))
        wind *= 1 + 0.8 * np.sin(2 * np.pi * (rng.uniform(0.05, 0.4) * t + rng.random()))
        out += wind / np.std(wind) * 10 ** (rng.uniform(-30, -6) / 20)
    room = np.arange(3 * RATE)
    tail = rng.standard_normal(len(room)) * np.exp(-room / (rng.uniform(0.3, 1.0) * RATE))
    wet = fftconvolve(out, tail)[:n]
    return out + wet / max(1e-9, float(np.std(wet))) * rng.uniform(0.1, 1.0)


def synthesise(seed: int, seconds: float = 20.0) -> np.ndarray:
    """One piece, (N,) float32 at 16 kHz."""
    from scipy.signal import butter, resample_poly, sosfilt

    rng = np.random.default_rng([20, seed])
    if rng.random() < 0.3:
        drifting = _ambience(int(seconds * RATE), rng)
        return (0.7 * drifting / np.abs(drifting).max()).astype(np.float32)
    step = int(60 / rng.uniform(80, 180) / 4 * RATE * _INNER)
    out = np.zeros(int(seconds * RATE * _INNER) + 8 * step)
    root, scale = 110 * 2 ** (rng.integers(0, 12) / 12), _SCALES[rng.integers(len(_SCALES))]
    style = rng.choice(["chip", "synth", "fuzz"])
    kinds = {
        "chip": ["pulse", "pulse", "triangle", "stepped"], "synth": ["saws", "sine", "triangle"],
        "fuzz": ["saws"],
    }[style]  # fmt: skip
    for voice in range(int(rng.integers(2, 5))):
        kind, octave = str(rng.choice(kinds)), (0.5, 2, 1, 4)[voice]
        length = int(rng.choice([1, 2, 4, 8]))
        density, motif = rng.uniform(0.5, 1.0), rng.integers(0, 10, 16)
        line = np.zeros(len(out))
        for i, at in enumerate(range(0, len(out) - length * step, length * step)):
            if rng.random() < density:
                degree = int(motif[i % 16]) + int(rng.integers(0, 2))
                semitones = scale[degree % len(scale)] + 12 * (degree // len(scale))
                hz = root * octave * 2 ** (semitones / 12)
                chord = (1.0, 1.5) if style == "fuzz" else (1.0,)
                for part in chord:
                    line[at : at + length * step] += _note(kind, hz * part, length * step, rng)
        if style == "fuzz":  # an amplifier's distortion, and the loudspeaker after it
            line = np.tanh(line * rng.uniform(2, 20))
            corner = rng.uniform(3500, 7000)
            line = sosfilt(butter(2, corner, fs=RATE * _INNER, output="sos"), line)
        out += line * rng.uniform(0.3, 1.0)
    if rng.random() < 0.8:
        loud = rng.uniform(0.3, 1.2)
        for i, at in enumerate(range(0, len(out) - 4 * step, step)):
            hit = {0: "kick", 4: "snare"}.get(i % 8) or ("hat" if rng.random() < 0.7 else "")
            if hit:
                out[at : at + 4 * step] += loud * _drum(hit, 4 * step, rng)
    if rng.random() < 0.5:  # an echo
        delay = 3 * step
        out[delay:] += rng.uniform(0.2, 0.5) * out[:-delay]
    small = resample_poly(out, 1, _INNER)[: int(seconds * RATE)]
    return (0.7 * small / np.abs(small).max()).astype(np.float32)
