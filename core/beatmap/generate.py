"""Charts for a song: what is heard becomes notes, and the notes become patterns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mgen.core.beatmap.chart import (
    SLOTS_PER_BEAT,
    Bomb,
    BpmChange,
    Chart,
    Difficulty,
    Note,
    TimeMap,
    Wall,
)  # fmt: skip
from mgen.core.beatmap.decoder import Decoder
from mgen.core.beatmap.density import STYLES, choose_target
from mgen.core.beatmap.hands import Bars, Strike, assign_hands
from mgen.core.beatmap.obstacles import make_bombs, make_walls
from mgen.core.beatmap.placement import (
    Candidates,
    Onsets,
    choose_onsets,
    find_candidates,
    notes_per_second,
)  # fmt: skip
from mgen.core.beatmap.playability import PlacementContext
from mgen.core.beatmap.remap import join_span
from mgen.core.beatmap.rules import Rules
from mgen.core.beatmap.speed import choose_speed
from mgen.core.beatmap.tokens import nps_of_rating, nps_range
from mgen.core.errors import UsageError

if TYPE_CHECKING:
    from mgen.core.beatmap.hearing import Heard
    from mgen.core.beatmap.rhythm import Timing

_ONSETS, _HANDS, _STATES, _OBSTACLES = range(4)
_BEGINNERS = (Difficulty.EASY, Difficulty.NORMAL)
_AIMS, _NEAR_ENOUGH = 5, 0.03
"""Tries to come to a density that was asked for, and how near (in logs) is near enough."""
_BUSY_PER_S = 5.0
"""Events per second of a song that gets its difficulty's usual density."""


@dataclass(frozen=True, kw_only=True)
class ChartRequest:
    """What a mapper asks for.

    `rating` (0-10) and `nps` (notes per second) set the density, `nps` first; `njs` the note jump
    speed. Where they are None the difficulty's usual value is taken, modulated by the song.
    """

    difficulty: Difficulty
    rating: float | None = None
    nps: float | None = None
    njs: float | None = None
    walls: bool = True
    bombs: bool = False
    seed: int = 0


def generate_charts(
    heard: Heard,
    timing: Timing,
    requests: Sequence[ChartRequest],
    *,
    lead_beats: int = 0,
    duration_s: float,
    keep: Mapping[Difficulty, Chart] | None = None,
    span_beats: tuple[float, float] | None = None,
) -> list[Chart]:
    """Make one chart per request, without lights.

    Parameters
    ----------
    heard, timing
        What was heard, and the grid, in the source's own time.
    requests
        One per chart; each chart is the same whatever else is asked for.
    lead_beats
        Whole beats of padding: chart beat = slot / 48 + lead_beats.
    duration_s
        Length of the padded audio, in seconds.
    keep, span_beats
        Remap only `span_beats` (chart beats, from-to) of the charts in `keep`. What lies outside
        is kept as it is, and joined without a break of parity.

    Raises
    ------
    UsageError
        If a request makes no sense, or nothing is heard that a note could stand on.
    """
    for request in requests:
        _check(request)
    if span_beats is not None and not 0 <= span_beats[0] < span_beats[1]:
        raise UsageError(
            f"beats {span_beats[0]:g} to {span_beats[1]:g} are no stretch of the song; "
            "give a start before the end"
        )
    song = _Song.of(heard, timing, lead_beats, duration_s)
    if len(song.candidates) == 0:
        raise UsageError(
            "nothing is heard that a note could stand on; the song is silent or under five seconds"
        )
    charts = []
    for request in requests:
        kept = (keep or {}).get(request.difficulty)
        if kept is not None and span_beats is not None:
            charts.append(_remapped(song, request, kept, span_beats))
        else:
            charts.append(_chart(song, request))
    return charts


@dataclass(frozen=True, slots=True)
class _Song:
    """What all charts of a song share; `ladder` keeps the onsets by seed and difficulty."""

    candidates: Candidates
    clock: TimeMap
    bars: Bars
    changes: tuple[BpmChange, ...]
    bpm: float
    sections: tuple[int, ...]
    busy: float
    ladder: dict[tuple[int, Difficulty], Onsets] = field(default_factory=dict)

    @classmethod
    def of(cls, heard: Heard, timing: Timing, lead_beats: int, duration_s: float) -> _Song:
        changes = tuple(replace(c, beat=c.beat + lead_beats) for c in timing.changes)
        clock = TimeMap(timing.bpm, changes)
        length = timing.beats_per_bar * SLOTS_PER_BEAT
        bars = Bars(lead_beats * SLOTS_PER_BEAT, length, tuple(int(b) for b in heard.repeat_of_M))
        candidates = find_candidates(heard, clock, timing.beats_per_bar, lead_beats, duration_s)
        attacks = candidates.heard_N & (candidates.slot_N % 12 == 0)
        span = float(np.ptp(candidates.time_N)) if len(candidates) > 1 else 1.0
        busy = float(attacks.sum()) / max(span, 1.0)
        middle = clock.to_beats(duration_s / 2.0)
        sections = tuple(int(s) for s in heard.bar_section_M)
        return cls(candidates, clock, bars, changes, clock.bpm_at(middle), sections, busy)


