"""Findings on single objects and on a whole chart: cells, walls, arcs, lights, times, speed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from mgen.core.beatmap import speed
from mgen.core.beatmap.chart import DOT, Arc, Chain, Light, Note, Wall
from mgen.core.beatmap.findings.sheet import Finding, Sheet
from mgen.core.beatmap.states import valid_cell, valid_note

RECOVERY_S = 0.25
SHORT_WALL_S = 0.015
MIN_LIGHTS = 10
LIGHT_KINDS = frozenset({0, 1, 2, 3, 4, 6, 7, 10, 11})
LIT_BEFORE_S, FADE_S, DARK = 0.25, 1.0, 0.25
HOT_START_S = 1.5
OUTRO_S = (2.0, 15.0)
PRECISIONS = (8, 6)
PRECISION_TOLERANCE = 0.01
JUMP_M = (18.0, 36.0)
REACTION_S = 0.42
NJS = (3.0, 23.0)
_SAME_BEAT = 0.001


def check(sheet: Sheet) -> Iterator[Finding]:
    """All findings on single objects and on the chart as a whole."""
    yield from _cells(sheet)
    yield from _walls(sheet)
    yield from _guides(sheet)
    yield from _precision(sheet)
    yield from _lights(sheet)
    yield from _times(sheet)
    yield from _speed(sheet)


def _cells(sheet: Sheet) -> Iterator[Finding]:
    for note in sheet.chart.notes:
        if not valid_note(note):
            text = (
                f"column {note.column} row {note.row} colour {note.colour} direction "
                f"{note.direction}: not in the game"
            )
            yield sheet.finding("Invalid note", "error", text, note.beat)
        elif note.angle % 45 if note.direction == DOT else note.angle:
            text = f"an extra angle of {note.angle} degrees"
            yield sheet.finding("Angle offset", "rank", text, note.beat)
    for bomb in sheet.chart.bombs:
        if not valid_cell(bomb):
            text = f"column {bomb.column} row {bomb.row}: outside the grid"
            yield sheet.finding("Invalid bomb", "error", text, bomb.beat)


def _walls(sheet: Sheet) -> Iterator[Finding]:
    latest: list[Wall | None] = [None, None]
    for wall in sorted(sheet.chart.walls, key=lambda w: w.beat):
        start, end = sheet.to_seconds(wall.beat), sheet.to_seconds(wall.beat + wall.duration)
        if wall.duration < 0 or wall.width < 0 or wall.height < 0:
            yield sheet.finding("Negative obstacle", "error", "a negative size", wall.beat)
        elif wall.duration == 0 or wall.width == 0 or wall.height == 0:
            yield sheet.finding("Zero value obstacle", "error", "a size of zero", wall.beat)
        elif end - start < SHORT_WALL_S - 1e-6:
            text = f"a wall of {1000 * (end - start):.0f} ms"
            yield sheet.finding("Short obstacle", "warning", text, wall.beat)
        if wall.row >= 2 or wall.height <= 1:
            continue
        sides = [k for k in (0, 1) if wall.column <= 1 + k < wall.column + wall.width]
        if len(sides) == 2:
            text = "no way past a wall over both middle columns"
            yield sheet.finding("2-wide center obstacle", "error", text, wall.beat)
        for side in sides:
            other = latest[1 - side]
            if len(sides) == 1 and other is not None:
                open_again = sheet.to_seconds(other.beat + other.duration) + RECOVERY_S
                if start < open_again - 1e-6 and other is not wall:
                    text = f"less than {1000 * RECOVERY_S:.0f} ms to dodge to the other side"
                    yield sheet.finding("2-wide center obstacle", "error", text, wall.beat)
            known = latest[side]
            if known is None or wall.beat + wall.duration > known.beat + known.duration:
                latest[side] = wall


def _guides(sheet: Sheet) -> Iterator[Finding]:
    """Arcs and chains must begin on a note; no arc ends on the other hand's."""
    for arc in sheet.chart.arcs:
        if not any(_begins_on(arc, n) for n in _notes_at(sheet, arc.beat)):
            yield sheet.finding("Improper arc", "error", "no note at its head", arc.beat)
        elif arc.tail_beat < arc.beat or not _ends_well(arc, _notes_at(sheet, arc.tail_beat)):
            yield sheet.finding(
                "Improper arc", "error", "its tail is not its own hand's note", arc.beat
            )
    for chain in sheet.chart.chains:
        if not any(_begins_on(chain, n) for n in _notes_at(sheet, chain.beat)):
            yield sheet.finding("Improper chain", "error", "no note at its head", chain.beat)
        elif chain.squish == 0 or chain.segments < 1:
            text = "a squish or a segment count of zero crashes the game"
            yield sheet.finding("Improper chain", "error", text, chain.beat)


def _notes_at(sheet: Sheet, beat: float) -> list[Note]:
    low = bisect_left(sheet.notes, beat - _SAME_BEAT, key=lambda n: n.beat)
    high = bisect_right(sheet.notes, beat + _SAME_BEAT, key=lambda n: n.beat)
    return sheet.notes[low:high]


def _begins_on(guide: Arc | Chain, note: Note) -> bool:
    same = note.column == guide.column and note.row == guide.row and note.colour == guide.colour
    return same and note.direction in (DOT, guide.direction)


