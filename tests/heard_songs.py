"""Songs as `hearing` reports them, made up: what the chart generator's tests listen to."""

from __future__ import annotations

import numpy as np

from mgen.core.beatmap.hearing import Heard
from mgen.core.beatmap.rhythm import Timing


def made_up_song(
    *,
    bpm: float = 128.0,
    bars: int = 56,
    beats_per_bar: int = 4,
    seed: int = 1,
    silent_bars: range = range(0),
    share: float = 0.75,
) -> tuple[Heard, Timing]:
    """A song of repeated 8-bar sections: kick on beats, snare on 2 and 4, hats, a melody.

    Parameters
    ----------
    silent_bars
        Bars in which nothing sounds.
    share
        How many of the melody's sixteenths sound.
    """
    rng = np.random.default_rng(seed)
    step = 12
    per_bar = beats_per_bar * 48 // step
    phrases = rng.random((3, 4, per_bar)) < share * np.tile([0.9, 0.35, 0.7, 0.35], beats_per_bar)
    slots, strength, bands = [], [], []
    for bar in range(bars):
        if bar in silent_bars:
            continue
        phrase = phrases[(bar // 8) % 3, bar % 4]
        for k in range(per_bar):
            on_beat = k % 4 == 0
            snare = on_beat and (k // 4) % 2 == 1
            if not (on_beat or phrase[k]):
                continue
            slots.append(bar * beats_per_bar * 48 + k * step)
            level = 0.9 if k == 0 else 0.75 if on_beat else 0.5 if k % 2 == 0 else 0.3
            strength.append(min(1.0, level + 0.08 * rng.random()))
            bands.append((0.9, 0.2, 0.1) if on_beat and not snare else (0.1, 0.8, 0.7))
    spb = 60.0 / bpm
    times = np.array(slots) * spb / 48
    band = np.array(bands, np.float32)
    sounds = np.array([b not in silent_bars for b in range(bars)])
    first_of: dict[tuple[int, int], int] = {}
    repeat = np.full(bars, -1, np.int64)
    for bar in range(bars):
        repeat[bar] = first_of.setdefault(((bar // 8) % 3, bar % 4), bar)
        if repeat[bar] == bar or not sounds[bar]:
            repeat[bar] = -1
    heard = Heard(
        slot_E=np.array(slots, np.int64),
        time_s_E=times,
        strength_E=np.array(strength, np.float32),
        low_E=band[:, 0],
        mid_E=band[:, 1],
        high_E=band[:, 2],
        harmonic_E=np.full(len(slots), 0.5, np.float32),
        sustain_E=np.full(len(slots), 0.1, np.float32),
        loudness_K=np.repeat(0.8 * sounds, beats_per_bar).astype(np.float32),
        bar_section_M=(np.arange(bars) // 8 % 3).astype(np.int64),
        repeat_of_M=repeat,
        n_beats=bars * beats_per_bar,
        duration_s=bars * beats_per_bar * spb,
    )
    return heard, Timing(bpm, 0.0, 1.0, beats_per_bar, (), True)
