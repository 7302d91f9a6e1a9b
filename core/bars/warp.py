"""Time-warp: a bar of any length to 32,768 samples, and back, at its own pitch.

Arrays: N samples of what goes in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mgen.core.bars.grid import BAR_RATE, BAR_SAMPLES
from mgen.core.bars.magnitudes import restore_magnitudes
from mgen.core.bars.stretchers import rubberband, signalsmith
from mgen.core.errors import AudioError, UsageError

Stretcher = Callable[[np.ndarray, int, int], np.ndarray]

STRETCHERS: dict[str, Stretcher] = {"signalsmith": signalsmith, "rubberband": rubberband}
"""Name to `stretch(samples_N, n_out, rate)`; the first is the default."""

CONTEXT_S = 0.25
"""Sound before and after a bar that a stretcher hears, so that edges neither click nor fade."""

_FARTHEST = 16.0  # the largest ratio of lengths that goes through a stretcher


def warp_bar(
    samples_N: np.ndarray,
    *,
    n_out: int = BAR_SAMPLES,
    rate: int = BAR_RATE,
    stretcher: str = "signalsmith",
    restore: bool = True,
    before: np.ndarray | None = None,
    after: np.ndarray | None = None,
) -> np.ndarray:
    """Stretch a bar to exactly `n_out` samples, (n_out,) float32, without changing its pitch.

    Time is mapped evenly: what happens at sample i of N is heard at sample i * n_out / N. A bar
    that has the length already is returned as it is, bit for bit.

    Parameters
    ----------
    samples_N
        Mono float samples of the bar.
    stretcher
        A name of `STRETCHERS`.
    restore
        Whether the result gets back the bar's short-time magnitudes (`restore_magnitudes`); False
        leaves it as the stretcher made it.
    before, after
        Sound around the bar (a quarter of a second counts): heard at the edges, not part of the
        result. Where it is shorter there is silence; None mirrors the bar at its edges.

    Raises
    ------
    UsageError
        If there is no such stretcher, or `n_out` is not positive.
    AudioError
        If the bar has no samples.
    MissingDependencyError
        If the stretcher is an optional one that is not installed.
    """
    if stretcher not in STRETCHERS:
        raise UsageError(f"no stretcher is called '{stretcher}'; use {' or '.join(STRETCHERS)}")
    if n_out < 1:
        raise UsageError(f"cannot warp a bar to {n_out} samples")
    samples_N = np.asarray(samples_N, np.float32)
    n = len(samples_N)
    if n == 0:
        raise AudioError("a bar without samples cannot be warped; its edges coincide")
    if n == n_out:
        return samples_N.copy()
    if not 1 / _FARTHEST <= n_out / n <= _FARTHEST:
        # far beyond any bar: no pitch is left to keep, and Rubber Band crashes there
        points = np.arange(n_out) * (n / n_out)
        return np.interp(points, np.arange(n), samples_N).astype(np.float32)
    wanted = round(CONTEXT_S * rate)
    # whole samples on both sides of the warp, so that the bar's edges stay where they are
    margin_out = round(wanted * n_out / n)
    margin = round(margin_out * n / n_out)
    wide = np.pad(samples_N, margin, mode="symmetric")
    if before is not None:
        near = before[max(0, len(before) - margin) :]
        wide[:margin] = np.pad(near, (margin - len(near), 0))
    if after is not None:
        near = after[:margin]
        wide[margin + n :] = np.pad(near, (0, margin - len(near)))
    stretched = STRETCHERS[stretcher](wide, n_out + 2 * margin_out, rate)
    if restore:
        stretched = restore_magnitudes(stretched, wide, rate)
    return stretched[margin_out : margin_out + n_out]


def unwarp_bar(
    samples_N: np.ndarray,
    n_samples: int,
    *,
    rate: int = BAR_RATE,
    stretcher: str = "signalsmith",
    restore: bool = True,
    before: np.ndarray | None = None,
    after: np.ndarray | None = None,
) -> np.ndarray:
    """Bring a warped bar back to its own length, (n_samples,) float32; the inverse of `warp_bar`.

    Raises
    ------
    UsageError, AudioError, MissingDependencyError
        As `warp_bar`.
    """
    return warp_bar(
        samples_N, n_out=n_samples, rate=rate, stretcher=stretcher, restore=restore,
        before=before, after=after,
    )  # fmt: skip


def warp_song_bar(
    song_N: np.ndarray,
    start_s: float,
    end_s: float,
    *,
    n_out: int = BAR_SAMPLES,
    rate: int = BAR_RATE,
    stretcher: str = "signalsmith",
) -> np.ndarray:
    """Cut a bar out of a song and warp it, with the song around it as context.

    Raises
    ------
    UsageError, AudioError, MissingDependencyError
        As `warp_bar`.
    """
    start, end = bar_samples(start_s, end_s, rate)
    end = min(end, len(song_N))
    reach = rate
    return warp_bar(
        song_N[start:end], n_out=n_out, rate=rate, stretcher=stretcher,
        before=song_N[max(0, start - reach) : start], after=song_N[end : end + reach],
    )  # fmt: skip


def bar_samples(start_s: float, end_s: float, rate: int = BAR_RATE) -> tuple[int, int]:
    """First sample of a bar and the one past its last; bars that touch share the edge."""
    return round(start_s * rate), round(end_s * rate)
