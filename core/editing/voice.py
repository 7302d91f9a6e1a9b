"""Written bars -> the sound of a span at the model's rate: out of the recording, or as decoded.

Arrays: C channels, N samples, T frames, B bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.bars import BAR_RATE, BAR_SAMPLES, unwarp_bar
from mgen.core.editing.bands import aligned, to_model_rate
from mgen.core.editing.base import Base
from mgen.core.editing.loudness import SEAM_S
from mgen.core.editing.mosaic import REACH_S, compose, lay
from mgen.core.editing.places import Place
from mgen.core.editing.source import as_floats
from mgen.core.editing.splice import join
from mgen.core.tokenizer.levels import BandLevels, joined

_SILENCE = 1e-3  # full scale is 1: what is softer says nothing about how loud another should be


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpanSound:
    """New sound of a span.

    Attributes
    ----------
    model_N
        Mono at 16 kHz, from the first sample of the span on.
    grains_NC, grains_first
        Where it was made of the recording: the same pieces at the file's rate with all channels,
        and the sample of the file that they begin with.
    """

    model_N: npt.NDArray[np.float32]
    grains_NC: npt.NDArray[np.float32] | None = None
    grains_first: int = 0


def decoded_span(
    places: Sequence[Place], warped: Mapping[int, npt.NDArray[np.float32]], stretcher: str
) -> SpanSound:
    """Bars as a writer gave them, each at its own length and heard between its neighbours.

    Parameters
    ----------
    warped
        Sound (32768,) of the written bars, and of those next to the span where it is known.
    """
    sounds = [
        unwarp_bar(
            warped[p.bar], p.model_last - p.model_first, rate=BAR_RATE, stretcher=stretcher,
            before=warped.get(p.bar - 1), after=warped.get(p.bar + 1),
        )
        for p in places
    ]  # fmt: skip
    return SpanSound(model_N=join(sounds, BAR_RATE))


def heard_span(places: Sequence[Place], rate: int) -> tuple[int, int]:
    """Samples of the file that the pieces of a span's mosaic may be taken from."""
    reach = round(REACH_S * rate)
    begin = min(places[0].first - reach, *(p.like_first for p in places))
    return aligned(max(0, begin), rate), places[-1].last + reach


def composed_span(
    base: Base, places: Sequence[Place], levels: Sequence[BandLevels], change_LU: Sequence[float]
) -> SpanSound:
    """A mosaic of the recording around the span that has the levels of the written bars.

    Each bar as a whole is as loud as the one that it replaces and the change, whatever was written:
    the pieces are to be found among sound of that loudness.

    Parameters
    ----------
    levels
        Of each bar of the span, warped.
    change_LU
        By how much each may change in loudness.
    """
    encoding = base.source.encoding
    rate = encoding.rate
    begin, end = heard_span(places, rate)
    (native_NC,) = base.read([(begin, end)])
    recording_NC = as_floats(native_NC, encoding)
    at = places[0].model_first - begin * BAR_RATE // rate
    recording_N = to_model_rate(recording_NC.mean(axis=1), rate)
    recording_N = np.pad(recording_N, (0, max(0, at - len(recording_N))))  # edges are rounded
    as_loud = []
    for place, written, change in zip(places, levels, change_LU, strict=True):
        first = place.like_first * BAR_RATE // rate - begin * BAR_RATE // rate
        old_N = recording_N[first : first + place.model_last - place.model_first]
        as_loud.append(_as_loud_as(written, old_N, change))
    wanted = _met_at_seams(_at_own_length(places, as_loud), places, recording_N, at)
    made_N, mosaic = compose(wanted, recording_N, at)
    return SpanSound(
        model_N=made_N[: places[-1].model_last - places[0].model_first],
        grains_NC=lay(mosaic.pieces, recording_NC, rate, BAR_RATE),
        grains_first=begin + round((at - mosaic.begin) * rate / BAR_RATE),
    )


def _as_loud_as(
    written: BandLevels, old_N: npt.NDArray[np.float32], change_dB: float
) -> BandLevels:
    """Levels moved together, to the power of the old sound and the change.

    As they are where the old sound, or what was written, is all but silent.
    """
    whole = len(old_N) // written.hop * written.hop
    if not whole or np.abs(old_N).max() < _SILENCE:
        return written
    old, new = (
        float(np.log10(np.mean(np.sum(10.0 ** mel_TM.astype(np.float64), axis=1))))
        for mel_TM in (written.mel_of(old_N[:whole]), written.mel_TM.cpu().numpy())
    )
    return written.moved(old - new + change_dB / 10.0)


def _met_at_seams(
    wanted: BandLevels, places: Sequence[Place], recording_N: npt.NDArray[np.float32], at: int
) -> BandLevels:
    """Levels that are as loud as the old sound where the span begins and ends, over 400 ms.

    They go over into what was written until the end of the first beat, and from the beginning of
    the last. Where the recording does not go on, or is all but silent, they are as written.
    """
    hop, by_T = wanted.hop, np.zeros(len(wanted))
    seam = round(SEAM_S * BAR_RATE / hop)
    old_N = recording_N[at : at + len(wanted) * hop]
    seam = min(seam, len(wanted) // 2, len(old_N) // hop)
    if not seam or places[-1].like_first != places[-1].first:
        return wanted
    old_TM = wanted.mel_of(old_N[: len(old_N) // hop * hop])
    level_T, old_T = (
        np.sum(10.0 ** mel_TM.astype(np.float64), axis=1)
        for mel_TM in (wanted.mel_TM.cpu().numpy(), old_TM)
    )
    for place, order, heard in (
        (places[0], 1, at > 0), (places[-1], -1, at + len(wanted) * hop < len(recording_N))
    ):  # fmt: skip
        if not heard or np.abs(old_N[::order][: seam * hop]).max() < _SILENCE:
            continue
        bar = place.model_last - place.model_first
        beat = place.beat * bar // max(1, place.last - place.first)
        off = np.log10(old_T[::order][:seam].mean() / level_T[::order][:seam].mean())
        until = min(max(seam, beat // hop), len(wanted) // 2)
        share_T = np.interp(np.arange(len(wanted)) + 0.5, [seam / 2, max(until, seam)], [1.0, 0.0])
        by_T += (share_T * off)[::order]
    return wanted.moved(by_T)


def _at_own_length(places: Sequence[Place], levels: Sequence[BandLevels]) -> BandLevels:
    """Levels of a span's bars at their own lengths, in whole frames that reach its end."""
    whole = joined(levels)
    edges = np.array([*(p.model_first for p in places), places[-1].model_last], np.float64)
    edges -= edges[0]
    count = -int(-edges[-1] // whole.hop)
    middles_T = (np.arange(count) + 0.5) * whole.hop
    per_bar = BAR_SAMPLES // whole.hop
    return whole.at(np.interp(middles_T, edges, per_bar * np.arange(len(edges))) - 0.5)
