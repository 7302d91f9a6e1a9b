"""Single instruments, played from MIDI through a soundfont, for the judge's good examples.

A piano, a flute or a drum kit alone is no defect, however thin its spectrum, but few free songs of
`train` are so bare. What is learned from is MIDI of `train`, through soundfonts under MIT.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
from midi_rendering import notes_of, render, shortened

RATE = 16000
LONGEST_S = 24.0
PROGRAMS = (
    0, 0, 0, 0, 1, 3, 4, 6, 8, 10, 11, 12, 16, 19, 21, 24, 24, 25, 25, 26, 27, 32, 40, 42, 46, 48,
    52, 56, 60, 65, 66, 68, 70, 71, 73, 73, 74, 75, 79,
)  # fmt: skip
"""General MIDI: pianos, a music box, mallets, organs, guitars, bass, strings, voices, winds."""
KITS = (0, 0, 8, 16, 24, 25, 32, 40)


def solo_files(
    data: Path, count: int, split: str = "train", seed: int = 0
) -> list[tuple[Path, str]]:
    """MIDI files of a split and what to make of each: one part, all parts, or the drums."""
    with open(data / "midi/index.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    rng = random.Random(seed)
    drums = [data / row["path"] for row in rows if "/groove/" in row["path"]]
    songs = [data / row["path"] for row in rows if "/groove/" not in row["path"]]
    chosen = [(path, "drums") for path in rng.sample(drums, count // 4)]
    for i, path in enumerate(rng.sample(songs, count - len(chosen))):
        chosen.append((path, "all" if i % 4 == 0 else "part"))
    return chosen


def solo(path: Path, what: str, soundfont: Path, seed: int) -> np.ndarray:
    """The piece on one instrument, (N,) float32 at 16 kHz; empty where it has no such part."""
    import mido

    rng = random.Random(seed)
    midi = mido.MidiFile(path, clip=True)
    parts: dict[int, int] = {}
    for track in midi.tracks:
        for _, _, note in notes_of(track):
            parts[note.channel] = parts.get(note.channel, 0) + 1
    keep = {channel for channel in parts if (channel == 9) == (what == "drums")}
    if what == "part" and keep:
        keep = {rng.choice(sorted(keep, key=lambda c: -parts[c])[:3])}
    if sum(parts[channel] for channel in keep) < 30:
        return np.zeros(0, np.float32)
    program = rng.choice(KITS if what == "drums" else PROGRAMS)
    for track in midi.tracks:
        _keep(track, keep, program, mido)
    shortened(midi, LONGEST_S)
    sound = render(midi, soundfont, rng).astype(np.float32) / 32768
    return sound[: int(LONGEST_S * RATE)]


def _keep(track: Any, channels: set[int], program: int, mido: Any) -> None:
    """Leave only the notes of some channels, on one instrument."""
    kept, waiting = [], 0
    for message in track:
        dropped = message.type == "program_change" or (
            not message.is_meta and getattr(message, "channel", -1) not in channels
        )
        if dropped:
            waiting += message.time
        else:
            kept.append(message.copy(time=message.time + waiting))
            waiting = 0
    first = [mido.Message("program_change", channel=c, program=program) for c in sorted(channels)]
    track[:] = [*first, *kept]
