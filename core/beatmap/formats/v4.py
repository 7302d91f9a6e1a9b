"""Difficulty and lightshow files of format 4; read, never written (not rankable).

Objects hold a beat and an index into a list of what they look like: `colorNotes[{b, i}]` points
into `colorNotesData[{x, y, c, d, a}]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mgen.core.beatmap.chart import Arc, Bomb, Boost, BpmChange, Chain, Chart, Light, Note, Wall
from mgen.core.beatmap.formats.fields import Record


def parse(
    doc: Record, header: Chart, tempo: tuple[BpmChange, ...], lightshow: Record | None
) -> Chart:
    """Read a difficulty, and its lightshow file where it has one, into a chart.

    Raises
    ------
    MapError
        If a field is not what the format says or an index points nowhere.
    """
    looks = list(doc.records("colorNotesData"))
    show = lightshow or Record({}, doc.where)
    return replace(
        header,
        notes=tuple(
            sorted(
                Note(o.number("b"), d.whole("x"), d.whole("y"), d.whole("c"), d.whole("d"),
                     d.whole("a"))
                for o, d in _indexed(doc, "colorNotes", "colorNotesData")
            )
        ),
        bombs=tuple(
            sorted(Bomb(o.number("b"), d.whole("x"), d.whole("y"))
                   for o, d in _indexed(doc, "bombNotes", "bombNotesData"))
        ),
        walls=tuple(
            sorted(
                Wall(o.number("b"), d.number("d"), d.whole("x"), d.whole("y"), d.whole("w"),
                     d.whole("h"))
                for o, d in _indexed(doc, "obstacles", "obstaclesData")
            )
        ),
        arcs=_arcs(doc, looks), chains=_chains(doc, looks),
        lights=tuple(
            sorted(Light(o.number("b"), d.whole("t"), d.whole("i"), d.number("f"))
                   for o, d in _indexed(show, "basicEvents", "basicEventsData"))
        ),
        boosts=tuple(
            sorted(Boost(o.number("b"), d.whole("b") == 1)
                   for o, d in _indexed(show, "colorBoostEvents", "colorBoostEventsData"))
        ),
        bpm_changes=tempo,
    )  # fmt: skip


def _arcs(doc: Record, looks: list[Record]) -> tuple[Arc, ...]:
    arcs = []
    for o, d in _indexed(doc, "arcs", "arcsData", "ai"):
        head, tail = _pick(o, looks, "hi", "arcs"), _pick(o, looks, "ti", "arcs")
        arcs.append(
            Arc(
                o.number("hb"), head.whole("x"), head.whole("y"), head.whole("c"),
                head.whole("d"), o.number("tb"), tail.whole("x"), tail.whole("y"),
                tail.whole("d"), d.number("m"), d.number("tm"), d.whole("a"),
            )
        )  # fmt: skip
    return tuple(sorted(arcs))


def _chains(doc: Record, looks: list[Record]) -> tuple[Chain, ...]:
    chains = []
    for o, d in _indexed(doc, "chains", "chainsData", "ci"):
        head = _pick(o, looks, "i", "chains")
        chains.append(
            Chain(
                o.number("hb"), head.whole("x"), head.whole("y"), head.whole("c"),
                head.whole("d"), o.number("tb"), d.whole("tx"), d.whole("ty"),
                d.whole("c"), d.number("s"),
            )
        )  # fmt: skip
    return tuple(sorted(chains))


def _indexed(
    doc: Record, objects: str, data: str, index: str = "i"
) -> Iterator[tuple[Record, Record]]:
    looks = list(doc.records(data))
    for o in doc.records(objects):
        yield o, _pick(o, looks, index, objects)


def _pick(o: Record, looks: list[Record], index: str, objects: str) -> Record:
    i = o.whole(index)
    if not 0 <= i < len(looks):
        o.fail(f"{objects}.{index}", f"points at entry {i} of {len(looks)}")
    return looks[i]
