"""Written bars -> samples of the file: one span of neighbouring bars, ready to be put in.

Arrays: C channels, N samples, B bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mgen.core.editing.bands import (
    MODEL_RATE,
    aligned,
    dress,
    from_model_rate,
    to_model_rate,
)
from mgen.core.editing.base import Base
from mgen.core.editing.limiter import limit, true_peak
from mgen.core.editing.loudness import SEAM_LU, SEAM_S, Shape, loudness, match_loudness
from mgen.core.editing.places import Place
from mgen.core.editing.source import Encoding, as_floats, as_native
from mgen.core.editing.splice import fade_length, splice
from mgen.core.editing.writing import Patch

if TYPE_CHECKING:
    from mgen.core.editing.voice import SpanSound

_CONTEXT_S = 0.25  # of sound around a bar that filters hear
_JOINT_S = 0.005  # by which neighbouring bars overlap, to each side
_HEARD_LUFS = -60.0
_SEAM_ROUNDS = 4  # of bringing a seam to the loudness that it is to have


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenderedSpan:
    """New samples of one span.

    `seams_LU` says how far the loudness of the first and the last 400 ms is from what it was; None
    where nothing is before or after, or the old sound is all but silent there.
    """

    patch: Patch
    crossfade: int
    seams_LU: tuple[float | None, float | None]


def render_span(
    base: Base, places: Sequence[Place], sound: SpanSound, change_LU: Sequence[float]
) -> RenderedSpan:
    """Make the file's own samples of written bars that follow each other.

    Parameters
    ----------
    base
        What the bars are put into.
    places
        Where they go.
    sound
        What is heard of them.
    change_LU
        By how much each may change in loudness.
    """
    encoding = base.source.encoding
    rate, first = encoding.rate, places[0].first
    context = round(_CONTEXT_S * rate)
    begin, end = aligned(max(0, first - context), rate), places[-1].last + context
    (around,) = base.read([(begin, end)])
    last = places[-1].last
    appended = places[-1].like_first != places[-1].first
    if not appended:  # a bar's edge may be rounded to just past the end of the file
        last = min(last, begin + len(around))
    closes = begin + len(around) > last
    old_NC = _padded(as_floats(around, encoding), end - begin)
    new_N = _at_source_rate(old_NC, begin, places, sound.model_N, rate)
    made_NC, like_NC = _dressed(base, places, new_N, old_NC, begin, sound)
    made_NC, like_NC = made_NC[: last - first], like_NC[: last - first]
    edges = (*(min(p.first, last) - first for p in places), last - first)
    shape = Shape(
        edges=edges, change_LU=tuple(change_LU), first_beat=places[0].beat,
        last_beat=places[-1].beat, opens=first > 0, closes=closes,
    )  # fmt: skip
    fade = fade_length(rate, last - first)
    fades = (fade if shape.opens else 0, fade if closes or appended else 0)
    native_NC = around[first - begin : last - begin]
    pcm_NC, seams = _fitted(made_NC, like_NC, native_NC, base.source.encoding, shape, fades)
    gap = max(0, first - begin - len(around))  # of a sample or two, where edges are rounded
    pcm_NC = np.pad(pcm_NC, ((gap, 0), (0, 0)))
    return RenderedSpan(patch=Patch(first - gap, pcm_NC), crossfade=fade, seams_LU=seams)


def _fitted(
    made_NC: npt.NDArray[np.float32], like_NC: npt.NDArray[np.float32],
    native_NC: npt.NDArray[Any], encoding: Encoding, shape: Shape, fades: tuple[int, int],
) -> tuple[npt.NDArray[Any], tuple[float | None, float | None]]:  # fmt: skip
    """The span in the file's own samples: as loud as wished, below the ceiling, crossfaded.

    As crossfades, the limiter and rounding move the loudness at the seams, these are measured and
    aimed at again.

    Returns
    -------
    Samples, and how far the seams are from the old sound, in LU.
    """
    rate = encoding.rate
    peak, between = float(np.abs(like_NC).max(initial=0.0)), true_peak(like_NC, rate)
    for _ in range(_SEAM_ROUNDS):
        out_NC = match_loudness(made_NC, like_NC, rate, shape)
        out_NC = limit(out_NC, rate, peak=max(1.0, peak), between=max(1.0, between))
        spliced_NC = splice(
            out_NC, native_NC / encoding.full_scale, fade_in=fades[0], fade_out=fades[1]
        )
        pcm_NC = as_native(spliced_NC, encoding)
        seams = _seams(as_floats(pcm_NC, encoding), like_NC, rate, shape)
        before, after = (step or 0.0 for step in seams)
        if max(abs(before), abs(after)) <= SEAM_LU / 2:
            break
        was = shape.seams_LU
        shape = replace(shape, seams_LU=(was[0] - before, was[1] - after))
    return pcm_NC, seams


def _at_source_rate(
    old_NC: npt.NDArray[np.float32], begin: int, places: Sequence[Place],
    sound_N: npt.NDArray[np.float32], rate: int,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """The written bars between the old sound's downmix, mono at the file's rate."""
    model_N = to_model_rate(old_NC.mean(axis=1), rate)
    at = places[0].model_first - begin * MODEL_RATE // rate
    model_N = _padded(model_N, at + len(sound_N))
    model_N[at : at + len(sound_N)] = sound_N
    return from_model_rate(model_N, rate, len(old_NC))


def _dressed(
    base: Base, places: Sequence[Place], new_N: npt.NDArray[np.float32],
    old_NC: npt.NDArray[np.float32], begin: int, sound: SpanSound,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:  # fmt: skip
    """The span with channels and highs, bar by bar; and the old sound that it stands for.

    Channels and highs are those of the grains where there are such, else those of the old sound.
    """
    encoding = base.source.encoding
    rate, first, last = encoding.rate, places[0].first, places[-1].last
    context, joint = round(_CONTEXT_S * rate), round(_JOINT_S * rate)
    out_NC = np.zeros((last - first, encoding.channels), np.float32)
    like_NC = np.zeros_like(out_NC)
    grains_NC = _with_grains(old_NC, begin, first, last, sound)
    for place in places:
        low = max(begin, place.first - context)
        high = min(begin + len(old_NC), place.last + context)
        part_NC = old_NC[low - begin : high - begin]
        if place.like_first != place.first:
            part_NC = _elsewhere(base, place.like_first - place.first, low, high)
        of_NC = part_NC if grains_NC is None else grains_NC[low - begin : high - begin]
        made_NC = dress(new_N[low - begin : high - begin], of_NC, rate)
        left = joint if place.first > first else 0
        right = joint if place.last < last else 0
        span = slice(place.first - left - low, place.last + right - low)
        weights_N = _overlap(span.stop - span.start, 2 * left, 2 * right)
        into = slice(place.first - left - first, place.last + right - first)
        out_NC[into] += made_NC[span] * weights_N[:, None]
        like_NC[place.first - first : place.last - first] = part_NC[
            place.first - low : place.last - low
        ]
    return out_NC, like_NC


def _with_grains(
    old_NC: npt.NDArray[np.float32], begin: int, first: int, last: int, sound: SpanSound
) -> npt.NDArray[np.float32] | None:
    """The old sound with the grains in place of the span; None where there are no grains."""
    if sound.grains_NC is None:
        return None
    out_NC = old_NC.copy()
    low = max(first, sound.grains_first)
    taken_NC = sound.grains_NC[low - sound.grains_first : last - sound.grains_first]
    out_NC[low - begin : low - begin + len(taken_NC)] = taken_NC
    return out_NC


def _elsewhere(base: Base, shift: int, low: int, high: int) -> npt.NDArray[np.float32]:
    """The base's sound that lies `shift` samples away; silence before its beginning and end."""
    low, high = low + shift, high + shift
    (pcm_NC,) = base.read([(max(0, low), max(0, high))])
    floats_NC = as_floats(pcm_NC, base.source.encoding)
    return _padded(np.pad(floats_NC, ((max(0, -low), 0), (0, 0))), high - low)


