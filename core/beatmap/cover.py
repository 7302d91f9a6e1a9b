"""A square cover drawn from the song itself: each bar a ray of a disc, each band a ring.

Arrays: N samples, R rays around the disc, K bands from low (inside) to high (rim), P pixels.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

SIZE = 512
RAYS = (48, 240)
BANDS = 22
_FFT = 2048
_LOW_HZ, _HIGH_HZ = 60.0, 7000.0
_HUB, _RIM = 0.15, 0.47  # radii, in widths of the picture
_OVERSAMPLE = 2


def draw_cover(
    samples_N: np.ndarray,
    rate: int,
    *,
    title: str,
    artist: str = "",
    bar_edges_s: Sequence[float] = (),
) -> bytes:
    """Draw a 512 x 512 PNG; the same song and names give the same bytes.

    Clockwise from the top, each ray is a bar (or an equal share of the song where there are too
    few or too many), each ring a band of the spectrum, lit by its loudness. Two hues come from
    a hash of the names. Title and artist stand below as far as the built-in font has their
    letters.

    Parameters
    ----------
    samples_N
        The song, mono.
    rate
        Its rate in Hz.
    title, artist
        Drawn, and the seed of the colours.
    bar_edges_s
        Times of the bar lines.
    """
    from PIL.Image import Dither, Quantize

    duration_s = len(samples_N) / rate
    edges_s = _ray_edges(bar_edges_s, duration_s)
    level_RK = band_levels(samples_N, rate, edges_s)
    hue = _hash_hue(f"{title}\n{artist}")
    picture = _paint(level_RK, edges_s, hue)
    _write_names(picture, title, artist)
    # 256 colours are enough for two hues and a third of the bytes
    small = picture.quantize(256, Quantize.MEDIANCUT, dither=Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _ray_edges(bar_edges_s: Sequence[float], duration_s: float) -> np.ndarray:
    edges = [e for e in bar_edges_s if 0.0 < e < duration_s]
    bars = len(edges) + 1
    if not RAYS[0] <= bars <= RAYS[1]:
        edges = list(np.linspace(0.0, duration_s, 121)[1:-1])
    return np.array([0.0, *edges, max(duration_s, 1e-3)])


def band_levels(samples_N: np.ndarray, rate: int, edges_s: np.ndarray) -> np.ndarray:
    """Loudness of each band in each stretch of time, (R, K) in 0..1, each band by its own range."""
    hz = np.fft.rfftfreq(_FFT, 1.0 / rate)
    top = min(_HIGH_HZ, 0.45 * rate)
    cuts = np.geomspace(_LOW_HZ, top, BANDS + 1)
    band_F = np.clip(np.searchsorted(cuts, hz, side="right") - 1, -1, BANDS)
    window = np.hanning(_FFT)
    level_RK = np.zeros((len(edges_s) - 1, BANDS))
    for r, (start, stop) in enumerate(itertools.pairwise(edges_s)):
        for at in np.linspace(start, stop, 6, endpoint=False):
            frame = samples_N[int(at * rate) :][:_FFT]
            power = np.abs(np.fft.rfft(np.pad(frame, (0, _FFT - len(frame))) * window)) ** 2
            level_RK[r] += np.bincount(band_F + 1, power, BANDS + 2)[1:-1]
    decibel_RK = 10.0 * np.log10(level_RK + 1e-7)
    low, high = np.percentile(decibel_RK, 15, axis=0), np.percentile(decibel_RK, 99, axis=0)
    # a band that never changes is as bright as the song is loud there, not noise blown up
    spread = np.maximum(high - low, 12.0)
    shade: np.ndarray = np.clip((decibel_RK - high) / spread + 1.0, 0.0, 1.0)
    return shade


def _hash_hue(text: str) -> float:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[0] / 256.0


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _paint(level_RK: np.ndarray, edges_s: np.ndarray, hue: float) -> Image:
    from PIL import Image

    side = SIZE * _OVERSAMPLE
    axis = (np.arange(side) + 0.5) / side
    x, y = axis[None, :] - 0.5, axis[:, None] - 0.46
    radius, turn = np.hypot(x, y), (np.arctan2(x, -y) / (2.0 * math.pi)) % 1.0
    ray = np.searchsorted(edges_s / edges_s[-1], turn, side="right") - 1
    ray = np.clip(ray, 0, len(level_RK) - 1)
    place = (radius - _HUB) / (_RIM - _HUB) * BANDS
    band = np.clip(place.astype(int), 0, BANDS - 1)
    light = level_RK[ray, band] ** 1.6
    # a thin dark seam between rings makes the disc read as grooves
    light = light * np.clip(8.0 * np.minimum(place % 1.0, 1.0 - place % 1.0), 0.35, 1.0)
    inside = (place >= 0.0) & (place < BANDS)

    warm, cool = _rgb(hue, 0.78, 1.0), _rgb(hue + 0.42, 0.8, 1.0)
    blend = (place.clip(0, BANDS) / BANDS)[..., None]
    glow = warm * (1.0 - blend) + cool * blend
    base = _rgb(hue + 0.58, 0.55, 0.09) * (1.25 - radius[..., None])
    loudness = float(level_RK.mean())
    halo = np.exp(-(((radius - _RIM) / 0.05) ** 2))[..., None] * (0.05 + 0.2 * loudness)
    colour = base + halo * cool
    colour = np.where(inside[..., None], base * 0.6 + glow * light[..., None], colour)
    hub = radius < _HUB * 0.92
    colour = np.where(hub[..., None], warm * (0.75 + 0.25 * y[..., None] / _HUB), colour)
    colour = np.where((radius < _HUB * 0.22)[..., None], base, colour)
    shade = np.clip((axis[:, None, None] - 0.74) / 0.2, 0.0, 1.0) * 0.88
    pixels = np.clip(colour * (1.0 - shade) * 255.0, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "RGB").resize((SIZE, SIZE), Image.Resampling.BOX)


def _write_names(picture: Image, title: str, artist: str) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    bottom = SIZE - 26
    for text, sizes, fill in ((artist, (20,), (190, 190, 200)), (title, (44, 34, 26), "white")):
        line, font = _fitted(text, sizes)
        if line:
            draw.text((SIZE / 2, bottom), line, font=font, fill=fill, anchor="ms")
            bottom -= 32


def _fitted(text: str, sizes: Sequence[int]) -> tuple[str, FreeTypeFont | None]:
    """The text as far as the font has its letters, in the largest size that fits the width."""
    from PIL import ImageFont

    font = None
    for size in sizes:
        loaded = ImageFont.load_default(size)
        if not isinstance(loaded, ImageFont.FreeTypeFont):  # Pillow without FreeType: no names
            return "", None
        font = loaded
        missing = bytes(font.getmask("\uffff"))
        known = (_known(c, font, missing) for c in text)
        line = " ".join("".join(known).split())
        letters = sum(not c.isspace() for c in text)
        if not line or sum(not c.isspace() for c in line) < 0.6 * letters:
            return "", None  # a name of which little is left tells nobody anything
        if font.getlength(line) <= SIZE - 48:
            return line, font
    assert font is not None
    while len(line) > 1 and font.getlength(line + "...") > SIZE - 48:
        line = line[:-1].rstrip()
    return line + "...", font


def _known(letter: str, font: FreeTypeFont, missing: bytes) -> str:
    """The letter, or without its accent, or nothing: whichever the font can draw."""
    for form in (letter, unicodedata.normalize("NFKD", letter)[:1]):
        if form.isspace() or bytes(font.getmask(form)) != missing:
            return form
    return ""
