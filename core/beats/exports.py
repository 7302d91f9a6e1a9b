"""Writing beats for a person to check: as text that `read_beats` takes back, and as clicks.

Arrays: N samples of a song, n samples of one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from mgen.core.beats.grid import Beats

CLICK_SONG_PEAK = 0.5
"""The loudest that a song may be under clicks, of full scale; clicks take at most 0.45 more."""

_CLICK_S = 0.03
_DECAY_S = 0.008
# Hz, peak: two octaves apart at most, so that all are clear over music and none is shrill
_DOWNBEAT, _BEAT, _UNKNOWN = (1760.0, 0.45), (880.0, 0.3), (587.0, 0.3)


def beats_text(beats: Beats) -> str:
    """Beats as Beat This! and mir_eval read them: a line of `seconds<TAB>place in the bar` each.

    Times carry as many digits as it takes to get the same float64 back; a place of 0 is unknown.
    Without beats, the text is the comment `# no beats`.
    """
    lines = [
        f"{_seconds(time)}\t{place}\n"
        for time, place in zip(beats.time_s, beats.beat_in_bar.tolist(), strict=True)
    ]
    return "".join(lines) or "# no beats\n"


def labels_text(beats: Beats) -> str:
    """Beats as a label track of Audacity: `start<TAB>end<TAB>bar.place`, start and end the same.

    Bars are counted from the first downbeat, which is 1.1; a pickup before it is in bar 0. Beats
    whose place is unknown are labelled `?`. Without beats, one label says `no beats`.
    """
    lines, bar = [], 0
    for time, place in zip(beats.time_s, beats.beat_in_bar.tolist(), strict=True):
        bar += place == 1
        seconds = _seconds(time)
        lines.append(f"{seconds}\t{seconds}\t{f'{bar}.{place}' if place else '?'}\n")
    return "".join(lines) or "0.000000\t0.000000\tno beats\n"


def _seconds(time: np.float64) -> str:
    """Without an exponent, which not every program reads."""
    return np.format_float_positional(time, unique=True, trim="k", min_digits=6)


def mix_clicks(
    blocks: Iterable[npt.NDArray[np.int16]], beats: Beats, rate: int, *, gain: float
) -> Iterator[npt.NDArray[np.int16]]:
    """Lay a click over every beat of a song, one block in memory at a time.

    A click starts on the sample nearest to its beat. Downbeats are an octave above the other beats
    and louder; beats whose place is unknown are lower than both. A click ends where the next one
    starts, so that no two add up.

    Parameters
    ----------
    blocks
        The song (n,) int16, block after block.
    beats
        Seconds from the song's first sample.
    rate
        Hz.
    gain
        What the song is multiplied by; its peak times this must not pass `CLICK_SONG_PEAK`, or the
        sum may be clipped.
    """
    starts = np.rint(beats.time_s * rate).astype(np.int64)
    ends = np.minimum(starts + round(_CLICK_S * rate), np.append(starts[1:], np.iinfo("i8").max))
    sounds = [
        _click(rate, *(_UNKNOWN if place == 0 else _DOWNBEAT if place == 1 else _BEAT))
        for place in range(3)
    ]
    kinds = np.clip(beats.beat_in_bar, 0, 2)
    at = 0
    for block in blocks:
        mixed_n = block.astype(np.float32) * np.float32(gain)
        first = int(np.searchsorted(ends, at, "right"))
        last = int(np.searchsorted(starts, at + len(block), "left"))
        for i in range(first, last):
            begin, end = max(starts[i], at), min(ends[i], at + len(block))
            mixed_n[begin - at : end - at] += sounds[kinds[i]][begin - starts[i] : end - starts[i]]
        yield np.clip(np.rint(mixed_n), -32768, 32767).astype(np.int16)
        at += len(block)


def _click(rate: int, hertz: float, peak: float) -> npt.NDArray[np.float32]:
    """A struck tone in int16 units: a cosine, so that its first sample is its loudest."""
    t = np.arange(round(_CLICK_S * rate)) / rate
    fall = np.exp(-t / _DECAY_S) * (1 - t / _CLICK_S)
    return (32767 * peak * fall * np.cos(2 * np.pi * hertz * t)).astype(np.float32)
