"""Difficulty files of format 2 (`_notes`, `_obstacles`, `_events`); written as 2.6.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mgen.core.beatmap.chart import Arc, Bomb, Boost, BpmChange, Chart, Light, Note, Wall
from mgen.core.beatmap.formats.fields import Record, tidy
from mgen.core.beatmap.formats.tempo import checked, rebase, span
from mgen.core.errors import UsageError

VERSION = "2.6.0"
BOMB = 3
BOOST, EARLY_ROTATION, LATE_ROTATION, BPM = 5, 14, 15, 100
FULL, CROUCH, FREE = 0, 1, 2


def parse(doc: Record, header: Chart, bpm: float) -> Chart:
    """Read a difficulty into its chart.

    Both kinds of tempo change are understood: event 100, which the game follows, and
    `_customData._BPMChanges` of older editors, which only their grid follows (see `tempo.rebase`).
    Rotation events are skipped.

    Raises
    ------
    MapError
        If a field is not what the format says.
    """
    where = doc.where
    events = list(doc.records("_events"))
    tempo = tuple(
        sorted(
            checked(BpmChange(e.number("_time"), e.number("_floatValue")), where)
            for e in events
            if e.whole("_type") == BPM
        )
    )
    at: Callable[[float], float] = float
    custom = doc.record("_customData")
    marks = [
        (c.number("_time"), c.number("_BPM", c.number("_bpm")))
        for key in ("_BPMChanges", "_bpmChanges")
        for c in custom.records(key)
    ]
    if marks and not tempo:
        tempo, at = rebase(marks, bpm, where)
    notes, bombs = _objects(doc, at)
    lights, boosts = _lighting(events, at)
    return replace(
        header, notes=notes, bombs=bombs, walls=_walls(doc, at), arcs=_arcs(doc, at),
        lights=lights, boosts=boosts, bpm_changes=tempo,
    )  # fmt: skip


def _objects(
    doc: Record, at: Callable[[float], float]
) -> tuple[tuple[Note, ...], tuple[Bomb, ...]]:
    notes, bombs = [], []
    for n in doc.records("_notes"):
        kind = n.whole("_type", None)
        place = (at(n.number("_time", None)), n.whole("_lineIndex"), n.whole("_lineLayer"))
        if kind == BOMB:
            bombs.append(Bomb(*place))
        elif kind in (0, 1):
            notes.append(Note(*place, kind, n.whole("_cutDirection")))
    return tuple(sorted(notes)), tuple(sorted(bombs))


def _walls(doc: Record, at: Callable[[float], float]) -> tuple[Wall, ...]:
    walls = []
    for w in doc.records("_obstacles"):
        start = w.number("_time", None)
        duration = span(at, start, w.number("_duration"))
        kind = w.whole("_type")
        if kind == FREE:
            row, height = w.whole("_lineLayer"), w.whole("_height")
        else:
            row, height = (2, 3) if kind == CROUCH else (0, 5)
        walls.append(
            Wall(at(start), duration, w.whole("_lineIndex"), row, w.whole("_width"), height)
        )
    return tuple(sorted(walls))


def _arcs(doc: Record, at: Callable[[float], float]) -> tuple[Arc, ...]:
    return tuple(
        sorted(
            Arc(
                at(a.number("_headTime")), a.whole("_headLineIndex"), a.whole("_headLineLayer"),
                a.whole("_colorType"), a.whole("_headCutDirection"),
                at(a.number("_tailTime")), a.whole("_tailLineIndex"), a.whole("_tailLineLayer"),
                a.whole("_tailCutDirection"),
                a.number("_headControlPointLengthMultiplier"),
                a.number("_tailControlPointLengthMultiplier"),
                a.whole("_sliderMidAnchorMode"),
            )
            for a in doc.records("_sliders")
        )
    )  # fmt: skip


def _lighting(
    events: list[Record], at: Callable[[float], float]
) -> tuple[tuple[Light, ...], tuple[Boost, ...]]:
    lights, boosts = [], []
    for e in events:
        kind, beat, value = e.whole("_type"), at(e.number("_time")), e.whole("_value")
        if kind == BOOST:
            boosts.append(Boost(beat, value == 1))
        elif kind not in (EARLY_ROTATION, LATE_ROTATION, BPM):
            # files older than 2.5 have no brightness: full
            lights.append(Light(beat, kind, value, e.number("_floatValue", 1.0)))
    return tuple(sorted(lights)), tuple(sorted(boosts))


def dump(chart: Chart) -> dict[str, Any]:
    """Build the difficulty file's content.

    Raises
    ------
    UsageError
        If the chart holds what format 2 cannot: chains, or notes with an angle of their own.
    """
    if chart.chains or any(n.angle for n in chart.notes):
        raise UsageError(
            f"{chart.difficulty.value}: chains and turned notes do not exist in format v2; write v3"
        )
    notes = [
        (n.beat, n.column, n.row, n.colour, n.direction) for n in chart.notes
    ] + [(b.beat, b.column, b.row, BOMB, 0) for b in chart.bombs]  # fmt: skip
    events = (
        [(c.beat, BPM, 0, c.bpm) for c in chart.bpm_changes]
        + [(b.beat, BOOST, int(b.on), 1.0) for b in chart.boosts]
        + [(li.beat, li.kind, li.value, li.brightness) for li in chart.lights]
    )
    return {
        "_version": VERSION,
        "_notes": [
            {"_time": tidy(t), "_lineIndex": x, "_lineLayer": y, "_type": c, "_cutDirection": d}
            for t, x, y, c, d in sorted(notes)
        ],
        "_sliders": [_arc(a) for a in sorted(chart.arcs)],
        "_obstacles": [_wall(w) for w in sorted(chart.walls)],
        "_events": [
            {"_time": tidy(t), "_type": k, "_value": v, "_floatValue": tidy(f)}
            for t, k, v, f in sorted(events)
        ],
        "_waypoints": [],
        "_specialEventsKeywordFilters": {"_keywords": []},
    }


def _wall(w: Wall) -> dict[str, Any]:
    shape = (w.row, w.height)
    return {
        "_time": tidy(w.beat),
        "_duration": tidy(w.duration),
        "_type": FULL if shape == (0, 5) else CROUCH if shape == (2, 3) else FREE,
        "_lineIndex": w.column,
        "_lineLayer": w.row,
        "_width": w.width,
        "_height": w.height,
    }


def _arc(a: Arc) -> dict[str, Any]:
    return {
        "_colorType": a.colour,
        "_headTime": tidy(a.beat),
        "_headLineIndex": a.column,
        "_headLineLayer": a.row,
        "_headControlPointLengthMultiplier": tidy(a.multiplier),
        "_headCutDirection": a.direction,
        "_tailTime": tidy(a.tail_beat),
        "_tailLineIndex": a.tail_column,
        "_tailLineLayer": a.tail_row,
        "_tailControlPointLengthMultiplier": tidy(a.tail_multiplier),
        "_tailCutDirection": a.tail_direction,
        "_sliderMidAnchorMode": a.mid_anchor,
    }
