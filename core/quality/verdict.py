"""From probabilities to a verdict: smooth over time, then keep the song or its good stretches.

Shapes: W windows of a song, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mgen.core.errors import UsageError
from mgen.core.quality.features import RATE, WINDOW_S, WINDOW_STEP
from mgen.core.quality.judge import Judge, shipped_judge

THRESHOLD = 0.55
SIGMA_WINDOWS = 2.0
_REACH = 8  # windows on each side that a Gaussian of 2 windows is summed over: 4 sigma
_QUIET_WEIGHT = 1e-6  # a silent window speaks only where no other is near

Keep = Literal["songs", "clips"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """How songs are judged: by which model, what is good enough, whole songs or clips of them.

    Raises
    ------
    UsageError
        If the threshold is not within 0..1 or a clip is not longer than 0 s.
    """

    model: Path = field(default_factory=shipped_judge)
    threshold: float = THRESHOLD
    keep: Keep = "songs"
    min_clip_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise UsageError(
                f"a threshold of {self.threshold:g} is not a probability; give 0 (keeps all) to 1"
            )
        if not 0.0 < self.min_clip_s < float("inf"):
            raise UsageError(f"clips of {self.min_clip_s:g} s; give --min-clip a length above 0")


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the judge found in one song.

    `clips` are (first, last + 1) samples: the whole song, its good stretches, or none with a
    `reason`. `curve_W` holds the smoothed probabilities, one per 4.96 s.
    """

    quality: float
    curve_W: npt.NDArray[np.float32]
    clips: tuple[tuple[int, int], ...]
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class WeighedWindows:
    """Probabilities of a song's windows, smoothed; and their mean, silent ones left out."""

    curve_W: npt.NDArray[np.float64]
    quality: float


def smooth_curve(
    probability_W: npt.NDArray[np.floating], loud_W: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Gaussian smoothing over time, sigma 2 windows.

    At the ends the weights that are left are scaled to 1, so that a constant stays constant.
    Silent windows take their neighbours' value.
    """
    kernel = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / SIGMA_WINDOWS) ** 2)
    weight_W = np.where(loud_W, 1.0, _QUIET_WEIGHT)
    inner = slice(_REACH, _REACH + len(weight_W))
    votes_W = np.convolve(weight_W * probability_W, kernel)[inner]
    smoothed: npt.NDArray[np.float64] = votes_W / np.convolve(weight_W, kernel)[inner]
    return smoothed


def weigh(
    judge: Judge, features_WF: npt.NDArray[np.float32], loud_W: npt.NDArray[np.bool_]
) -> WeighedWindows:
    """Judge a song's windows, at least one of them."""
    curve_W = smooth_curve(judge.probabilities(features_WF), loud_W)
    weight_W = np.where(loud_W, 1.0, _QUIET_WEIGHT)
    return WeighedWindows(curve_W, float(np.average(curve_W, weights=weight_W)))


def stretches(curve_W: npt.NDArray[np.floating], threshold: float) -> list[tuple[int, int]]:
    """Runs of windows at or above a threshold, as (first, last + 1)."""
    good_W = np.concatenate([[0], np.asarray(curve_W) >= threshold, [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(good_W)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def decide(windows: WeighedWindows, n_samples: int, how: Screening) -> Verdict:
    """Keep a song whole where its mean reaches the threshold, or its long enough stretches.

    A clip's edges are edges of windows; one that reaches the last window goes to the song's end.
    """
    curve_W = windows.curve_W.astype(np.float32)
    if how.keep == "songs":
        kept = windows.quality >= how.threshold
        why = f"quality {windows.quality:.3f} is below {how.threshold:g}"
        return Verdict(
            windows.quality, curve_W, ((0, n_samples),) if kept else (), "" if kept else why
        )
    clips = []
    for first, stop in stretches(windows.curve_W, how.threshold):
        end = n_samples if stop == len(curve_W) else stop * WINDOW_STEP
        if end - first * WINDOW_STEP >= how.min_clip_s * RATE:
            clips.append((first * WINDOW_STEP, end))
    why = f"no stretch of {how.min_clip_s:g} s reaches a quality of {how.threshold:g}"
    return Verdict(windows.quality, curve_W, tuple(clips), "" if clips else why)


def clip_curve(verdict: Verdict, clip: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The part of a song's curve that lies in a clip."""
    return verdict.curve_W[clip[0] // WINDOW_STEP : -(-clip[1] // WINDOW_STEP)]


def window_start_s(window: int) -> float:
    """When a window of a song begins, in seconds."""
    return window * WINDOW_S
