"""What a beat map is made of: notes, bombs, walls, lights, charts and the map that holds them.

Axes (format v3): column 0 left .. 3 right, row 0 bottom .. 2 top, colour 0 red/left hand,
1 blue/right hand. Cut direction 0 up, 1 down, 2 left, 3 right, 4 up-left, 5 up-right, 6 down-left,
7 down-right, 8 any (a dot). Beats count from the first audio sample; a slot is 1/48 of a beat.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mgen.core.errors import UsageError

SLOTS_PER_BEAT = 48
"""Least common multiple of 1/16 and 1/12 beat: 1/2, 1/3, 1/4, 1/6, 1/8 are all exact."""

RED, BLUE = 0, 1
UP, DOWN, LEFT, RIGHT, UP_LEFT, UP_RIGHT, DOWN_LEFT, DOWN_RIGHT, DOT = range(9)


class Difficulty(enum.Enum):
    """The five difficulties of the game, easiest first. The value is the name in the files."""

    EASY = "Easy"
    NORMAL = "Normal"
    HARD = "Hard"
    EXPERT = "Expert"
    EXPERT_PLUS = "ExpertPlus"

    @property
    def rank(self) -> int:
        """Rank in Info.dat: 1, 3, 5, 7, 9."""
        return 2 * list(Difficulty).index(self) + 1

    @property
    def option(self) -> str:
        """Name on the command line: `easy` .. `expert-plus`."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def parse(cls, text: str) -> Difficulty:
        """Read a name as a person writes it (`expert-plus`, `ExpertPlus`, `expert+`).

        Raises
        ------
        UsageError
            If there is no such difficulty.
        """
        key = text.strip().lower().replace("+", "plus")
        key = key.replace("-", "").replace("_", "").replace(" ", "")
        for difficulty in cls:
            if difficulty.value.lower() == key:
                return difficulty
        names = ", ".join(d.option for d in cls)
        raise UsageError(f"no difficulty is called '{text}'; choose from {names} or all")


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """A coloured note."""

    beat: float
    column: int
    row: int
    colour: int
    direction: int
    angle: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Bomb:
    """A bomb: a cell that no saber may touch."""

    beat: float
    column: int
    row: int


@dataclass(frozen=True, slots=True, order=True)
class Wall:
    """An obstacle. Full height: row 0 height 5; crouch: row 2 height 3."""

    beat: float
    duration: float
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, order=True)
class Arc:
    """A guide line between two notes (read and kept, not yet generated)."""

    beat: float
    column: int
    row: int
    colour: int
    direction: int
    tail_beat: float
    tail_column: int
    tail_row: int
    tail_direction: int
    multiplier: float = 1.0
    tail_multiplier: float = 1.0
    mid_anchor: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """A burst slider (read and kept, never generated: not rankable)."""

    beat: float
    column: int
    row: int
    colour: int
    direction: int
    tail_beat: float
    tail_column: int
    tail_row: int
    segments: int
    squish: float = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Light:
    """A basic lighting event: event type, value, brightness."""

    beat: float
    kind: int
    value: int
    brightness: float = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Boost:
    """Switches the second colour palette on or off."""

    beat: float
    on: bool


@dataclass(frozen=True, slots=True, order=True)
class BpmChange:
    """From `beat` on, beats pass at `bpm`."""

    beat: float
    bpm: float


class TimeMap:
    """Beats to seconds and back, under a base tempo and its changes; beat 0 is second 0."""

    def __init__(self, bpm: float, changes: Sequence[BpmChange] = ()) -> None:
        if not (math.isfinite(bpm) and bpm > 0):
            raise UsageError(f"a tempo of {bpm} BPM makes no sense; give one between 10 and 1000")
        points = {0.0: bpm}
        points.update((c.beat, c.bpm) for c in sorted(changes) if c.bpm > 0)
        self.beats = sorted(points)
        self.bpms = [points[b] for b in self.beats]
        self.seconds = [0.0]
        for (b0, b1), m in zip(
            zip(self.beats, self.beats[1:], strict=False), self.bpms, strict=False
        ):
            self.seconds.append(self.seconds[-1] + (b1 - b0) * 60.0 / m)

    def to_seconds(self, beat: float) -> float:
        """Time of a beat, in seconds."""
        i = max(0, bisect.bisect_right(self.beats, beat) - 1)
        return self.seconds[i] + (beat - self.beats[i]) * 60.0 / self.bpms[i]

    def to_beats(self, second: float) -> float:
        """Beat at a time, fractional."""
        i = max(0, bisect.bisect_right(self.seconds, second) - 1)
        return self.beats[i] + (second - self.seconds[i]) * self.bpms[i] / 60.0

    def bpm_at(self, beat: float) -> float:
        """Tempo in force at a beat."""
        return self.bpms[max(0, bisect.bisect_right(self.beats, beat) - 1)]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One difficulty of a map. `njs` is the note jump speed, `njs_offset` its beat offset."""

    difficulty: Difficulty
    characteristic: str = "Standard"
    njs: float
    njs_offset: float = 0.0
    label: str = ""
    notes: tuple[Note, ...] = ()
    bombs: tuple[Bomb, ...] = ()
    walls: tuple[Wall, ...] = ()
    arcs: tuple[Arc, ...] = ()
    chains: tuple[Chain, ...] = ()
    lights: tuple[Light, ...] = ()
    boosts: tuple[Boost, ...] = ()
    bpm_changes: tuple[BpmChange, ...] = ()

    def time_map(self, bpm: float) -> TimeMap:
        """Beats to seconds for this chart, given the map's base tempo."""
        return TimeMap(bpm, self.bpm_changes)

    def mirrored(self) -> Chart:
        """The same chart for swapped hands (a probe for metrics, and an augmentation)."""
        swap = (UP, DOWN, RIGHT, LEFT, UP_RIGHT, UP_LEFT, DOWN_RIGHT, DOWN_LEFT, DOT)
        notes = tuple(
            replace(
                n, column=3 - n.column, colour=1 - n.colour, direction=swap[n.direction],
                angle=-n.angle,
            )
            for n in self.notes
        )  # fmt: skip
        return replace(self, notes=notes)


@dataclass(frozen=True, kw_only=True)
class BeatMap:
    """A whole level: metadata, charts, and the bytes of its song and cover."""

    title: str
    subtitle: str = ""
    artist: str = ""
    mapper: str = ""
    bpm: float
    preview_start_s: float = 12.0
    preview_duration_s: float = 10.0
    environment: str = "DefaultEnvironment"
    charts: tuple[Chart, ...] = ()
    song_filename: str = "song.egg"
    cover_filename: str = "cover.png"
    song: bytes = field(default=b"", repr=False)
    cover: bytes = field(default=b"", repr=False)
    song_samples: int = 0
    song_rate: int = 44100
    version: str = ""
    """Info.dat's version as read; empty for a map made here."""
    song_time_offset_s: float = 0.0
