"""Train the shipped beat tracker: the recipe of core/weights/tracker.

    python examples/train_tracker.py DATA --soundfont FLUID.sf2 --soundfont MUSESCORE.sf3
        [--work DIR] [--steps 2400] [-o core/weights/tracker]

Takes what DATA marks `train`: songs with annotated beats, and MIDI, which is rendered here with
fluidsynth (each file twice, with another soundfont, tempo, key, reverb and sometimes without drums;
a third of the 4/4 files again with bars cut to two or three beats). Training sounds are changed in
tempo, key, level, tone colour and noise as they are drawn. The loss forgives beats that are off by
up to 60 ms (Foscarin et al., ISMIR 2024, section 3.3). Needs `pip install mido` and fluidsynth.
It resumes from --work; two hours on two cores, most of it training.
"""

from __future__ import annotations

import argparse
import copy
import csv
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mgen.core.audio import read_mono
from mgen.core.beats.model import BeatNet, BeatNetConfig, save_beat_net
from mgen.kernels.log_mel import ONSETS, log_mel

RATE = 16000
FRAMES = 2400
"""Mel frames of one training excerpt: 24 s."""
BATCH = 12
REAL_SHARE = 0.4
POSITIVE_WEIGHT = (8.0, 16.0)
MAX_RENDER_S = 240


@dataclass(frozen=True)
class Excerptable:
    """A song to draw from: log-mel (T, 80) float16, beats (n, 2) of second and place in the bar."""

    mel_TM: np.ndarray
    beats_N2: np.ndarray


# ---------------------------------------------------------------- rendering


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


def with_short_bars(midi: Any, keep: int) -> Any:
    """The same music with only the first `keep` beats of every 4/4 bar."""
    import mido

    bar, short = 4 * midi.ticks_per_beat, keep * midi.ticks_per_beat
    out = mido.MidiFile(ticks_per_beat=midi.ticks_per_beat)
    for track in midi.tracks:
        new, tick, last, sounding = mido.MidiTrack(), 0, 0, {}
        for message in track:
            tick += message.time
            index, inside = divmod(tick, bar)
            at = index * short + min(inside, short)
            if message.type == "time_signature":
                message = message.copy(numerator=keep, denominator=4)
            elif message.type == "note_on" and message.velocity > 0:
                sounding[message.channel, message.note] = inside < short
                if inside >= short:
                    continue
            elif message.type in ("note_on", "note_off") and not sounding.pop(
                (message.channel, message.note), True
            ):
                continue
            new.append(message.copy(time=int(at - last)))
            last = at
        out.tracks.append(new)
    if not any(m.type == "time_signature" for t in out.tracks for m in t):
        out.tracks[0].insert(0, mido.MetaMessage("time_signature", numerator=keep, denominator=4))
    return out


def varied(midi: Any, rng: random.Random) -> Any:
    """Another tempo, another key, now and then without drums."""
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
    return midi