def _overlap(count: int, rise: int, fall: int) -> npt.NDArray[np.float32]:
    """Weights that add up to 1 with those of the neighbours."""
    at = np.arange(count) + 0.5
    up_N = np.clip(at / rise, 0, 1) if rise else np.ones(count)
    down_N = np.clip((count - at) / fall, 0, 1) if fall else np.ones(count)
    return (up_N * down_N).astype(np.float32)


def _seams(
    out_NC: npt.NDArray[np.float32], like_NC: npt.NDArray[np.float32], rate: int, shape: Shape
) -> tuple[float | None, float | None]:
    seam = min(round(SEAM_S * rate), len(out_NC))
    found: list[float | None] = []
    for wanted, part in (
        (shape.opens, slice(0, seam)), (shape.closes, slice(len(out_NC) - seam, None))
    ):  # fmt: skip
        old, new = loudness(like_NC[part], rate), loudness(out_NC[part], rate)
        heard = wanted and old > _HEARD_LUFS and math.isfinite(new)
        found.append(new - old if heard else None)
    return found[0], found[1]


def _padded(samples: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """At least `count` samples, with silence at the end."""
    missing = max(0, count - len(samples))
    return np.pad(samples, ((0, missing),) + ((0, 0),) * (samples.ndim - 1))
