"""What comes back of a sweep, a piano, a full mix and drums: spectrograms above each other.

    python examples/draw_tokenizer.py DATA --soundfont FLUID.sf2 [--tokenizer MODEL] -o PICTURE.png

Above the original, below what the tokenizer (the shipped one) makes of it: a bar each, through the
warp, 64 x 16 numbers, the decoder and back. The sounds are of the split `dev` of DATA; the piano is
a MIDI file of it, played by fluidsynth (`pip install mido`). Levels span 80 dB.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import soundfile
from evaluate_tokenizer import RATE, TOP_DB, Bar, bars_of, mel_l1_db, sweep, through_tokenizer
from midi_rendering import render, shortened

from mgen.core.tokenizer import load_tokenizer
from mgen.core.weights import shipped

PIANO = "midi/easyrpg/Sorrow.mid"
MIX = "songs_full/Kevin_MacLeod-Vibe_Ace.ogg"
DRUMS = "stems/1.Hydrogen/drums.ogg"
"""Each by someone who allows it: CC-BY-4.0, CC-BY-3.0, CC0."""
PIANO_S = 40.0
COLOURS = 32


def sounds(data: Path, soundfont: Path) -> Iterator[tuple[str, Bar]]:
    """A bar from the middle of each."""
    import mido

    yield "a sweep, 50 to 7500 Hz", sweep()
    with tempfile.TemporaryDirectory() as folder:
        midi = mido.MidiFile(data / PIANO)
        shortened(midi, PIANO_S)
        wav = Path(folder) / "piano.wav"
        soundfile.write(wav, render(midi, soundfont, random.Random(0)), RATE)
        yield "a piano", middle(wav)
    yield "a full mix", middle(data / MIX)
    yield "drums", middle(data / DRUMS)


def middle(path: Path) -> Bar:
    return bars_of(path, annotated=False, count=1)[0]


def decibels(samples_N: np.ndarray) -> np.ndarray:
    power_FT = np.abs(librosa.stft(samples_N, n_fft=1024, hop_length=128)) ** 2
    return 10 * np.log10(power_FT + 1e-10)


def main() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with manifest.csv, midi/ and stems/")
    parser.add_argument("--soundfont", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="[the shipped one]")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    system = through_tokenizer(load_tokenizer(options.tokenizer or shipped("tokenizer")), None, 0)
    shown = [(t, bar.own_N, system(bar)) for t, bar in sounds(options.data, options.soundfont)]
    figure = Figure(figsize=(9.6, 4.2), layout="constrained", dpi=90)
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(shown), sharex="col", sharey=True)
    for (title, truth_N, found_N), column in zip(shown, grid.T, strict=True):
        top = decibels(truth_N).max()
        print(f"{title}: log-mel {mel_l1_db(truth_N, found_N):.2f} dB")
        for axes, samples_N in zip(column, (truth_N, found_N), strict=True):
            axes.imshow(
                decibels(samples_N), origin="lower", aspect="auto", vmin=top - TOP_DB, vmax=top,
                cmap="magma", extent=(0, len(samples_N) / RATE, 0, RATE / 2000),
            )  # fmt: skip
        column[0].set_title(title, fontsize=9)
        column[1].set_xlabel("s", fontsize=8)
    grid[0, 0].set_ylabel("original, kHz", fontsize=8)
    grid[1, 0].set_ylabel("64 x 16 numbers and back, kHz", fontsize=8)
    for axes in grid.flat:
        axes.tick_params(labelsize=7)
    with tempfile.TemporaryFile() as file:
        figure.savefig(file, format="png")
        # noise does not shrink as it is: few colours are enough for it, and half as large
        Image.open(file).convert("RGB").quantize(COLOURS).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