def _check(request: ChartRequest) -> None:
    name = request.difficulty.option
    if request.rating is not None and not 0.0 <= request.rating <= 10.0:
        raise UsageError(f"a rating of {request.rating:g} for {name} is not between 0 and 10")
    if request.nps is not None and not 0.2 <= request.nps <= 20.0:
        raise UsageError(
            f"{request.nps:g} notes per second for {name} cannot be mapped; give 0.2 to 20"
        )


def _random(request: ChartRequest, difficulty: Difficulty, stage: int) -> np.random.Generator:
    return np.random.default_rng([request.seed, difficulty.rank, stage])


def _wanted_nps(song: _Song, request: ChartRequest, difficulty: Difficulty) -> tuple[float, bool]:
    """Density to aim at, and whether a person asked for it."""
    if difficulty is request.difficulty:
        if request.nps is not None:
            return request.nps, True
        if request.rating is not None:
            return nps_of_rating(difficulty, request.rating), True
    calm = min(max((song.busy / _BUSY_PER_S) ** 0.35, 0.7), 1.1)
    return nps_range(difficulty)[1] * calm, False


def _onsets(song: _Song, request: ChartRequest, difficulty: Difficulty) -> Onsets:
    """Onsets of a chart, chosen from those of the next harder one where it is dense enough."""
    wanted, firm = _wanted_nps(song, request, difficulty)
    key = (request.seed, difficulty)
    if not firm and key in song.ladder:
        return song.ladder[key]
    candidates = song.candidates
    if difficulty is not Difficulty.EXPERT_PLUS:
        steps = list(Difficulty)
        harder = _onsets(song, request, steps[steps.index(difficulty) + 1])
        if wanted <= notes_per_second(harder):
            candidates = harder.at
    chosen = Onsets(candidates, np.zeros(len(candidates), bool))
    aim, off = wanted, math.inf
    for _ in range(_AIMS if firm else 1):
        target = choose_target(difficulty, song.bpm, aim, firm)
        tried = choose_onsets(candidates, target, _random(request, difficulty, _ONSETS))
        got = max(notes_per_second(tried), 0.01)
        if abs(math.log(got / wanted)) < off:
            chosen, off = tried, abs(math.log(got / wanted))
        if off < _NEAR_ENOUGH:
            break
        aim = min(max(aim * wanted / got, 0.25 * wanted), 4.0 * wanted)
    if not firm:
        song.ladder[key] = chosen
    return chosen


def _strikes(song: _Song, request: ChartRequest) -> list[Strike]:
    return assign_hands(
        _onsets(song, request, request.difficulty),
        STYLES[request.difficulty],
        song.bars,
        _random(request, request.difficulty, _HANDS),
        pair_sides=request.difficulty in _BEGINNERS,
    )


def _chart(song: _Song, request: ChartRequest) -> Chart:
    difficulty = request.difficulty
    strikes = _strikes(song, request)
    speed = choose_speed(difficulty, song.bpm, _density(strikes), request.njs)
    rules = Rules(difficulty, song.bpm, speed.njs, speed.offset_beats)
    context = PlacementContext(rules, song.clock.to_seconds)
    decoder = Decoder(difficulty, context, _random(request, difficulty, _STATES))
    notes = decoder.decode(strikes).notes
    walls, bombs = _obstacles(song, request, notes, (0.0, math.inf))
    return Chart(
        difficulty=difficulty, njs=speed.njs, njs_offset=speed.offset_beats, notes=notes,
        bombs=bombs, walls=walls, bpm_changes=song.changes,
    )  # fmt: skip


def _remapped(
    song: _Song, request: ChartRequest, kept: Chart, span_beats: tuple[float, float]
) -> Chart:
    """The kept chart with the notes, bombs and walls of a span made anew."""
    first, last = span_beats
    rules = Rules(request.difficulty, song.bpm, kept.njs, kept.njs_offset)
    inner = join_span(
        kept, [s for s in _strikes(song, request) if first <= s.beat < last], span_beats,
        STYLES[request.difficulty], rules, song.clock, request.seed,
    )  # fmt: skip
    notes = tuple(sorted((*(n for n in kept.notes if not first <= n.beat < last), *inner),
                         key=lambda n: (n.beat, n.colour)))  # fmt: skip
    walls, bombs = _obstacles(song, request, notes, span_beats)
    return replace(
        kept,
        notes=notes,
        bombs=tuple(sorted((*(b for b in kept.bombs if not first <= b.beat < last), *bombs))),
        walls=tuple(sorted((*(w for w in kept.walls if not first <= w.beat < last), *walls))),
    )


def _obstacles(
    song: _Song, request: ChartRequest, notes: Sequence[Note], span_beats: tuple[float, float]
) -> tuple[tuple[Wall, ...], tuple[Bomb, ...]]:
    rng = _random(request, request.difficulty, _OBSTACLES)
    walls = make_walls(notes, song.clock, song.bars, song.sections, rng) if request.walls else ()
    bombs = make_bombs(notes, walls, song.clock, rng) if request.bombs else ()
    first, last = span_beats
    return (
        tuple(w for w in walls if first <= w.beat and w.beat + w.duration <= last),
        tuple(b for b in bombs if first <= b.beat < last),
    )


def _density(strikes: Sequence[Strike]) -> float:
    if len(strikes) < 2:
        return 0.0
    struck = sum(s.hands.bit_count() for s in strikes)
    return struck / (strikes[-1].time_s - strikes[0].time_s)
