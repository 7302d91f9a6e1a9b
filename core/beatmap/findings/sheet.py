"""What the checks work on: a finding, and a chart laid out in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mgen.core.beatmap.chart import Bomb, Chart, Note
from mgen.core.beatmap.parity import Verdict, judge_hand
from mgen.core.beatmap.rules import Rules
from mgen.core.beatmap.states import valid_cell, valid_note
from mgen.core.beatmap.swings import Swing

Severity = Literal["error", "warning", "rank", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "rank", "info")
"""`rank`: playable, but a ranking community would refuse it."""

FALLBACK_NJS = {"Expert": 12.0, "ExpertPlus": 16.0}
"""What the game takes where the speed is 0; 10 for the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a checker objects to.

    `rule` is MapCheck's name; `difficulty` names the chart, empty for the level as a whole; `beat`
    and `time_s` say where, None for the chart as a whole.
    """

    rule: str
    severity: Severity
    message: str
    difficulty: str = ""
    beat: float | None = None
    time_s: float | None = None


class Sheet:
    """A chart with the seconds of its objects, as the checks need it.

    Objects outside the grid are left out of `notes` and `bombs`: another check reports them.
    """

    def __init__(self, chart: Chart, bpm: float, duration_s: float | None = None) -> None:
        self.chart, self.bpm, self.duration_s = chart, bpm, duration_s
        self.to_seconds = chart.time_map(bpm).to_seconds
        self.notes = sorted((n for n in chart.notes if valid_note(n)), key=lambda n: n.beat)
        self.bombs = sorted((b for b in chart.bombs if valid_cell(b)), key=lambda b: b.beat)
        self.note_times = [self.to_seconds(n.beat) for n in self.notes]
        self.bomb_times = [self.to_seconds(b.beat) for b in self.bombs]
        name = chart.difficulty.value
        self.njs = chart.njs if chart.njs > 0 else FALLBACK_NJS.get(name, 10.0)
        self.rules = Rules(chart.difficulty, bpm, self.njs, chart.njs_offset)
        plain = chart.characteristic == "Standard"
        self.name = name if plain else f"{name} {chart.characteristic}"

    @cached_property
    def judged(self) -> tuple[list[tuple[Swing, Verdict]], list[tuple[Swing, Verdict]]]:
        """Swings of the red and of the blue hand with their verdicts on parity."""
        red, blue = (judge_hand(c, self.notes, self.bombs, self.to_seconds) for c in (0, 1))
        return red, blue

    def finding(
        self, rule: str, severity: Severity, message: str, beat: float | None = None
    ) -> Finding:
        """A finding of this chart, at a beat or on the whole."""
        time_s = None if beat is None else self.to_seconds(beat)
        return Finding(rule, severity, message, self.name, beat, time_s)


def cell_name(thing: Note | Bomb) -> str:
    """A cell in words, `column 1 row 0`."""
    return f"column {thing.column} row {thing.row}"


def hand_name(colour: int) -> str:
    """The hand of a colour."""
    return "red" if colour == 0 else "blue"


def together(times: Sequence[float], i: int, window_s: float) -> range:
    """Indices after `i` whose time is at most `window_s` later; times ascend."""
    j = i + 1
    while j < len(times) and times[j] <= times[i] + window_s:
        j += 1
    return range(i + 1, j)
