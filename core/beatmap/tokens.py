"""Charts as tokens: the seam between charts and a learned mapper.

A chart becomes a header and segments of whole beats, about ten seconds each. A note is
`[time, colour, row, column, direction]`, its time a slot of 1/48 beat within its segment, so that
doubles share a time and nothing is rounded twice. The share of the segment in percent is for
reading only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, Chart, Difficulty, Note
from mgen.core.errors import MapError

SEGMENT_S = 9.6
"""Seconds that a segment lasts, before it is rounded to whole beats."""
COLOURS, ROWS, COLUMNS, DIRECTIONS = 2, 3, 4, 9
RATINGS = 11
"""Ratings are whole numbers from 0 to 10."""

_BPM_LEVELS = (70, 85, 100, 115, 130, 145, 160, 175, 190, 210)
_USUAL_NPS = {
    Difficulty.EASY: (0.8, 2.0, 2.5),
    Difficulty.NORMAL: (1.1, 2.8, 3.6),
    Difficulty.HARD: (1.7, 4.0, 5.2),
    Difficulty.EXPERT: (2.4, 5.5, 7.8),
    Difficulty.EXPERT_PLUS: (3.2, 6.5, 10.7),
}
"""Notes per second of official and modern maps: lowest, usual, highest."""


class NoteToken(NamedTuple):
    """A note in its segment; `slot` counts 1/48 beats from the segment's start."""

    slot: int
    colour: int
    row: int
    column: int
    direction: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a mapper is asked for before the first note.

    `bpm_level` is 0 to 10, `rating` 0 to 10 within the difficulty, `density` tenths of a note per
    second.
    """

    difficulty: Difficulty
    bpm_level: int
    rating: int
    density: int
    walls: bool
    bombs: bool

    def __str__(self) -> str:
        flags = [w for w, on in (("walls", self.walls), ("bombs", self.bombs)) if on]
        return (
            f"{self.difficulty.value} | BPM level {self.bpm_level} | rating {self.rating} | "
            f"{self.density / 10:.1f} notes/s | {' '.join(flags) or 'notes only'}"
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """`n_beats` whole beats from `start_beat` on, and their notes in order."""

    start_beat: int
    n_beats: int
    notes: tuple[NoteToken, ...]

    def __str__(self) -> str:
        length = self.n_beats * SLOTS_PER_BEAT
        return " ".join(
            f"[{100.0 * t.slot / length:.1f}% {t.colour} {t.row} {t.column} {t.direction}]"
            for t in self.notes
        )


@dataclass(frozen=True, slots=True)
class ChartTokens:
    """A whole chart as tokens. `str()` prints it with times in percent of the segment."""

    header: Header
    segments: tuple[Segment, ...]

    def __str__(self) -> str:
        return "\n".join([str(self.header), *map(str, self.segments)])


def nps_range(difficulty: Difficulty) -> tuple[float, float, float]:
    """Notes per second of a difficulty: lowest, usual, highest."""
    return _USUAL_NPS[difficulty]


def nps_of_rating(difficulty: Difficulty, rating: float) -> float:
    """Density that a rating asks for: 0 the lowest of the difficulty, 5 the usual, 10 the top."""
    low, usual, high = _USUAL_NPS[difficulty]
    if rating <= 5.0:
        return low + (usual - low) * rating / 5.0
    return usual + (high - usual) * (rating - 5.0) / 5.0


def rating_of_nps(difficulty: Difficulty, nps: float) -> float:
    """Rating of a density, 0 to 10: the inverse of `nps_of_rating`, clipped."""
    low, usual, high = _USUAL_NPS[difficulty]
    if nps <= usual:
        return max(0.0, 5.0 * (nps - low) / (usual - low))
    return min(10.0, 5.0 + 5.0 * (nps - usual) / (high - usual))


def bpm_level(bpm: float) -> int:
    """Tempo as a level from 0 (below 70 BPM) to 10 (210 and above)."""
    return sum(bpm >= edge for edge in _BPM_LEVELS)


def segment_beats(bpm: float) -> int:
    """Whole beats in a segment of about ten seconds."""
    return max(1, round(bpm / 60.0 * SEGMENT_S))


def header_of(chart: Chart, bpm: float) -> Header:
    """Header that describes a finished chart."""
    nps = _density(chart, bpm)
    return Header(
        difficulty=chart.difficulty,
        bpm_level=bpm_level(bpm),
        rating=round(rating_of_nps(chart.difficulty, nps)),
        density=round(10.0 * nps),
        walls=bool(chart.walls),
        bombs=bool(chart.bombs),
    )


def encode(chart: Chart, bpm: float) -> ChartTokens:
    """Write a chart's notes as tokens.

    Notes on the 1/48 grid come back exactly from `decode`, in order of time, colour, row, column
    and direction; others move to their nearest slot. Extra angles, bombs and walls are not kept.

    Raises
    ------
    MapError
        If a note lies before beat 0 or outside the 4 by 3 grid.
    """
    beats = segment_beats(bpm)
    length = beats * SLOTS_PER_BEAT
    by_segment: dict[int, list[NoteToken]] = {}
    for note in chart.notes:
        slot = round(note.beat * SLOTS_PER_BEAT)
        inside = (
            slot >= 0
            and note.colour in range(COLOURS)
            and note.row in range(ROWS)
            and note.column in range(COLUMNS)
            and note.direction in range(DIRECTIONS)
        )
        if not inside:
            raise MapError(
                f"the {chart.difficulty.value} note at beat {note.beat:g} lies outside the grid; "
                "mgen check names all such notes"
            )
        token = NoteToken(slot % length, note.colour, note.row, note.column, note.direction)
        by_segment.setdefault(slot // length, []).append(token)
    segments = tuple(
        Segment(i * beats, beats, tuple(sorted(by_segment.get(i, ()))))
        for i in range(max(by_segment, default=-1) + 1)
    )
    return ChartTokens(header_of(chart, bpm), segments)


def decode(tokens: ChartTokens | Iterable[Segment]) -> tuple[Note, ...]:
    """Notes of tokens, in order."""
    segments = tokens.segments if isinstance(tokens, ChartTokens) else tokens
    return tuple(
        Note(
            (segment.start_beat * SLOTS_PER_BEAT + token.slot) / SLOTS_PER_BEAT,
            token.column, token.row, token.colour, token.direction,
        )
        for segment in segments
        for token in sorted(segment.notes)
    )  # fmt: skip


def _density(chart: Chart, bpm: float) -> float:
    if len(chart.notes) < 2:
        return 0.0
    clock = chart.time_map(bpm)
    first = clock.to_seconds(min(n.beat for n in chart.notes))
    last = clock.to_seconds(max(n.beat for n in chart.notes))
    return len(chart.notes) / (last - first) if last > first else 0.0
