"""A page to look over what was judged: songs from best to worst, with curves and spectrograms.

One HTML file with everything in it: no script, no style sheet, no picture beside it.

Shapes: N samples, T frames, M mel bands, W windows, P columns of a picture.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgen.core.audio import stream_mono
from mgen.core.errors import MgenError
from mgen.core.quality import THRESHOLD
from mgen.core.store import RATE, SongRow, Store

WIDTH, HEIGHT, CURVE_HEIGHT = 480, 80, 60
_RANGE_DB = 70.0
_FRAME = 2048

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; color: #222;
 background: #fff; padding: 0 1rem }
article { display: grid; grid-template-columns: 1fr 480px; gap: .2rem 1.2rem; padding: .8rem 0;
 border-top: 1px solid #ddd }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere }
p { margin: .1rem 0; color: #555; overflow-wrap: anywhere } b { color: #222 }
.out h2 { color: #a3202f } img, svg { display: block; width: 480px }
@media (max-width: 52rem) { article { grid-template-columns: 1fr } img, svg { width: 100% } }
"""


def write_report(store: Store, path: Path, *, threshold: float = THRESHOLD) -> Path:
    """Write the page; it appears whole or not at all.

    Sound that the store does not hold (of songs that were not kept) is read from its source where
    that is still there. Songs that were never judged come last.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(_page(store, threshold))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _page(store: Store, threshold: float) -> Iterator[str]:
    songs = sorted(store.songs(), key=_worst_last)
    kept = sum(song.kept for song in songs)
    title = html.escape(Path(store.where).name)
    yield (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}: quality</title>\n'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style>\n<h1>{title}: {kept} of {len(songs)} kept</h1>\n"
        f"<p>Best to worst. The curve is the probability of good quality, one point per 4.96 s,"
        f" smoothed; the dashed line is the threshold, {threshold:g}.</p>\n"
    )
    for song in songs:
        yield _article(store, song, threshold)
    yield "</html>\n"


def _worst_last(song: SongRow) -> tuple[float, int]:
    return (math.inf if math.isnan(song.quality) else -song.quality, song.index)


def _article(store: Store, song: SongRow, threshold: float) -> str:
    score = "not judged" if math.isnan(song.quality) else f"<b>{song.quality:.3f}</b>"
    length = f"{song.duration_s:.0f} s" if song.kept else "not kept"
    reason = f"<p>{html.escape(song.reason)}</p>" if song.reason else ""
    return (
        f'<article class="{"in" if song.kept else "out"}"><div><h2>{html.escape(song.name)}</h2>'
        f"<p>{score}, {length}</p>{reason}<p>{html.escape(song.source)}</p></div><div>"
        f"{_picture(store, song)}{curve_svg(store.quality_curve(song.index), threshold)}"
        "</div></article>\n"
    )


def curve_svg(curve_W: npt.NDArray[np.floating], threshold: float) -> str:
    """The curve from 0 to 1 as an inline drawing; nothing for a song that was not judged."""
    if not len(curve_W):
        return ""
    x_W = (np.arange(len(curve_W)) + 0.5) / len(curve_W) * WIDTH
    y_W = CURVE_HEIGHT * (1 - np.asarray(curve_W, np.float64))
    if len(x_W) == 1:  # a line needs two points
        x_W, y_W = np.array([0.0, WIDTH]), np.repeat(y_W, 2)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(x_W, y_W, strict=True))
    line_y = CURVE_HEIGHT * (1 - threshold)
    return (
        f'<svg viewBox="0 0 {WIDTH} {CURVE_HEIGHT}" role="img" aria-label="quality over time">'
        f'<rect width="{WIDTH}" height="{CURVE_HEIGHT}" fill="#f4f4f4"/>'
        f'<path d="M0 {line_y:.1f}H{WIDTH}" stroke="#999" stroke-dasharray="4 3"/>'
        f'<polyline points="{points}" fill="none" stroke="#1b6ca8" stroke-width="1.6"/></svg>'
    )


def _picture(store: Store, song: SongRow) -> str:
    try:
        png = thumbnail(_sound(store, song))
    except (MgenError, OSError):  # no sound, no picture; the reason stands beside it
        return ""
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" height="{HEIGHT}" alt="spectrogram">'


def _sound(store: Store, song: SongRow) -> Iterator[npt.NDArray[np.float32]]:
    if song.kept:
        for block in store.song_pcm(song.index).blocks(30 * RATE):
            yield block.astype(np.float32) / np.float32(32768)
    else:
        yield from stream_mono(Path(song.source), RATE)


def thumbnail(
    blocks: Iterable[npt.NDArray[np.float32]], *, frame: int = _FRAME, width: int = WIDTH
) -> bytes:
    """A small log-mel spectrogram of sound that comes in blocks, as a PNG; memory stays flat.

    Parameters
    ----------
    blocks
        Sound at 16 kHz, mono.
    frame
        Samples of a column, before columns are brought to the width.
    width
        Pixels.
    """
    import torch
    from matplotlib import colormaps
    from PIL import Image

    from mgen.kernels.log_mel import LogMelSpec, log_mel

    spec = LogMelSpec(
        rate=RATE, n_fft=frame, hop=frame, n_mels=HEIGHT // 2, f_min=20.0, f_max=RATE / 2,
        power=2.0, log="none", centre=False,
    )  # fmt: skip
    columns: list[npt.NDArray[np.float32]] = []
    for block_N in blocks:
        padded_N = np.pad(block_N, (0, -len(block_N) % frame))
        if len(padded_N):
            columns.append(log_mel(torch.from_numpy(padded_N)[None], spec)[0].numpy())
    power_TM = np.concatenate(columns) if columns else np.zeros((1, spec.n_mels), np.float32)
    edges = np.linspace(0, len(power_TM), min(width, len(power_TM)) + 1).astype(int)[:-1]
    power_PM = np.add.reduceat(power_TM, edges) / np.diff(np.append(edges, len(power_TM)))[:, None]
    db_PM = 10.0 * np.log10(np.maximum(power_PM, 1e-12))
    shade_MP = np.clip((db_PM.T[::-1] - db_PM.max()) / _RANGE_DB + 1.0, 0.0, 1.0)
    pixels = (colormaps["magma"](shade_MP)[..., :3] * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, HEIGHT)).quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()