def _ends_well(arc: Arc, notes: list[Note]) -> bool:
    """An arc may end in the air, but not on the other hand's note."""
    place = (arc.tail_column, arc.tail_row)
    colours = {n.colour for n in notes if (n.column, n.row) == place}
    return not colours or arc.colour in colours


def _precision(sheet: Sheet) -> Iterator[Finding]:
    beats = sorted(swing.beat for hand in sheet.judged for swing, _ in hand)
    for beat in beats:
        if all((beat + 0.001) % (1.0 / p) >= PRECISION_TOLERANCE for p in PRECISIONS):
            text = f"beat {beat:.3f} is on neither 1/8 nor 1/6"
            yield sheet.finding("Off-beat precision", "warning", text, beat)


def _lights(sheet: Sheet) -> Iterator[Finding]:
    lights = [x for x in sheet.chart.lights if x.kind in LIGHT_KINDS]
    count = sum(x.value != 0 for x in lights)
    if count <= MIN_LIGHTS:
        text = f"{count} lights switched on, more than {MIN_LIGHTS} wanted"
        yield sheet.finding("Insufficient lighting event", "rank", text)
        return
    spans = _lit_spans(sheet, sorted(lights, key=lambda x: x.beat))
    for bomb, time_s in zip(sheet.bombs, sheet.bomb_times, strict=True):
        i = bisect_right(spans, (time_s, float("inf"))) - 1
        if i < 0 or time_s > spans[i][1]:
            yield sheet.finding("Unlit bomb", "warning", "a bomb in the dark", bomb.beat)


def _lit_spans(sheet: Sheet, lights: list[Light]) -> list[tuple[float, float]]:
    """Seconds in which some light shines, from when it goes on until a while after it goes off.

    In order and apart from each other.
    """
    spans, on_since = [], dict[int, float]()
    for light in lights:
        time_s = sheet.to_seconds(light.beat)
        dark = light.value == 0 or light.brightness < DARK
        fades = not dark and light.value in (3, 7, 11)
        if not dark and not fades:
            on_since.setdefault(light.kind, time_s)
            continue
        if light.kind in on_since:
            spans.append((on_since.pop(light.kind), time_s + LIT_BEFORE_S))
        if fades:
            spans.append((time_s, time_s + FADE_S))
    spans += [(start, float("inf")) for start in on_since.values()]
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _times(sheet: Sheet) -> Iterator[Finding]:
    chart = sheet.chart
    walls = [w for w in chart.walls if w.column < 3 and w.column + w.width > 1]
    struck = [n.beat for n in chart.notes] + [b.beat for b in chart.bombs]
    beats = struck + [w.beat for w in walls]
    if not chart.notes:
        yield sheet.finding("No notes", "error", "a difficulty without a note")
    if not beats:
        return
    first, last = min(beats), max([*beats, *(w.beat + w.duration for w in walls)])
    if struck and 0 <= sheet.to_seconds(min(struck)) < HOT_START_S:
        text = f"the first note comes after {sheet.to_seconds(min(struck)):.2f} s"
        yield sheet.finding("Hot start", "warning", text, min(struck))
    if first < 0:
        yield sheet.finding("Outside playable object", "error", "before the song", first)
    if sheet.duration_s is None:
        return
    empty = sheet.duration_s - sheet.to_seconds(last)
    if empty < 0:
        yield sheet.finding("Outside playable object", "error", "after the song's end", last)
    elif not OUTRO_S[0] <= empty <= OUTRO_S[1]:
        text = f"{empty:.1f} s after the last object, 2 to 15 wanted"
        yield sheet.finding("Outro", "rank", text, last)


def _speed(sheet: Sheet) -> Iterator[Finding]:
    njs, offset = sheet.njs, sheet.chart.njs_offset
    if sheet.chart.njs <= 0:
        text = f"the game falls back to {njs:g}"
        yield sheet.finding("Unset NJS", "error", text)
    elif not NJS[0] <= njs <= NJS[1]:
        yield sheet.finding("NJS", "warning", f"{njs:g} is outside 3 to 23")
    beats = speed.half_jump_beats(sheet.bpm, njs, offset)
    reaction_s = beats * 60.0 / sheet.bpm
    jump_m = 2.0 * njs * reaction_s
    comfortable = 18.0 / 1.07**njs + 18.0
    if not JUMP_M[0] - 1e-6 <= jump_m <= JUMP_M[1]:
        yield sheet.finding("Jump distance", "warning", f"{jump_m:.1f} m is outside 18 to 36")
    elif jump_m > comfortable + 1e-6:
        text = f"{jump_m:.1f} m is far for a speed of {njs:g}; up to {comfortable:.1f} is usual"
        yield sheet.finding("High jump distance", "warning", text)
    if reaction_s < REACTION_S - 1e-6:
        text = f"{1000 * reaction_s:.0f} ms from sight to cut"
        yield sheet.finding("Quick reaction time", "warning", text)
    if speed.half_jump_beats(sheet.bpm, njs) + offset < 0.25:
        text = "the half jump cannot drop below 1/4 beat"
        yield sheet.finding("Unnecessary negative offset", "warning", text)