def render(midi: Any, soundfont: Path, rng: random.Random) -> np.ndarray:
    """Sound of a MIDI file, mono int16 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav, file = Path(folder) / "a.wav", Path(folder) / "a.mid"
        midi.save(file)
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", "32000",
             "-o", f"synth.reverb.room-size={rng.uniform(0.0, 0.8):.2f}",
             "-o", f"synth.chorus.active={rng.randint(0, 1)}",
             "-F", str(wav), str(soundfont), str(file)],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        sound = read_mono(wav, RATE)[: MAX_RENDER_S * RATE]
    return np.round(sound / max(1e-6, np.abs(sound).max()) * 0.9 * 32767).astype(np.int16)


def jobs(data: Path) -> Iterator[tuple[Path, int]]:
    """MIDI files of the training split, and how many beats of each bar to keep (0: all)."""
    with open(data / "midi" / "index.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            drums_only = row["path"].split("/")[1] == "groove"
            if row["split"] != "train" or (drums_only and float(row["duration_s"]) < 20):
                continue
            yield data / row["path"], 0
            if not drums_only:
                yield data / row["path"], 0
                if row["meters"] == "4/4" and int(row["tempo_changes"] or 0) < 3:
                    yield data / row["path"], -1


def render_all(data: Path, soundfonts: list[Path], work: Path) -> None:
    """Render what is not there yet."""
    import mido

    todo = list(jobs(data))
    random.Random(1).shuffle(todo)
    for i, (path, cut) in enumerate(todo):
        out, rng = work / f"render-{i:04d}.npz", random.Random(i)
        if out.exists():
            continue
        try:
            midi = mido.MidiFile(path)
            if cut and (keep := rng.choice([3, 3, 2, 3, 0])):
                midi = with_short_bars(midi, keep)
            midi = varied(midi, rng)
            beats, pcm = beats_of(midi), render(midi, rng.choice(soundfonts), rng)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            print(f"{path.name}: left out ({error})", flush=True)
            continue
        np.savez(out, mel=mel_of(pcm), beats=beats[beats[:, 0] < len(pcm) / RATE])


# ---------------------------------------------------------------- data


def mel_of(pcm: np.ndarray) -> np.ndarray:
    """Log-mel (T, 80) float16 of int16 samples."""
    with torch.inference_mode():
        x = torch.from_numpy(pcm.astype(np.float32) / 32768)
        return log_mel(x[None], ONSETS)[0].half().numpy()


def annotated(data: Path) -> Iterator[Excerptable]:
    """Songs of the training split that have beats."""
    with open(data / "manifest.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            beats = (data / row["path"]).with_suffix(".beats.csv")
            if row["split"] == "train" and row["has_beats"] == "1" and beats.exists():
                sound = read_mono(data / row["path"], RATE)
                pcm = np.round(sound / np.abs(sound).max() * 0.9 * 32767).astype(np.int16)
                yield Excerptable(mel_of(pcm), np.loadtxt(beats, delimiter=",", skiprows=1))


def excerpt(song: Excerptable, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Mel (FRAMES, 80), targets (FRAMES / 2, 2) and which frames count, changed at random."""
    speed = float(np.exp(rng.uniform(-0.18, 0.18))) if rng.random() < 0.6 else 1.0
    total = len(song.mel_TM)
    start = int(rng.integers(-200, max(1, total - int(FRAMES * speed) + 200)))
    at = start + np.arange(FRAMES) * speed
    below = np.clip(np.floor(at).astype(int), 0, total - 2)
    share = (at - np.floor(at))[:, None].astype(np.float32)
    mel = song.mel_TM[below] * (1 - share) + song.mel_TM[below + 1] * share
    mel[(at < 0) | (at >= total - 1)] = 0.0
    mel = recoloured(transposed(mel, int(rng.integers(-5, 6))), rng)
    beats_u = (song.beats_N2[:, 0] * 100 - start) / speed / 2
    target = np.zeros((FRAMES // 2, 2), np.float32)
    for k, frames in enumerate((beats_u, beats_u[song.beats_N2[:, 1] == 1])):
        inside = np.round(frames).astype(int)
        target[inside[(inside >= 0) & (inside < FRAMES // 2)], k] = 1
    first, last = song.beats_N2[[0, -1], 0] * 100
    counts = (at[::2] >= max(0.0, first - 50)) & (at[::2] <= last + 50)
    return mel.astype(np.float32), target, counts.astype(np.float32)


def transposed(mel: np.ndarray, bands: int) -> np.ndarray:
    """The spectrum moved by some mel bands."""
    moved = np.roll(mel, bands, axis=1)
    if bands > 0:
        moved[:, :bands] = 0.0
    elif bands < 0:
        moved[:, bands:] = moved[:, bands - 1 : bands]
    return moved


def recoloured(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another level, tone colour, noise, and now and then a missing top."""
    if rng.random() < 0.7:
        linear = np.expm1(mel)
        slope = np.cos(np.pi * np.linspace(0, 1, mel.shape[1]) * rng.uniform(0.5, 3)
                       + rng.uniform(0, 6))  # fmt: skip
        linear *= 10 ** ((rng.uniform(-14, 6) + rng.normal(0, 4) * slope) / 20)
        if rng.random() < 0.4:
            linear += np.abs(rng.normal(0, 1, mel.shape)) * 10 ** rng.uniform(-3, -0.5)
        mel = np.log1p(linear)
    if rng.random() < 0.2:
        mel[:, int(rng.integers(45, 80)) :] = 0.0
    return mel


# ---------------------------------------------------------------- training


def forgiving_loss(
    logits: torch.Tensor, target: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy (2,); a beat may be off by 3 frames, within 6 nothing counts as none."""

    def widest(x: torch.Tensor, reach: int) -> torch.Tensor:
        wide = F.max_pool1d(x.transpose(1, 2), 2 * reach + 1, stride=1, padding=reach)
        return wide.transpose(1, 2)

    beat = -F.logsigmoid(widest(logits, 3)) * target * torch.tensor(POSITIVE_WEIGHT)
    rest = -F.logsigmoid(-logits) * (1 - widest(target, 6))
    return ((beat + rest) * counts[..., None]).mean((0, 1))


def train(real: list[Excerptable], rendered: list[Excerptable], steps: int, work: Path) -> BeatNet:
    """AdamW with cosine decay and an averaged model; resumes from `work`."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = BeatNet(BeatNetConfig())
    average = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    checkpoint, first = work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    began, losses = time.time(), []
    for step in range(first, steps):
        rate = 2e-3 * min(1.0, step / 300) * (0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        pools = [real if rng.random() < REAL_SHARE else rendered for _ in range(BATCH)]
        batch = [excerpt(pool[rng.integers(len(pool))], rng) for pool in pools]
        mel, target, counts = (torch.from_numpy(np.stack(x)) for x in zip(*batch, strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(mel)
        loss = forgiving_loss(logits.float(), target, counts)
        if not torch.isfinite(loss).all():
            raise SystemExit(f"step {step}: the loss is {loss}; lower the learning rate")
        optimiser.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        follow(average, net, min(0.999, (1 + step) / (10 + step)))
        losses.append(loss.detach().numpy())
        if step % 50 == 49:
            beat, down = np.mean(losses[-50:], axis=0)
            pace = (time.time() - began) / (step + 1 - first)
            print(f"{step + 1} beat {beat:.4f} downbeat {down:.4f} {pace:.2f} s/step", flush=True)
        if step % 250 == 249:
            state = {
                "net": net.state_dict(), "average": average.state_dict(),
                "optimiser": optimiser.state_dict(), "step": step + 1,
            }  # fmt: skip
            torch.save(state, checkpoint)
    return average


@torch.no_grad()
def follow(average: BeatNet, net: BeatNet, keep: float) -> None:
    """Move the averaged weights a step towards the current ones."""
    for a, b in zip(average.parameters(), net.parameters(), strict=True):
        a.lerp_(b, 1 - keep)
    for a, b in zip(average.buffers(), net.buffers(), strict=True):
        a.copy_(b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, default=Path("tracker-training"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("-o", "--out", type=Path, default=Path("core/weights/tracker"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    render_all(given.data, given.soundfont, given.work)
    rendered = []
    for file in sorted(given.work.glob("render-*.npz")):
        with np.load(file) as made:
            if len(made["mel"]) >= 800 and len(made["beats"]) >= 8:
                rendered.append(Excerptable(made["mel"], made["beats"]))
    real = list(annotated(given.data))
    print(f"{len(real)} annotated songs, {len(rendered)} renders", flush=True)
    net = train(real, rendered, given.steps, given.work)
    save_beat_net(net, given.out, {"steps": given.steps, "seed": 0, "renders": len(rendered)})
    print(given.out)


if __name__ == "__main__":
    main()
