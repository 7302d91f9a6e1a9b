"""Pictures for people who would rather look: bars over a spectrogram, notes over a waveform.

Shape suffixes: N samples, C channels, M mel bands, T frames, P pixels (columns of a picture).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgen.core.beatmap.chart import DOT, BeatMap, Chart
from mgen.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mgen.core.bars import BarGrid
    from mgen.core.store import BarTable

RED_HEX, BLUE_HEX = "#d7263d", "#1b6ca8"
INK, FAINT = "#222222", "#9a9a9a"

# matplotlib angle of an arrow that points up, turned by cut direction (degrees clockwise)
_TURN_DEG = {0: 0, 1: 180, 2: 270, 3: 90, 4: 315, 5: 45, 6: 225, 7: 135}


def _figure(rows: int, heights: list[float], width_in: float = 12.0) -> tuple[Any, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, sum(heights)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 1, height_ratios=heights)
    axes = [figure.add_subplot(grid[0])]
    axes += [figure.add_subplot(grid[i], sharex=axes[0]) for i in range(1, rows)]
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    for axes in figure.axes:
        axes.label_outer()
    temporary = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": "mgen"})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def envelope(samples_N: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample behind each column of a picture, two arrays (P,)."""
    edges = np.linspace(0, len(samples_N), pixels + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples_N, edges), np.maximum.reduceat(samples_N, edges)


