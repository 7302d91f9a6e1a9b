"""Count how human maps move, and write the small table that the chart decoder samples from.

    python examples/pattern_statistics.py MAP_FOLDER... > core/beatmap/patterns.json

The shipped table comes from three maps by Kival Evan (KivalEvan/BeatSaber-JSMap, MIT). Blue notes
are counted as their mirror image, so that one table serves both hands.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np

from mgen.core.beatmap.chart import BLUE, RED, Difficulty, Note, TimeMap
from mgen.core.beatmap.parity import judge_hand

SOURCE = "Counted from three maps by Kival Evan (KivalEvan/BeatSaber-JSMap, MIT licence)."
MIRROR = (0, 1, 3, 2, 5, 4, 7, 6, 8)
SAME_TIME_BEATS = 1 / 64


def read_notes(path: Path) -> list[Note]:
    data = json.loads(path.read_text("utf-8"))
    if "colorNotes" in data:
        rows = [
            Note(n.get("b", 0), n.get("x", 0), n.get("y", 0), n.get("c", 0), n.get("d", 0))
            for n in data["colorNotes"]
        ]
    else:
        rows = [
            Note(n["_time"], n["_lineIndex"], n["_lineLayer"], n["_type"], n["_cutDirection"])
            for n in data["_notes"]
            if n["_type"] in (RED, BLUE)
        ]
    inside = [n for n in rows if n.column in range(4) and n.row in range(3) and n.direction <= 8]
    return sorted(inside, key=lambda n: (n.beat, n.colour))


def as_red(note: Note) -> tuple[int, int, int]:
    """State, cell and direction of a note, seen from its own hand."""
    column = note.column if note.colour == RED else 3 - note.column
    direction = note.direction if note.colour == RED else MIRROR[note.direction]
    cell = note.row * 4 + column
    return cell * 9 + direction, cell, direction


def count(notes: list[Note], clock: TimeMap, tables: dict[str, np.ndarray]) -> None:
    weight = 1000.0 / len(notes)
    for colour in (RED, BLUE):
        previous: tuple[int, int, int] | None = None
        for swing, verdict in judge_hand(colour, notes, [], clock.to_seconds):
            note = swing.notes[0]
            state, cell, direction = as_red(note)
            tables["state"][verdict.side, state] += weight
            if previous is not None and verdict.parity == "none":
                tables["turn"][verdict.side, previous[2], direction] += weight
                tables["move"][verdict.side, previous[1], cell] += weight
            previous = as_red(swing.notes[-1])
    for a, b in itertools.pairwise(notes):
        if a.colour == b.colour:
            continue
        together = b.beat - a.beat < SAME_TIME_BEATS
        pairs = ((a, b), (b, a)) if together else ((a, b),)
        for first, second in pairs:
            # the other hand's cell in this hand's own mirror image
            other = first.row * 4 + (first.column if second.colour == RED else 3 - first.column)
            tables["pair" if together else "cross"][other, as_red(second)[1]] += weight


def main(folders: list[str]) -> None:
    result: dict[str, object] = {"source": SOURCE, "difficulties": {}}
    shapes = {"state": (2, 108), "turn": (2, 9, 9), "move": (2, 12, 12),
              "pair": (12, 12), "cross": (12, 12)}  # fmt: skip
    for difficulty in Difficulty:
        tables = {name: np.zeros(shape) for name, shape in shapes.items()}
        for folder in map(Path, folders):
            info = json.loads((folder / "Info.dat").read_text("utf-8"))
            clock = TimeMap(info["_beatsPerMinute"])
            count(read_notes(folder / f"{difficulty.value}Standard.dat"), clock, tables)
        total = {name: np.round(t).astype(int).ravel().tolist() for name, t in tables.items()}
        result["difficulties"][difficulty.value] = total  # type: ignore[index]
    json.dump(result, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
