"""What a checker objects to in a map, under MapCheck's names.

`check_map` looks at a whole level, `check_chart` at one difficulty. Thresholds are MapCheck
2.7.1's defaults; parity is that of npm `bsmap`. An empty list of errors means that the map loads
and can be played; it says nothing about the music.
"""

from __future__ import annotations

from mgen.core.beatmap.chart import BeatMap, Chart
from mgen.core.beatmap.findings import clashes, flow, level, objects
from mgen.core.beatmap.findings.sheet import SEVERITIES, Finding, Severity, Sheet

__all__ = ["SEVERITIES", "Finding", "Severity", "check_chart", "check_map"]


def check_map(beat_map: BeatMap) -> list[Finding]:
    """Check a level: its files and texts first, then its charts in order.

    The length of the song comes from `song_samples`; where that is 0, the rules on the end of the
    song are left out.
    """
    duration_s = level.duration_of(beat_map)
    sheets = [Sheet(chart, beat_map.bpm, duration_s) for chart in beat_map.charts]
    found = list(level.check(beat_map, sheets))
    for sheet in sheets:
        found += _check_sheet(sheet)
    return found


def check_chart(chart: Chart, bpm: float, duration_s: float | None = None) -> list[Finding]:
    """Check one difficulty.

    Parameters
    ----------
    chart
        The difficulty.
    bpm
        Base tempo of the map.
    duration_s
        Length of the song; None leaves out the rules on its end.

    Returns
    -------
    list of Finding
        The chart's own first, then those at a beat, in order of beats.
    """
    return _check_sheet(Sheet(chart, bpm, duration_s))


def _check_sheet(sheet: Sheet) -> list[Finding]:
    found = [*objects.check(sheet), *flow.check(sheet), *clashes.check(sheet)]
    found.sort(key=lambda f: (f.beat is not None, f.beat or 0.0, SEVERITIES.index(f.severity)))
    return found
