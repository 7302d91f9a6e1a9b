"""Where bars lie in the samples of a file: those that the song has, and those put behind its end.

Letters: B bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgen.core.bars import BAR_RATE, bar_samples
from mgen.core.editing.spans import describe_bars, runs
from mgen.core.errors import UsageError
from mgen.core.store import BarTable, SongRow
from mgen.core.store.tables import BAR_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One bar in the samples of a file.

    Attributes
    ----------
    bar
        Its position, from 0.
    first, last
        Its first sample and the one past its last, at the file's rate.
    model_first, model_last
        The same at 16 kHz, counted from the file's beginning.
    like_first
        Where the sound begins that the new bar takes its width, highs and loudness from: the bar
        itself; for an appended one, the last bar of the song.
    beat
        Samples of a beat, at the file's rate.
    """

    bar: int
    first: int
    last: int
    model_first: int
    model_last: int
    like_first: int
    beat: int


def with_appended(bars: BarTable, count: int) -> BarTable:
    """A song's bars and `count` more behind the last: as long as the last valid one is.

    Raises
    ------
    UsageError
        If no bar of the song is valid.
    """
    if not count:
        return bars
    valid = np.flatnonzero(bars.valid)
    if not len(valid):
        raise UsageError("the song has no bar that could be continued; --bars can edit them")
    model = int(valid[-1])
    length_s = float(bars.end_s[model] - bars.start_s[model])
    total = len(bars) + count
    rows = np.concatenate([np.arange(len(bars)), np.full(count, model)])
    columns = {name: getattr(bars, name)[rows] for name in BAR_COLUMNS}
    columns["index"] = np.arange(total, dtype=np.int32)
    columns["start_s"] = np.concatenate(
        [bars.start_s, bars.end_s[-1] + length_s * np.arange(count)]
    )
    columns["end_s"] = np.concatenate(
        [bars.end_s, bars.end_s[-1] + length_s * np.arange(1, count + 1)]
    )
    row = np.concatenate([bars.row, np.full(count, -1)])
    return BarTable(**columns, row=row)


def require_valid(bars: BarTable, edited: Sequence[int]) -> None:
    """Refuse bars that no model has learned from.

    Raises
    ------
    UsageError
        If one of them has an odd number of beats, or would be stretched too far.
    """
    odd = [bar for bar in edited if not bars.valid[bar]]
    if odd:
        what = "bar" if len(odd) == 1 else "bars"
        raise UsageError(
            f"{what} {describe_bars(odd)}: too short, too long or with other beats than the bars"
            " around, so not what models have learned from; --force edits them all the same"
        )


def place_bars(
    bars: BarTable, song: SongRow, edited: Sequence[int], rate: int
) -> list[tuple[Place, ...]]:
    """The edited bars in the samples of the song's file, in spans of neighbours.

    Raises
    ------
    UsageError
        If a bar is shorter than two samples.
    """
    begin = round(song.start_s * BAR_RATE)
    spans = []
    for run in runs(edited):
        places = []
        for bar in run:
            start_s, end_s = float(bars.start_s[bar]), float(bars.end_s[bar])
            first, last = bar_samples(start_s, end_s, rate)
            low, high = bar_samples(start_s - song.start_s, end_s - song.start_s, BAR_RATE)
            if min(last - first, high - low) < 2:
                raise UsageError(f"bar {bar + 1}: its edges coincide; nothing can be written there")
            place = Place(
                bar=bar, first=first, last=last, model_first=begin + low, model_last=begin + high,
                like_first=first, beat=max(1, round((last - first) / max(1, bars.beats[bar]))),
            )  # fmt: skip
            if bars.row[bar] < 0:
                place = replace(place, like_first=_last_of_song(bars, place, rate))
            places.append(place)
        spans.append(tuple(places))
    return spans


def _last_of_song(bars: BarTable, place: Place, rate: int) -> int:
    """First sample of the bar that appended ones are like: the last valid one."""
    last = int(np.flatnonzero(bars.valid & (bars.row >= 0))[-1])
    return bar_samples(float(bars.start_s[last]), float(bars.end_s[last]), rate)[0]
