"""Difficulty files of format 3 (`colorNotes`, `basicBeatmapEvents`); written as 3.3.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mgen.core.beatmap.chart import Arc, Bomb, Boost, BpmChange, Chain, Chart, Light, Note, Wall
from mgen.core.beatmap.formats.fields import Record, tidy
from mgen.core.beatmap.formats.tempo import checked, rebase, span

VERSION = "3.3.0"


def parse(doc: Record, header: Chart, bpm: float) -> Chart:
    """Read a difficulty into its chart.

    From 3.3.0 on a field that has its default (always zero) may be left out. Rotations, waypoints
    and group lights are skipped.

    Raises
    ------
    MapError
        If a field is not what the format says.
    """
    tempo = tuple(
        sorted(
            checked(BpmChange(e.number("b"), e.number("m")), doc.where)
            for e in doc.records("bpmEvents")
        )
    )
    at: Callable[[float], float] = float
    marks = [(c.number("b"), c.number("m")) for c in doc.record("customData").records("BPMChanges")]
    if marks and not tempo:
        tempo, at = rebase(marks, bpm, doc.where)
    return replace(
        header,
        notes=tuple(
            sorted(
                Note(at(n.number("b")), n.whole("x"), n.whole("y"), n.whole("c"), n.whole("d"),
                     n.whole("a"))
                for n in doc.records("colorNotes")
            )
        ),
        bombs=tuple(
            sorted(Bomb(at(o.number("b")), o.whole("x"), o.whole("y"))
                   for o in doc.records("bombNotes"))
        ),
        walls=_walls(doc, at), arcs=_arcs(doc, at), chains=_chains(doc, at),
        lights=tuple(
            sorted(Light(at(e.number("b")), e.whole("et"), e.whole("i"), e.number("f"))
                   for e in doc.records("basicBeatmapEvents"))
        ),
        boosts=tuple(
            sorted(Boost(at(e.number("b")), e.fields.get("o") is True)
                   for e in doc.records("colorBoostBeatmapEvents"))
        ),
        bpm_changes=tempo,
    )  # fmt: skip


def _walls(doc: Record, at: Callable[[float], float]) -> tuple[Wall, ...]:
    walls = []
    for w in doc.records("obstacles"):
        start = w.number("b")
        duration = span(at, start, w.number("d"))
        walls.append(
            Wall(at(start), duration, w.whole("x"), w.whole("y"), w.whole("w"), w.whole("h"))
        )
    return tuple(sorted(walls))


def _arcs(doc: Record, at: Callable[[float], float]) -> tuple[Arc, ...]:
    return tuple(
        sorted(
            Arc(
                at(a.number("b")), a.whole("x"), a.whole("y"), a.whole("c"), a.whole("d"),
                at(a.number("tb")), a.whole("tx"), a.whole("ty"), a.whole("tc"),
                a.number("mu"), a.number("tmu"), a.whole("m"),
            )
            for a in doc.records("sliders")
        )
    )  # fmt: skip


def _chains(doc: Record, at: Callable[[float], float]) -> tuple[Chain, ...]:
    return tuple(
        sorted(
            Chain(
                at(c.number("b")), c.whole("x"), c.whole("y"), c.whole("c"), c.whole("d"),
                at(c.number("tb")), c.whole("tx"), c.whole("ty"), c.whole("sc"), c.number("s"),
            )
            for c in doc.records("burstSliders")
        )
    )  # fmt: skip


def dump(chart: Chart) -> dict[str, Any]:
    """Build the difficulty file's content: every array is there, filled or empty."""
    return {
        "version": VERSION,
        "bpmEvents": [{"b": tidy(c.beat), "m": tidy(c.bpm)} for c in sorted(chart.bpm_changes)],
        "rotationEvents": [],
        "colorNotes": [
            {"b": tidy(n.beat), "x": n.column, "y": n.row, "c": n.colour, "d": n.direction,
             "a": n.angle}
            for n in sorted(chart.notes)
        ],
        "bombNotes": [
            {"b": tidy(o.beat), "x": o.column, "y": o.row} for o in sorted(chart.bombs)
        ],
        "obstacles": [
            {"b": tidy(w.beat), "d": tidy(w.duration), "x": w.column, "y": w.row, "w": w.width,
             "h": w.height}
            for w in sorted(chart.walls)
        ],
        "sliders": [
            {"c": a.colour, "b": tidy(a.beat), "x": a.column, "y": a.row, "d": a.direction,
             "mu": tidy(a.multiplier), "tb": tidy(a.tail_beat), "tx": a.tail_column,
             "ty": a.tail_row, "tc": a.tail_direction, "tmu": tidy(a.tail_multiplier),
             "m": a.mid_anchor}
            for a in sorted(chart.arcs)
        ],
        "burstSliders": [
            {"c": c.colour, "b": tidy(c.beat), "x": c.column, "y": c.row, "d": c.direction,
             "tb": tidy(c.tail_beat), "tx": c.tail_column, "ty": c.tail_row, "sc": c.segments,
             "s": tidy(c.squish)}
            for c in sorted(chart.chains)
        ],
        "waypoints": [],
        "basicBeatmapEvents": [
            {"b": tidy(e.beat), "et": e.kind, "i": e.value, "f": tidy(e.brightness)}
            for e in sorted(chart.lights)
        ],
        "colorBoostBeatmapEvents": [{"b": tidy(b.beat), "o": b.on} for b in sorted(chart.boosts)],
        "lightColorEventBoxGroups": [],
        "lightRotationEventBoxGroups": [],
        "lightTranslationEventBoxGroups": [],
        "vfxEventBoxGroups": [],
        "_fxEventsCollection": {"_il": [], "_fl": []},
        "basicEventTypesWithKeywords": {"d": []},
        "useNormalEventsAsCompatibleEvents": False,
    }  # fmt: skip
