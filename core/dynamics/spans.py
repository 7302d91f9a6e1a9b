"""Which bars of a window are written in training: spans between bars that are kept.

An edit has seams, and a model that only ever saw every bar noised has never seen one.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

MOST_SPANS = 4
LEAST_SHARE = 0.2


def span_mask(bars: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """True at the bars of 1 to 4 spans that cover 20 to 100 % of a window, bool (bars,).

    Spans do not touch; where they would have to, there are fewer. Share and number are uniform,
    and so is the way that the bars are dealt to the spans and the gaps.

    Parameters
    ----------
    bars
        Of the window, at least 1.
    rng
        What decides.
    """
    written = min(bars, max(1, round(bars * rng.uniform(LEAST_SHARE, 1.0))))
    kept = bars - written
    spans = min(int(rng.integers(1, MOST_SPANS + 1)), written, kept + 1)
    lengths = _parts(written, spans, 1, rng)
    gaps = _parts(kept + 2, spans + 1, 1, rng)  # one more at both ends, which may so be empty
    gaps[0] -= 1
    gaps[-1] -= 1
    mask = np.zeros(bars, bool)
    at = 0
    for gap, length in zip(gaps, lengths, strict=False):
        mask[at + gap : at + gap + length] = True
        at += gap + length
    return mask


def _parts(total: int, parts: int, least: int, rng: np.random.Generator) -> list[int]:
    """Cut a number into parts of at least `least`, every way as likely as any other."""
    free = total - parts * least
    cuts = np.sort(rng.choice(free + parts - 1, parts - 1, replace=False))
    edges = [-1, *cuts.tolist(), free + parts - 1]
    return [b - a - 1 + least for a, b in itertools.pairwise(edges)]
