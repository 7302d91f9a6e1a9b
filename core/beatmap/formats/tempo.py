"""Tempo changes as files write them: beats of the game, of old editors, and sample regions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mgen.core.beatmap.chart import BpmChange, TimeMap
from mgen.core.beatmap.formats.fields import Record, tidy
from mgen.core.errors import MapError

MIN_BPM = 1e-3


def checked(change: BpmChange, where: str) -> BpmChange:
    """Refuse a tempo that no clock can follow."""
    if change.bpm < MIN_BPM:
        raise MapError(
            f"{where}: the tempo at beat {change.beat:g} is {change.bpm:g} BPM;"
            " correct it in an editor"
        )
    return change


def rebase(
    marks: Iterable[tuple[float, float]], bpm: float, where: str
) -> tuple[tuple[BpmChange, ...], Callable[[float], float]]:
    """Turn an old editor's BPM changes into changes that the game's beats follow.

    `_customData._BPMChanges` moves the editor's grid only: all beats in such a file, the marks'
    included, pass at the base tempo. The editor starts a new whole beat at each mark, cutting the
    last beat before it short; here that beat gets the tempo that makes it exactly one, so that
    every second stays where it was and notes on the editor's grid are on ours.

    Parameters
    ----------
    marks
        (beat at the base tempo, BPM from there on).
    bpm
        The base tempo.

    Returns
    -------
    tuple
        The changes, and the function from a base beat to a beat among them.
    """
    points: dict[float, float] = {}
    seconds: list[tuple[float, float]] = [(0.0, 0.0)]  # (new beat, base beat) at each mark
    now = bpm
    for base, tempo in sorted(marks):
        checked(BpmChange(base, tempo), where)
        at, base_at = seconds[-1]
        length = (base - base_at) * now / bpm
        beat = at + max(0, math.ceil(length - 0.01))  # the editors' own tolerance
        if beat > at:
            rest = length - (beat - 1 - at)
            if abs(rest - 1.0) > 1e-6:
                points[beat - 1] = now / rest
        points[beat] = tempo
        seconds.append((beat, base))
        now = tempo
    changes = tuple(BpmChange(b, m) for b, m in sorted(points.items()))
    times = TimeMap(bpm, changes)
    return changes, lambda base: times.to_beats(base * 60.0 / bpm)


def span(at: Callable[[float], float], start: float, duration: float) -> float:
    """Length in our beats of something that lasts `duration` from `start` in the file's."""
    return duration if at is float else at(start + duration) - at(start)


def regions(bpm: float, changes: Sequence[BpmChange], samples: int, rate: int) -> list[Any]:
    """Build the regions of constant tempo that `BPMInfo.dat` lists, in samples and beats."""
    times = TimeMap(bpm, changes)
    end = times.to_beats(samples / rate)
    edges = [b for b in times.beats if b < end] + [end]
    return [
        {
            "_startSampleIndex": min(samples, round(times.to_seconds(a) * rate)),
            "_endSampleIndex": min(samples, round(times.to_seconds(b) * rate)),
            "_startBeat": tidy(a),
            "_endBeat": tidy(b),
        }
        for a, b in itertools.pairwise(edges)
    ]


def changes_from_regions(audio: Record, bpm: float) -> tuple[BpmChange, ...]:
    """Read the tempo changes of a v4 audio data file (`bpmData`).

    A song of one region at the base tempo has none.
    """
    rate = audio.number("songFrequency", None)
    changes: list[BpmChange] = []
    for region in audio.records("bpmData"):
        beats = region.number("eb") - region.number("sb")
        samples = region.number("ei") - region.number("si")
        if beats > 0 and samples > 0 and rate > 0:
            changes.append(BpmChange(region.number("sb"), beats * 60.0 * rate / samples))
    if len(changes) == 1 and changes[0].beat == 0 and abs(changes[0].bpm - bpm) < 1e-3 * bpm:
        return ()
    return tuple(sorted(changes))
