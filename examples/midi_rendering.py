"""MIDI for training and measuring: other meters, tempi and keys, its beats, and its sound.

Used by the scripts beside it. Needs `pip install mido`, and fluidsynth for the sound.
"""

from __future__ import annotations

import math
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mgen.core.audio import read_mono

RATE = 16000


def beats_of(midi: Any) -> np.ndarray:
    """Beats of a MIDI file by its tempo map and meters; 6/8, 9/8, 12/8 count in dotted quarters."""
    tempi: dict[int, int] = {}
    meters: dict[int, tuple[int, int]] = {}
    end = 0
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempi[tick] = message.tempo
            elif message.type == "time_signature":
                meters[tick] = (message.numerator, message.denominator)
        end = max(end, tick)
    tempi.setdefault(0, 500_000)
    meters.setdefault(0, (4, 4))
    ticks = sorted(tempi)

    def second(tick: float) -> float:
        total = 0.0
        for i, start in enumerate(ticks):
            if tick <= start:
                break
            stop = ticks[i + 1] if i + 1 < len(ticks) else tick
            total += (min(tick, stop) - start) * tempi[start] / midi.ticks_per_beat / 1e6
        return total

    beats = []
    starts = sorted(meters)
    for i, start in enumerate(starts):
        count, unit = meters[start]
        step = 4 * midi.ticks_per_beat / unit
        if unit == 8 and count > 3 and count % 3 == 0:
            count, step = count // 3, 3 * step
        stop = min(end, starts[i + 1] if i + 1 < len(starts) else end)
        beat = 0
        while start + beat * step < stop - 1:
            beats.append((second(start + beat * step), beat % count + 1))
            beat += 1
    return np.array(beats)


Bar = tuple[tuple[float, float], ...]
"""What a bar is made of: stretches (first quarter, quarters) of the 4/4 bar that it comes from."""

METERS: dict[str, tuple[int, int, Bar]] = {
    "2/4": (2, 4, ((0, 2),)),
    "3/4": (3, 4, ((0, 3),)),
    "4/4": (4, 4, ((0, 4),)),
    "5/4": (5, 4, ((0, 3), (2, 2))),
    "6/4": (6, 4, ((0, 4), (2, 2))),
    "7/4": (7, 4, ((0, 4), (0, 1), (2, 2))),
    "5/8": (5, 8, ((0, 2.5),)),
    "7/8": (7, 8, ((0, 3.5),)),
}