def draw_bars(
    path: Path,
    samples_N: np.ndarray,
    rate: int,
    grid: BarGrid | BarTable,
    *,
    title: str = "",
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Path:
    """Draw a song's bars and tempo over its log-mel spectrogram, as a PNG.

    Parameters
    ----------
    samples_N
        Mono float samples of the whole song.
    grid
        The bars; those that are not valid are drawn dashed.
    start_s, end_s
        The stretch to draw; the whole song by default.
    """
    import librosa

    end_s = min(len(samples_N) / rate, np.inf if end_s is None else end_s)
    if not 0 <= start_s < end_s:
        raise UsageError(f"nothing to draw between {start_s} s and {end_s} s")
    part_N = samples_N[int(start_s * rate) : int(end_s * rate)]
    hop = max(128, len(part_N) // 2400)
    mel_MT = librosa.feature.melspectrogram(
        y=part_N, sr=rate, n_fft=2048, hop_length=hop, n_mels=96, fmax=rate / 2
    )
    figure, (top, bottom) = _figure(2, [3.4, 1.2])
    top.imshow(
        librosa.power_to_db(mel_MT, ref=np.max, top_db=70), origin="lower", aspect="auto",
        cmap="magma", extent=(start_s, end_s, 0, 96), interpolation="nearest",
    )  # fmt: skip
    shown = np.flatnonzero((grid.end_s > start_s) & (grid.start_s < end_s))
    step = max(1, len(shown) // 40)
    for bar in shown:
        top.axvline(
            grid.start_s[bar], color="white", lw=0.9, alpha=0.85,
            ls="-" if grid.valid[bar] else (0, (2, 2)),
        )  # fmt: skip
        if bar % step == 0:
            top.text(grid.start_s[bar] + 0.03, 90, str(bar + 1), color="white", size=7, va="top")
    top.set(ylabel="mel band", title=title, xlim=(start_s, end_s))
    times = np.repeat(np.append(grid.start_s[shown], grid.end_s[shown[-1:]]), 2)[1:-1]
    bottom.plot(times, np.repeat(grid.bpm[shown], 2), color=INK, lw=1.2)
    bottom.set(ylabel="BPM", xlabel="seconds")
    bottom.grid(alpha=0.3)
    return _save(figure, path)


def draw_edit(
    path: Path,
    before_N: np.ndarray,
    after_N: np.ndarray,
    rate: int,
    spans_s: Sequence[tuple[float, float]],
    *,
    title: str = "",
    start_s: float = 0.0,
) -> Path:
    """Draw a recording before and after an edit, as a PNG: waveforms and log-mel spectrograms.

    Parameters
    ----------
    before_N, after_N
        Mono float samples, from the same instant on; one may be longer.
    spans_s
        The edited stretches, in seconds of the recording; they are marked.
    start_s
        Where in the recording the samples begin.
    """
    import librosa

    count = max(len(before_N), len(after_N))
    if not count:
        raise UsageError("nothing to draw: both recordings are empty")
    end_s = start_s + count / rate
    figure, axes = _figure(4, [1.0, 2.2, 1.0, 2.2])
    peak = max(1e-4, *(float(np.abs(x).max(initial=0.0)) for x in (before_N, after_N)))
    mels = []
    for samples_N in (before_N, after_N):
        padded_N = np.pad(samples_N, (0, count - len(samples_N)))
        mel_MT = librosa.feature.melspectrogram(
            y=padded_N, sr=rate, n_fft=2048, hop_length=max(128, count // 2400), n_mels=96,
            fmax=rate / 2,
        )  # fmt: skip
        mels.append((padded_N, mel_MT))
    top = max(1e-10, *(float(mel_MT.max()) for _, mel_MT in mels))  # one scale for both
    for name, (padded_N, mel_MT), (wave, mel) in zip(
        ("before", "after"), mels, (axes[:2], axes[2:]), strict=True
    ):
        pixels = min(1600, count)
        low_P, high_P = envelope(padded_N, pixels)
        wave.fill_between(np.linspace(start_s, end_s, pixels), low_P, high_P, color=INK, lw=0)
        wave.set(yticks=[], ylabel=name, ylim=(-peak, peak), xlim=(start_s, end_s))
        mel.imshow(
            librosa.power_to_db(mel_MT, ref=top, top_db=None), origin="lower", aspect="auto",
            cmap="magma", extent=(start_s, end_s, 0, 96), interpolation="nearest", vmin=-75, vmax=0,
        )  # fmt: skip
        mel.set(ylabel="mel band")
        for first_s, last_s in spans_s:
            wave.axvspan(first_s, last_s, color=BLUE_HEX, alpha=0.25, lw=0)
            for edge_s in (first_s, last_s):
                mel.axvline(edge_s, color="white", lw=1.1)
    axes[0].set_title(title)
    axes[-1].set(xlabel="seconds")
    return _save(figure, path)


def draw_map(
    path: Path,
    samples_N: np.ndarray,
    rate: int,
    beat_map: BeatMap,
    *,
    chart: Chart | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Path:
    """Draw a chart's notes, walls and lights over the waveform, as a PNG.

    Times are those of the level's own song (beat 0 = sample 0). By default the hardest chart, over
    16 s from the preview's start.
    """
    if not beat_map.charts:
        raise UsageError(f"{beat_map.title}: the map has no difficulty to draw")
    chart = chart or max(beat_map.charts, key=lambda c: c.difficulty.rank)
    start_s = beat_map.preview_start_s if start_s is None else start_s
    end_s = min(len(samples_N) / rate, start_s + 16 if end_s is None else end_s)
    if not 0 <= start_s < end_s:
        raise UsageError(f"nothing to draw between {start_s} s and {end_s} s")
    clock = chart.time_map(beat_map.bpm)
    figure, (notes, wave, lights) = _figure(3, [3.0, 1.2, 0.7])
    _draw_grid(notes, clock.to_beats(start_s), clock.to_beats(end_s), clock.to_seconds)
    for wall in chart.walls:
        a, b = clock.to_seconds(wall.beat), clock.to_seconds(wall.beat + wall.duration)
        if b > start_s and a < end_s:
            notes.axvspan(a, b, (wall.column + 0.04) / 4, (wall.column + wall.width - 0.04) / 4,
                          color="#6a4c93", alpha=0.25, lw=0)  # fmt: skip
    for note in chart.notes:
        second = clock.to_seconds(note.beat)
        if start_s <= second < end_s:
            _draw_note(notes, second, note.column + (note.row + 0.7) / 3.4, note.colour,
                       note.direction)  # fmt: skip
    for bomb in chart.bombs:
        second = clock.to_seconds(bomb.beat)
        if start_s <= second < end_s:
            notes.plot(second, bomb.column + (bomb.row + 0.7) / 3.4, "x", color=INK, ms=7)
    notes.set(ylim=(0, 4), yticks=[0.5, 1.5, 2.5, 3.5], ylabel="column (rows inside)")
    notes.set_title(f"{beat_map.title} - {chart.difficulty.value}, {beat_map.bpm:g} BPM")
    notes.set_yticklabels(["1", "2", "3", "4"])
    low_P, high_P = envelope(samples_N[int(start_s * rate) : int(end_s * rate)], 1600)
    wave.fill_between(np.linspace(start_s, end_s, 1600), low_P, high_P, color=INK, lw=0)
    wave.set(yticks=[], ylabel="sound", xlim=(start_s, end_s))
    palette = {0: INK, 1: BLUE_HEX, 2: RED_HEX, 3: "#c9a227"}
    for light in chart.lights:
        second = clock.to_seconds(light.beat)
        if start_s <= second < end_s and light.kind in (0, 1, 2, 3, 4):
            colour = palette[0 if light.value == 0 else (light.value - 1) // 4 + 1]
            lights.plot([second, second], [light.kind, light.kind + 0.8], color=colour, lw=1.6)
    lights.set(ylim=(-0.2, 5), yticks=[], ylabel="lights", xlabel="seconds")
    return _save(figure, path)


def _draw_grid(axes: Axes, first: float, last: float, to_seconds: Any) -> None:
    for line in range(1, 4):
        axes.axhline(line, color=FAINT, lw=0.8)
    for beat in range(int(np.ceil(first)), int(np.floor(last)) + 1):
        axes.axvline(to_seconds(beat), color=FAINT, lw=0.9 if beat % 4 == 0 else 0.35)


def _draw_note(axes: Axes, x: float, y: float, colour: int, direction: int) -> None:
    from matplotlib.markers import MarkerStyle
    from matplotlib.transforms import Affine2D

    face = RED_HEX if colour == 0 else BLUE_HEX
    if direction == DOT:
        axes.plot(x, y, "o", color=face, ms=7, mec="white", mew=0.7)
        return
    turn = Affine2D().rotate_deg(-_TURN_DEG[direction])
    axes.plot(x, y, marker=MarkerStyle("^", transform=turn), color=face, ms=9, mec="white",
              mew=0.7, ls="none")  # fmt: skip
