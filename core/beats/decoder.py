"""From onset activations to beats: a semi-Markov Viterbi over beat times and tempi.

A path is a chain of beats; each beat has a length from a ladder of tempi. A beat scores by how well
the activations inside it fit a metrical template (strong on the beat, less on its half, weak
elsewhere), by a log-normal tempo prior, and by how much its length differs from the one before.
Tempo and phase are so decided together, and tempo may change where the sound insists. The
bar-pointer models (Whiteley, Cemgil and Godsill 2006; Krebs, Böck and Widmer 2015) search the same
space; scoring whole beats makes one step per frame enough.

Half or double: of two readings that fit equally, the one nearer to the prior's centre wins. The
template decides where the halves of the beat are clearly weaker than the beat.

Shapes: T frames, K activation bands, M tempi, J phases within a beat.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SILENCE = 0.02
"""Activation below which a passage counts as silent: it is not blown up to full scale."""


def onset_template() -> Array:
    """Weight of activation at each twelfth of a beat, per band (3, 12), zero mean per band.

    Fitted by random search on the annotated songs that are free for it, and rounded. `side` is the
    twelfth before and after the beat, `swing` the last third.
    """
    #        side  rest  quarter  third  half  swing  gain
    bands = (
        (0.28, 0.00, 0.13, -0.10, 0.30, 0.05, 1.00),  # low
        (0.28, -0.10, -0.10, -0.08, 0.37, 0.05, 0.80),  # middle
        (0.28, -0.23, -0.20, 0.00, 0.35, 0.30, 0.55),  # high
    )
    rows = []
    for side, rest, quarter, third, half, swing, gain in bands:
        row = np.full(12, rest)
        row[[0, 1, 11]] = 1.0, side, side
        row[[3, 9]] = quarter
        row[[4, 6, 8]] = third, half, swing
        rows.append(gain * (row - row.mean()))
    return np.array(rows)


def learned_template(between: float = 0.35, half: float = 0.25, side: float = 0.2) -> Array:
    """Weight of a network's beat probability at each twelfth of a beat (1, 12), zero mean.

    One on the beat, `side` a twelfth beside it, `-half` on the half beat, `-between` elsewhere:
    what stands between beats speaks for another tempo, on the half beat less so than elsewhere.
    """
    row = np.full(12, -between)
    row[[0, 1, 11, 6]] = 1.0, side, side, -half
    return (row - row.mean())[None]


_BLOCK = 6000
"""Frames whose scores are held at a time: a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """What the decoder believes about music before it hears any."""

    fps: int = 100
    min_bpm: float = 40.0
    max_bpm: float = 230.0
    prior_bpm: float = 120.0
    prior_octaves: float = 0.7
    prior_weight: float = 0.0125
    change_cost: float = 50.0
    tempo_exponent: float = 0.33
    template_KJ: Array = field(default_factory=onset_template)

    @property
    def lengths_M(self) -> npt.NDArray[np.int64]:
        """Beat lengths in frames, about 2 % apart, shortest first."""
        length = round(60.0 * self.fps / self.max_bpm)
        ladder = []
        while length <= round(60.0 * self.fps / self.min_bpm):
            ladder.append(length)
            length = max(length + 1, round(length * 1.02))
        return np.array(ladder)


def level_activations(onsets_TK: npt.ArrayLike, fps: int) -> Array:
    """Smooth by 20 ms and bring every band to the same local level (4 s); silence stays silent."""
    from scipy.ndimage import gaussian_filter1d, uniform_filter1d

    smooth_TK = gaussian_filter1d(np.asarray(onsets_TK, np.float64), 0.02 * fps, axis=0)
    power_TK = uniform_filter1d(smooth_TK**2, int(4.0 * fps), axis=0, mode="nearest")
    return smooth_TK / (np.sqrt(np.maximum(power_TK, 0.0)) + _SILENCE)


def decode_beats(level_TK: Array, settings: DecoderSettings) -> npt.NDArray[np.int64]:
    """Frames of the beats that explain the activations best.

    Works through the song in blocks: besides one byte per frame and tempo, memory does not grow
    with its length.

    Parameters
    ----------
    level_TK
        Activations from `level_activations` (T, K), K as in the template.
    settings
        Prior and template.

    Returns
    -------
    numpy.ndarray
        Frames (n,), increasing; never empty where T > 0, silent or not.
    """
    n_frames, lengths_M = len(level_TK), settings.lengths_M
    if n_frames == 0:
        return np.zeros(0, np.int64)
    phases_TJ = (level_TK @ settings.template_KJ).astype(np.float32)
    search = _Search(n_frames, lengths_M, settings.change_cost)
    for start in range(0, n_frames, _BLOCK):
        stop = min(n_frames, start + _BLOCK)
        score_TM = _beat_scores(
            phases_TJ[start : stop + int(lengths_M[-1])], stop - start, settings
        )
        for t in range(start, stop):
            search.step(t, score_TM[t - start])
    return search.trace()


