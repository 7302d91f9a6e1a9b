"""The whole job: a song becomes a level with charts, lights, cover and padded audio."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mgen.core.audio import read_mono, read_tags, require_usable
from mgen.core.beatmap.chart import SLOTS_PER_BEAT, BeatMap, BpmChange, Chart, Difficulty
from mgen.core.beatmap.song import Lead, PackedSong, pack_song, plan_lead
from mgen.core.beats import track_beats
from mgen.core.beats.attacks import RATE, listen
from mgen.core.errors import MapError, UsageError

if TYPE_CHECKING:
    from mgen.core.beatmap.generate import ChartRequest
    from mgen.core.beatmap.hearing import Heard
    from mgen.core.beatmap.rhythm import Timing
    from mgen.core.beats import Beats

MIN_SONG_S = 10.0
"""Shorter, there is no song to map: no tempo can be told and no chart fits."""
MAPPER = "mgen (automapped)"
"""Level author: BeatSaver hides maps of machines from people's search, and asks to be told."""
MAX_NAME = 100
PREVIEW_S = (10.0, 15.0)


@dataclass(frozen=True, slots=True)
class Source:
    """A song to map: its file, and what is known of it already.

    `samples_N` (mono, at `rate`) and `beats` come from a store; a clip begins at `start_s` of the
    file and lasts `duration_s`. `beats` count from the clip's first sample.
    """

    path: Path
    title: str = ""
    samples_N: npt.NDArray[np.float32] | None = None
    rate: int = RATE
    beats: Beats | None = None
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Remap:
    """A part of a map to make again, in seconds of that map; all else of it stays."""

    beat_map: BeatMap
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Mapped:
    """A finished level, its grid in the source's time, and the padding before it."""

    beat_map: BeatMap
    timing: Timing
    lead: Lead
    own_bytes: bool


def map_song(
    source: Source,
    requests: Sequence[ChartRequest],
    *,
    bpm: float | None = None,
    offset_s: float | None = None,
    seed: int = 0,
) -> Iterator[str | Mapped]:
    """Map a song. Yields the name of each step as it begins, and the level last.

    Parameters
    ----------
    source
        The song.
    requests
        The charts that are wanted.
    bpm, offset_s
        The tempo and the second of a downbeat, where a person knows them.
    seed
        Of lights; each request has its own.

    Raises
    ------
    AudioError
        If the song cannot be read, is silent, or is shorter than `MIN_SONG_S`.
    UsageError
        If an option makes no sense, or nothing is heard that a note could stand on.
    """
    from mgen.core.beatmap.generate import generate_charts
    from mgen.core.beatmap.hearing import hear
    from mgen.core.beatmap.rhythm import fit_timing

    check_tempo(bpm)
    yield "reading"
    samples_N, rate = _samples(source)
    yield "tempo"
    beats = source.beats
    attacks = listen(samples_N, rate)
    if beats is None and bpm is None:  # they tell a tempo that drifts from one that is constant
        beats = track_beats(samples_N, rate, attacks=attacks)
    timing = fit_timing(samples_N, rate, beats=beats, bpm=bpm, offset_s=offset_s, attacks=attacks)
    yield "listening"
    heard = hear(samples_N, rate, timing, attacks=attacks)
    lead = plan_lead(timing, _opening_s(heard, timing))
    names = _names(source)
    with ThreadPoolExecutor(1) as background:
        # the encoder and the painter release the interpreter's lock while charts are made
        song = background.submit(
            pack_song, source.path, lead, start_s=source.start_s, duration_s=source.duration_s
        )
        cover = background.submit(_cover, samples_N, rate, timing, names)
        yield "charts"
        duration_s = len(samples_N) / rate + lead.seconds
        charts = generate_charts(
            heard, timing, requests, lead_beats=lead.beats, duration_s=duration_s
        )
        yield "lights"
        charts = _lit(charts, heard, timing, lead.beats, seed)
        yield "audio"
        packed = song.result()
        level = _level(names, timing, charts, packed, cover.result())
    yield Mapped(level, timing, lead, packed.own_bytes)


def map_part(
    part: Remap, requests: Sequence[ChartRequest], *, seed: int = 0
) -> Iterator[str | Mapped]:
    """Make a part of a map again; it brings its own audio, tempo and everything else along.

    Raises
    ------
    MapError
        If the map has no audio.
    UsageError
        If the span lies outside the song, or the map lacks a difficulty that is asked for.
    """
    from mgen.core.beatmap.generate import generate_charts
    from mgen.core.beatmap.hearing import hear
    from mgen.core.beatmap.rhythm import fit_timing

    old = part.beat_map
    kept = {c.difficulty: c for c in old.charts if c.characteristic == "Standard"}
    _check_kept(kept, requests)
    if not old.song:
        raise MapError(f"{old.title}: the map holds no song file; put it back before remapping")
    yield "reading"
    with _on_disk(old.song) as path:
        samples_N = read_mono(path, RATE)
    duration_s = len(samples_N) / RATE
    if not 0 <= part.from_s < part.to_s <= duration_s + 1e-6:
        raise UsageError(
            f"--from {part.from_s:g} --to {part.to_s:g} is no part of the map's"
            f" {duration_s:.1f} s; give two times in order"
        )
    yield "listening"
    tempo = kept[requests[0].difficulty].bpm_changes
    attacks = listen(samples_N, RATE)
    # for the beats of a bar
    fitted = fit_timing(samples_N, RATE, bpm=old.bpm, offset_s=0.0, attacks=attacks)
    timing = replace(fitted, changes=tempo, confidence=1.0)
    heard = hear(samples_N, RATE, timing, attacks=attacks)
    yield "charts"
    clock = timing.time_map()
    span = (clock.to_beats(part.from_s), clock.to_beats(part.to_s))
    charts = generate_charts(
        heard, timing, requests, lead_beats=0, duration_s=duration_s, keep=kept, span_beats=span
    )
    yield "lights"
    made = {c.difficulty: c for c in _lit(charts, heard, timing, 0, seed, kept)}
    together = tuple(
        made.get(c.difficulty, c) if c.characteristic == "Standard" else c for c in old.charts
    )
    yield Mapped(replace(old, charts=together), timing, Lead(0, 0.0), True)


