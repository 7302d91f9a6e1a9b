"""Findings between objects: the two hands, bombs, and notes that hide each other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from mgen.core.beatmap import rules
from mgen.core.beatmap.chart import DOT, Bomb, Note
from mgen.core.beatmap.findings.sheet import Finding, Sheet, cell_name, hand_name, together
from mgen.core.beatmap.states import (
    follow_through,
    is_handclap,
    is_hitbox_path,
    is_parallel,
    off_path,
)
from mgen.core.beatmap.swings import Swing, grid_distance


def check(sheet: Sheet) -> Iterator[Finding]:
    """All findings between two objects."""
    yield from _same_time(sheet)
    yield from _vision(sheet)
    yield from _bombs(sheet)
    yield from _hitboxes(sheet)
    yield from _staircase(sheet)


def _same_cell(a: Note | Bomb, b: Note | Bomb) -> bool:
    return a.column == b.column and a.row == b.row


def _same_time(sheet: Sheet) -> Iterator[Finding]:
    for i, a in enumerate(sheet.notes):
        for j in together(sheet.note_times, i, rules.SAME_TIME_S):
            b = sheet.notes[j]
            if _same_cell(a, b):
                text = f"two notes in {cell_name(a)}"
                yield sheet.finding("Stacked note", "error", text, a.beat)
            elif a.colour == b.colour:
                if is_parallel(a, b):
                    text = f"the {hand_name(a.colour)} hand cannot cut both in one swing"
                    yield sheet.finding("Parallel notes", "error", text, a.beat)
            elif is_handclap(a, b):
                text = "the hands hit each other"
                yield sheet.finding("Handclap", "error", text, a.beat)
            elif is_hitbox_path(a, b):
                text = "one hand's swing comes through the other hand's note"
                yield sheet.finding("Hitbox path", "error", text, a.beat)


def _vision(sheet: Sheet) -> Iterator[Finding]:
    low, high = sheet.rules.vision_window_s
    objects: list[tuple[float, Note | Bomb]] = [
        *zip(sheet.note_times, sheet.notes, strict=True),
        *zip(sheet.bomb_times, sheet.bombs, strict=True),
    ]
    objects.sort(key=lambda o: (o[0], o[1].column, o[1].row))
    middle = [float("-inf"), float("-inf")]
    for time_s, thing in objects:
        side = int(thing.column >= 2)
        since = time_s - middle[side]
        if low <= since <= high:
            text = f"hidden by the middle note {since:.2f} s before"
            yield sheet.finding("Vision block", "warning", text, thing.beat)
        if thing.row == 1 and thing.column in (1, 2):
            middle[side] = time_s


def _bombs(sheet: Sheet) -> Iterator[Finding]:
    for bomb, time_s in zip(sheet.bombs, sheet.bomb_times, strict=True):
        start = bisect_left(sheet.note_times, time_s - rules.HAMMER_AFTER_S - 1e-9)
        for i in range(start, len(sheet.notes)):
            later = time_s - sheet.note_times[i]  # of the bomb after the note
            if later < -rules.HAMMER_BEFORE_S - 1e-9:
                break
            note = sheet.notes[i]
            if abs(later) <= rules.STACKED_BOMB_S and _same_cell(note, bomb):
                text = f"a bomb in the note's cell, {cell_name(bomb)}"
                yield sheet.finding("Stacked bomb", "error", text, note.beat)
            target = Note(bomb.beat, bomb.column, bomb.row, 0, DOT)
            way = off_path(note, target)
            if way is None or grid_distance(note, target) > rules.HAMMER_DISTANCE:
                continue
            if way <= rules.HAMMER_DEG or way >= 180.0 - rules.HAMMER_DEG:
                text = f"the swing goes through the bomb in {cell_name(bomb)}"
                yield sheet.finding("Hammer hit", "error", text, note.beat)


def _hitboxes(sheet: Sheet) -> Iterator[Finding]:
    """The saber's length makes notes collide that come close behind each other."""
    reach_s = rules.SABER_REACH / sheet.njs
    for i, early in enumerate(sheet.notes):
        inline = stair = False
        for j in together(sheet.note_times, i, reach_s + 1e-9):
            late, dt = sheet.notes[j], sheet.note_times[j] - sheet.note_times[i]
            if late.colour == early.colour or dt <= rules.SAME_TIME_S:
                continue
            if not inline and _same_cell(early, late):
                inline = True
                text = f"both hands in {cell_name(late)} within {dt * 1000:.0f} ms"
                yield sheet.finding("Hitbox inline", "rank", text, late.beat)
            if not stair and dt + rules.REVERSE_STAIR_S < reach_s and _behind(early, late):
                stair = True
                text = "a note stands in the pre-swing of the one before it"
                yield sheet.finding("Hitbox reverse staircase", "rank", text, early.beat)


def _behind(early: Note, late: Note) -> bool:
    way = off_path(early, late)
    near = grid_distance(early, late) <= rules.REVERSE_STAIR_DISTANCE
    return near and way is not None and way >= 180.0 - rules.REVERSE_STAIR_DEG


def _staircase(sheet: Sheet) -> Iterator[Finding]:
    hands = [[swing for swing, _ in hand] for hand in sheet.judged]
    for colour in (0, 1):
        others, k = hands[1 - colour], -1
        starts = [s.time_s for s in others]
        for swing in hands[colour]:
            while k + 1 < len(starts) and starts[k + 1] < swing.time_s:
                k += 1
            doubled = k + 1 < len(starts) and starts[k + 1] - swing.time_s < rules.SAME_TIME_S
            if k >= 1 and not doubled and _in_the_way(others[k - 1], others[k], swing):
                text = "a note stands where the other hand's swing ends"
                yield sheet.finding("Hitbox staircase", "rank", text, swing.beat)


def _in_the_way(before: Swing, last: Swing, swing: Swing) -> bool:
    dt = swing.time_s - last.end_s
    if not 0 < dt < min(rules.STAIR_S, last.time_s - before.end_s):
        return False
    cell = follow_through(last.notes[-1], last.direction)
    return cell == (swing.notes[0].column, swing.notes[0].row)