def with_other_bars(midi: Any, meters: list[str]) -> Any:
    """The same music with every 4/4 bar turned into one of the meter that `meters` gives in turn.

    Notes that reach over a cut end there. Seven eighths are the bar without its last eighth, five
    quarters its first three and then its last two, and so on (METERS).
    """
    import mido

    quarter = midi.ticks_per_beat
    last = max(sum(m.time for m in track) for track in midi.tracks)
    pieces, at = [], 0  # (source start, length, new start) in ticks
    for index in range(last // (4 * quarter) + 1):
        for begin, length in METERS[meters[index % len(meters)]][2]:
            start, size = int((4 * index + begin) * quarter), int(length * quarter)
            pieces.append((start, size, at))
            at += size
    out = mido.MidiFile(ticks_per_beat=quarter)
    for track in midi.tracks:
        events: list[tuple[int, int, Any]] = []  # new tick, order within it, message
        for start, stop, on in notes_of(track):
            for begin, size, new in pieces:
                if begin <= start < begin + size:
                    off = on.copy(velocity=0)
                    events.append((new + start - begin, 2, on))
                    events.append((new + min(stop - begin, size), 0, off))
        tick = 0
        for message in track:
            tick += message.time
            if message.type in ("note_on", "note_off", "time_signature", "end_of_track"):
                continue
            # where a bar holds a stretch twice, what is set in it is set from the first time on
            here = [p for p in pieces if p[0] <= tick < p[0] + p[1]]
            begin, size, new = here[0] if here else [p for p in pieces if p[0] <= tick][-1]
            events.append((new + min(tick - begin, size), 1, message))
        out.tracks.append(deltas(events))
    at, signs, before = 0, [], ""
    for index in range(last // (4 * quarter) + 1):
        meter = meters[index % len(meters)]
        count, unit, bar = METERS[meter]
        if meter != before:
            sign = mido.MetaMessage("time_signature", numerator=count, denominator=unit)
            signs.append((at, 0, sign))
        before, at = meter, at + sum(int(length * quarter) for _, length in bar)
    out.tracks.insert(0, deltas(signs))
    return out


def notes_of(track: Any) -> Iterator[tuple[int, int, Any]]:
    """Notes of a track: first tick, tick after the last, the message that begins it."""
    tick, sounding = 0, {}
    for message in track:
        tick += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        key = message.channel, message.note
        if key in sounding:
            start, on = sounding.pop(key)
            yield start, tick, on
        if message.type == "note_on" and message.velocity > 0:
            sounding[key] = tick, message
    for start, on in sounding.values():
        yield start, tick, on


def deltas(events: list[tuple[int, int, Any]]) -> Any:
    """A track of messages that stand at absolute ticks."""
    import mido

    track, last = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda e: e[:2]):
        track.append(message.copy(time=tick - last))
        last = tick
    return track


def as_six_eighths(midi: Any) -> Any:
    """A 4/4 piece as 6/8: two of its quarters are a bar, and each becomes a dotted quarter whose
    two eighths are played long and short, as the first and the third of three.
    """
    out = with_other_bars(midi, ["2/4"])
    quarter = out.ticks_per_beat

    def moved(tick: int) -> int:
        beat, inside = divmod(tick, quarter)
        half = quarter / 2
        place = inside * 2 if inside <= half else quarter + (inside - half)
        return int(1.5 * quarter * beat + place)

    for track in out.tracks:
        at, events = 0, []
        for number, message in enumerate(track):
            at += message.time
            if message.type == "time_signature":
                message = message.copy(numerator=6, denominator=8)
            elif message.type == "set_tempo":
                message = message.copy(tempo=message.tempo * 2 // 3)
            events.append((moved(at), number, message))
        track[:] = deltas(events)
    return out


def without_beginning(midi: Any, pickup: int, seconds: float) -> tuple[Any, np.ndarray]:
    """A 4/4 piece that begins with the last `pickup` beats of a bar, and its beats (n, 2).

    The bar is the first that has a note on each of these beats; what sounded before is left out.
    """
    quarter = midi.ticks_per_beat
    shortened(midi, seconds)
    beats = beats_of(midi)
    starts = {start // quarter for track in midi.tracks for start, _, _ in notes_of(track)}
    at = 4 - pickup
    while not all(at + k in starts for k in range(pickup + 1)):
        at += 4
        if at > max(starts):
            raise ValueError("no bar has notes on all of its last beats")
    for i, track in enumerate(midi.tracks):
        events: list[tuple[int, int, Any]] = []
        for start, stop, on in notes_of(track):
            if start >= at * quarter:
                events.append((start - at * quarter, 2, on))
                events.append((stop - at * quarter, 0, on.copy(velocity=0)))
        tick = 0
        for message in track:
            tick += message.time
            if message.type not in ("note_on", "note_off", "end_of_track", "time_signature"):
                events.append((max(0, tick - at * quarter), 1, message))
        midi.tracks[i] = deltas(events)
    return midi, beats[at:] - np.array([beats[at, 0], 0.0])


def varied(midi: Any, rng: random.Random) -> Any:
    """Another tempo, key and balance of the channels, now and then without drums or with rubato."""
    import mido

    factor = rng.choice([1.0, 1.0, rng.uniform(0.75, 1.33)])
    shift, no_drums = rng.choice([0, 0, rng.randint(-4, 4)]), rng.random() < 0.2
    if not any(m.type == "set_tempo" for t in midi.tracks for m in t):
        midi.tracks[0].insert(0, mido.MetaMessage("set_tempo", tempo=500_000))
    for track in midi.tracks:
        kept, waiting = [], 0
        for message in track:
            if message.type == "set_tempo":
                message.tempo = min(int(message.tempo / factor), 0xFFFFFF)
            if message.type in ("note_on", "note_off"):
                if message.channel != 9:
                    message.note = min(127, max(0, message.note + shift))
                elif no_drums:
                    waiting += message.time
                    continue
            kept.append(message.copy(time=message.time + waiting))
            waiting = 0
        track[:] = kept
    if rng.random() < 0.5:
        balance = [
            mido.Message("control_change", channel=c, control=11, value=rng.randint(50, 127))
            for c in range(16)
        ]
        midi.tracks.append(mido.MidiTrack(balance))
    if rng.random() < 0.25:
        with_rubato(midi, rng)
    return midi


def with_rubato(midi: Any, rng: random.Random) -> None:
    """Let the tempo wander by some 8 % over a few bars, from beat to beat."""
    import mido

    tempi, end = [], 0
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
        end = max(end, tick)
        track[:] = [
            mido.MetaMessage("text", time=m.time) if m.type == "set_tempo" else m for m in track
        ]
    tempi.sort()
    period, phase = rng.uniform(8, 40), rng.uniform(0, 2 * math.pi)
    depth, rough = rng.uniform(0.02, 0.08), rng.uniform(0.0, 0.015)
    events = []
    for beat in range(end // midi.ticks_per_beat + 1):
        tick = beat * midi.ticks_per_beat
        base = ([t for at, t in tempi if at <= tick] or [500_000])[-1]
        sway = depth * math.sin(2 * math.pi * beat / period + phase) + rng.gauss(0, rough)
        events.append((tick, 0, mido.MetaMessage("set_tempo", tempo=int(base * (1 + sway)))))
    midi.tracks.append(deltas(events))


def shortened(midi: Any, seconds: float) -> None:
    """Cut a piece after some seconds."""
    import mido

    tick, passed, tempo = 0, 0.0, 500_000
    for message in mido.merge_tracks(midi.tracks):
        passed += message.time * tempo / midi.ticks_per_beat / 1e6
        if passed > seconds:
            break
        tick += message.time
        tempo = message.tempo if message.type == "set_tempo" else tempo
    for track in midi.tracks:
        at, kept = 0, mido.MidiTrack()
        for message in track:
            at += message.time
            if at > tick:
                break
            kept.append(message)
        track[:] = kept
    # else fluidsynth waits for ever for notes that were cut to end
    silence = [
        mido.Message("control_change", channel=c, control=120, time=0 if c else tick)
        for c in range(16)
    ]
    midi.tracks.append(mido.MidiTrack(silence))


def render(midi: Any, soundfont: Path, rng: random.Random) -> np.ndarray:
    """Sound of a MIDI file, mono int16 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav, file = Path(folder) / "a.wav", Path(folder) / "a.mid"
        midi.type = 1
        midi.save(file)
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", "32000",
             "-o", "synth.dynamic-sample-loading=1",  # only the instruments that sound: 3x as fast
             "-o", f"synth.reverb.room-size={rng.uniform(0.0, 0.8):.2f}",
             "-o", f"synth.chorus.active={rng.randint(0, 1)}",
             "-F", str(wav), str(soundfont), str(file)],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        sound = read_mono(wav, RATE)
    return np.round(sound / max(1e-6, np.abs(sound).max()) * 0.9 * 32767).astype(np.int16)