def check_tempo(bpm: float | None) -> None:
    """Refuse a tempo that no song has.

    Raises
    ------
    UsageError
        If it is not within 10 to 1000.
    """
    if bpm is not None and not 10.0 <= bpm <= 1000.0:
        raise UsageError(f"a tempo of {bpm:g} BPM makes no sense; give one between 10 and 1000")


def _samples(source: Source) -> tuple[npt.NDArray[np.float32], int]:
    if source.samples_N is None:
        samples_N, rate = read_mono(source.path, RATE), RATE
    else:
        samples_N, rate = source.samples_N, source.rate
    peak = float(np.abs(samples_N).max(initial=0.0))
    duration_s = len(samples_N) / rate
    require_usable(source.path, duration_s=duration_s, peak=peak, min_s=MIN_SONG_S)
    return samples_N, rate


def _opening_s(heard: Heard, timing: Timing) -> float:
    """When the first note may come, in the source: on its slot, which may lie a hair before 0."""
    if len(heard.slot_E) == 0:
        return 0.0
    return max(0.0, timing.seconds(int(np.min(heard.slot_E)) / SLOTS_PER_BEAT))


@dataclass(frozen=True, slots=True)
class _Names:
    title: str
    artist: str


def _names(source: Source) -> _Names:
    tags = read_tags(source.path)
    title = _clean(source.title or tags.title) or _clean(source.path.stem) or "Untitled"
    return _Names(title[: MAX_NAME - len(MAPPER)].rstrip(), _clean(tags.artist)[:MAX_NAME])


def _clean(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cover(samples_N: npt.NDArray[np.float32], rate: int, timing: Timing, names: _Names) -> bytes:
    from mgen.core.beatmap.cover import draw_cover

    bars = int(timing.beat(len(samples_N) / rate) // timing.beats_per_bar)
    edges = [timing.seconds(b * timing.beats_per_bar) for b in range(bars + 1)]
    return draw_cover(
        samples_N, rate, title=names.title, artist=names.artist, bar_edges_s=edges
    )  # fmt: skip


def _lit(
    charts: Sequence[Chart], heard: Heard, timing: Timing, lead_beats: int, seed: int,
    kept: dict[Difficulty, Chart] | None = None,
) -> list[Chart]:  # fmt: skip
    from mgen.core.beatmap.lights import light_bombs, light_show

    show, boosts = light_show(heard, timing, lead_beats=lead_beats, seed=seed)
    tempo = tuple(BpmChange(c.beat + lead_beats, c.bpm) for c in timing.changes)
    lit = []
    for chart in charts:
        old = (kept or {}).get(chart.difficulty)
        own = old is not None and len(old.lights) > 0
        lights, boost = (old.lights, old.boosts) if old is not None and own else (show, boosts)
        chart = replace(chart, bpm_changes=tempo, boosts=boost)
        lights = light_bombs(lights, chart.bombs, chart.time_map(timing.bpm))
        lit.append(replace(chart, lights=lights))
    return lit


def _level(
    names: _Names, timing: Timing, charts: Sequence[Chart], packed: PackedSong, cover: bytes
) -> BeatMap:
    start_s, length_s = choose_preview(charts, timing, packed)
    return BeatMap(
        title=names.title,
        artist=names.artist,
        mapper=MAPPER,
        bpm=timing.bpm,
        preview_start_s=start_s,
        preview_duration_s=length_s,
        charts=tuple(charts),
        song=packed.data,
        cover=cover,
        song_samples=packed.n_samples,
        song_rate=packed.rate,
    )


def choose_preview(
    charts: Sequence[Chart], timing: Timing, packed: PackedSong
) -> tuple[float, float]:
    """Start and length in seconds of the densest whole bars of 10 to 15 s, in the padded song."""
    busiest = max(charts, key=lambda c: len(c.notes))
    clock = busiest.time_map(timing.bpm)
    times = np.sort([clock.to_seconds(n.beat) for n in busiest.notes])
    bar_s = timing.beats_per_bar * 60.0 / timing.bpm
    length_s = min(max(round(12.5 / bar_s) * bar_s, PREVIEW_S[0]), PREVIEW_S[1])
    length_s = min(length_s, packed.duration_s)
    first, last = packed.lead.seconds, max(packed.lead.seconds, packed.duration_s - length_s)
    bars = int(clock.to_beats(last) // timing.beats_per_bar) + 1
    starts = [clock.to_seconds(b * timing.beats_per_bar) for b in range(bars)]
    starts = [s for s in starts if first <= s <= last] or [max(0.0, last)]
    counts = np.searchsorted(times, np.add(starts, length_s)) - np.searchsorted(times, starts)
    return round(starts[int(np.argmax(counts))], 3), round(length_s, 3)


def _check_kept(kept: dict[Difficulty, Chart], requests: Sequence[ChartRequest]) -> None:
    for request in requests:
        if request.difficulty not in kept:
            there = ", ".join(d.option for d in kept) or "none of the standard ones"
            raise UsageError(f"the map to keep has no {request.difficulty.option}; it has {there}")


@contextmanager
def _on_disk(song: bytes) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(suffix=".ogg")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(song)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