def _beat_scores(
    phases_TJ: npt.NDArray[np.float32], n_frames: int, settings: DecoderSettings
) -> npt.NDArray[np.float32]:
    """What a beat of each length would score if it began at each of the first n frames (T, M)."""
    lengths_M, n_phases = settings.lengths_M, phases_TJ.shape[1]
    missing = n_frames + int(lengths_M[-1]) - len(phases_TJ)
    phases_TJ = np.pad(phases_TJ, ((0, max(0, missing)), (0, 0)))
    octaves_M = np.log2(lengths_M * settings.prior_bpm / (60.0 * settings.fps))
    prior_M = -0.5 * (octaves_M / settings.prior_octaves) ** 2 * settings.prior_weight * lengths_M
    score_TM = np.zeros((n_frames, len(lengths_M)), np.float32)
    for m, length in enumerate(lengths_M):
        for j in range(n_phases):
            at = round(j * length / n_phases)
            score_TM[:, m] += phases_TJ[at : at + n_frames, j]
        score_TM[:, m] *= (length / settings.fps * 2.0) ** settings.tempo_exponent
        score_TM[:, m] += prior_M[m]
    return score_TM


class _Search:
    """Viterbi over (frame, tempo): a path may begin anywhere within its first beat, at no cost."""

    def __init__(self, n_frames: int, lengths_M: npt.NDArray[np.int64], change_cost: float) -> None:
        log_M = np.log(lengths_M)
        self.lengths_M = lengths_M
        self.change_MM = -change_cost * np.abs(log_M[:, None] - log_M[None, :])
        self.every_M = np.arange(len(lengths_M))
        self.began = len(lengths_M)  # in `came_TM`: no beat before this one
        self.came_TM = np.full((n_frames, len(lengths_M)), self.began, np.uint8)
        self.ring = int(lengths_M[-1]) + 1
        # the last `ring` frames: score of paths with a beat there, and what that beat will add
        self.best_RM = np.zeros((self.ring, len(lengths_M)))
        self.next_RM = np.zeros((self.ring, len(lengths_M)))

    def step(self, t: int, score_M: npt.NDArray[np.float32]) -> None:
        """Find the best path to a beat at frame t, for every length that it may have."""
        best_M = self.best_RM[t % self.ring]
        known = int(np.searchsorted(self.lengths_M, t, side="right"))
        if known == 0:
            best_M[:] = 0.0
        else:
            at_M, m = (t - self.lengths_M[:known]) % self.ring, self.every_M[:known]
            reached_M = self.best_RM[at_M, m] + self.next_RM[at_M, m]
            arrive_MM = reached_M[:, None] + self.change_MM[:known]
            came_M = arrive_MM.argmax(axis=0)
            value_M = arrive_MM[came_M, self.every_M]
            begins_M = (self.lengths_M > t) & (value_M < 0.0)
            best_M[:] = np.where(begins_M, 0.0, value_M)
            self.came_TM[t] = np.where(begins_M, self.began, came_M)
        self.next_RM[t % self.ring] = score_M

    def trace(self) -> npt.NDArray[np.int64]:
        """Walk back from the best last beat; one that the end cuts off counts by its share."""
        n_frames = len(self.came_TM)
        last_t = np.arange(max(0, n_frames - int(self.lengths_M[-1])), n_frames)
        left = (n_frames - last_t)[:, None]
        at = last_t % self.ring
        final = self.best_RM[at] + self.next_RM[at] * (left / self.lengths_M)
        final = np.where(left <= self.lengths_M, final, -np.inf)
        row, m = (int(i) for i in np.unravel_index(int(final.argmax()), final.shape))
        t = int(last_t[row])
        frames = [t]
        while (before := int(self.came_TM[t, m])) != self.began:
            t, m = t - int(self.lengths_M[before]), before
            frames.append(t)
        return np.array(frames[::-1], np.int64)
