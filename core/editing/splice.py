"""New sound into its place: crossfades inside the edited bars, joints between bars without a step.

Arrays: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CROSSFADE_S = 0.02
"""Longest crossfade, in seconds."""

_RAMP_S = 0.004  # over which the step between two bars that follow each other is evened out


def fade_length(rate: int, span: int) -> int:
    """Samples of a crossfade at each end of a span: 20 ms, less where the span is too short."""
    return max(0, min(int(CROSSFADE_S * rate), span // 2))


def splice(
    new_NC: npt.NDArray[np.floating], old_NC: npt.NDArray[np.floating], *, fade_in: int,
    fade_out: int,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Fade from the old sound of a span into the new one and back, inside the span.

    Parameters
    ----------
    new_NC, old_NC
        The span's new sound, and what is there now; past the end of `old_NC` there is silence.
    fade_in, fade_out
        Samples of the crossfades; 0 where nothing is before or after the span.

    Notes
    -----
    The weights begin as a raised cosine and are divided by the level that they give the sum, which
    follows from the correlation of the two sounds in the crossfade: alike sounds are faded with
    weights that add up to 1, unlike ones with weights whose squares do. Neither dips nor swells.
    """
    count = len(new_NC)
    if fade_in + fade_out > count:
        raise ValueError(f"crossfades of {fade_in} and {fade_out} in a span of {count}")
    out_NC = np.asarray(new_NC, np.float64).copy()
    from_NC: npt.NDArray[np.float64] = np.zeros_like(out_NC)
    from_NC[: len(old_NC)] = old_NC[:count]
    if fade_in:
        head = slice(0, fade_in)
        out_NC[head] = crossfade(from_NC[head], out_NC[head])
    if fade_out:
        tail = slice(count - fade_out, count)
        out_NC[tail] = crossfade(out_NC[tail], from_NC[tail])
    return out_NC


def join(pieces: Sequence[npt.NDArray[np.float32]], rate: int) -> npt.NDArray[np.float32]:
    """Pieces (n,) end to end; a step between two is evened out over 4 ms on both sides."""
    out_N = np.concatenate([np.zeros(0, np.float32), *pieces]).astype(np.float32)
    at = 0
    for piece in pieces[:-1]:
        at += len(piece)
        if not 0 < at < len(out_N):
            continue
        half = (out_N[at] - out_N[at - 1]) / 2
        before, after = (min(round(_RAMP_S * rate), n) for n in (at, len(out_N) - at))
        out_N[at - before : at] += half * np.linspace(0, 1, before, dtype=np.float32)
        out_N[at : at + after] -= half * np.linspace(1, 0, after, dtype=np.float32)
    return out_N


def crossfade(
    from_NC: npt.NDArray[np.floating], to_NC: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """From one sound (N, C) into another over all of their length; see `splice`."""
    phase_N = (np.arange(len(from_NC)) + 0.5) * (np.pi / 2 / len(from_NC))
    down_N, up_N = np.cos(phase_N) ** 2, np.sin(phase_N) ** 2
    power = float(np.sqrt((from_NC**2).sum() * (to_NC**2).sum()))
    likeness = min(1.0, max(0.0, float((from_NC * to_NC).sum()) / power)) if power else 1.0
    level_N = np.sqrt(down_N**2 + up_N**2 + 2 * likeness * down_N * up_N)
    mixed: npt.NDArray[np.float64] = (
        from_NC * (down_N / level_N)[:, None] + to_NC * (up_N / level_N)[:, None]
    )
    return mixed
