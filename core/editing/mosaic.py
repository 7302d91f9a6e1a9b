"""Written bars in the song's own sound: a mosaic of the recording that fits what was written.

Latents tell the levels of a sound's bands, not its phases, and phases that a small decoder makes up
sound like breath. A recording has true ones. So each written frame takes the frame of the recording
whose spectrum is most like it, and rather goes on where it is than jump: unit selection by Viterbi
(Schwarz, "Concatenative sound synthesis: the early years", JNMR 2006; Zils and Pachet, "Musical
mosaicing", DAFx 2001). What was chosen is then brought to the levels that were written, averaged
over half a second (`BandLevels.bring`): the notes and the colour are those of the action, attacks
and texture the recording's own, which written levels have too little of. As each piece of the
mosaic has a place in the file, its channels and its band above the model's come with it.

Times are in samples at 16 kHz unless a rate is named.

Arrays: N samples, C channels, T frames of the new sound, S frames of the recording, M bands.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.editing.bands import MODEL_RATE
from mgen.core.editing.splice import crossfade
from mgen.core.tokenizer.levels import BandLevels, joined

JUMP = 1.5
"""What it costs to leave off and go on elsewhere, in units of a frame that is 10 dB off."""
REACH_S = 48.0
"""How far before and after a new sound its pieces are taken from."""
FADE = 512
"""Samples over which one piece goes over into the next."""
_SEEK = 256  # samples, to either side, by which a piece is moved to go on in phase
_AT_ONCE, _MARGIN = 1024, 64  # frames that are chosen and matched together, for the memory's sake
_CONTEXT = 16  # frames before and after the new sound that are heard with it
_ROUNDS = 3  # of matching
_OVER = 33  # frames: half a second; what happens within them is the recording's own
_RANGE = 7.0  # below the loudest band, in units of 10 dB, where likeness ends


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples `first` to `last` of the new sound are those from `source` on of the recording."""

    first: int
    last: int
    source: int


@dataclass(frozen=True, slots=True)
class Mosaic:
    """What new sound was made of; it begins `begin` samples after the first piece."""

    pieces: tuple[Piece, ...]
    begin: int


def features(mel_TM: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What frames are compared by (T, M + 1): the shape of the spectrum, and its mean level.

    Distances are root mean squares over the bands, in units of 10 dB; the level counts as much.
    """
    mel_TM = np.maximum(mel_TM, mel_TM.max() - _RANGE)
    mean_T1 = mel_TM.mean(axis=1, keepdims=True)
    shape_TM = (mel_TM - mean_T1) / np.float32(np.sqrt(mel_TM.shape[1]))
    return np.concatenate([shape_TM, mean_T1], axis=1)


def select(
    distance_TS: npt.NDArray[np.float32], *, before: int | None = None, after: int | None = None
) -> npt.NDArray[np.int64]:
    """The frame of the recording for each new one: least distance and fewest jumps in all.

    Parameters
    ----------
    distance_TS
        How unlike a new frame and one of the recording are.
    before, after
        Frames of the recording that are heard just before and after the new ones; None where
        nothing is.
    """
    count, frames = distance_TS.shape
    cost_S = np.full(frames, JUMP, np.float32)
    if before is None:
        cost_S[:] = 0.0
    elif before + 1 < frames:
        cost_S[before + 1] = 0.0
    cost_S += distance_TS[0]
    came_TS = np.zeros((count, frames), np.int32)
    following_S = np.arange(-1, frames - 1, dtype=np.int32)
    for t in range(1, count):
        best = int(cost_S.argmin())
        jump = cost_S[best] + np.float32(JUMP)
        on_S = np.concatenate([[np.float32(np.inf)], cost_S[:-1]])
        came_TS[t] = np.where(on_S <= jump, following_S, best)
        cost_S = np.minimum(on_S, jump) + distance_TS[t]
    if after is not None:
        leaving_S = np.full(frames, JUMP, np.float32)
        if after > 0:
            leaving_S[after - 1] = 0.0
        cost_S = cost_S + leaving_S
    path_T = np.zeros(count, np.int64)
    path_T[-1] = cost_S.argmin()
    for t in range(count - 1, 0, -1):
        path_T[t - 1] = came_TS[t, path_T[t]]
    return path_T


def pieces(
    path_T: npt.NDArray[np.int64], hop: int, recording_N: npt.NDArray[np.float32]
) -> list[Piece]:
    """Runs of a path; each is moved a little to go on in phase with the one before it.

    The first and the last stay where they are: sound that is not new goes on before and after.
    """
    starts = [0, *(np.flatnonzero(np.diff(path_T) != 1) + 1).tolist(), len(path_T)]
    runs = list(itertools.pairwise(starts))
    found: list[Piece] = []
    for number, (a, b) in enumerate(runs):
        source = int(path_T[a]) * hop
        if found and number < len(runs) - 1:
            goes_on = found[-1].source + found[-1].last - found[-1].first
            source += _in_phase(recording_N, goes_on, source)
        found.append(Piece(a * hop, b * hop, source))
    return found


def _in_phase(recording_N: npt.NDArray[np.float32], goes_on: int, source: int) -> int:
    """By how much to move `source` so that it is most like what would have gone on."""
    begin, wanted = source - FADE // 2 - _SEEK, goes_on - FADE // 2
    heard_N = recording_N[max(0, wanted) : wanted + FADE]
    around_N = recording_N[max(0, begin) : begin + FADE + 2 * _SEEK]
    if min(begin, wanted) < 0 or len(heard_N) < FADE or len(around_N) < FADE + 2 * _SEEK:
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(around_N, FADE)
    size = np.sqrt(np.square(windows).sum(axis=1)) + 1e-6
    return int((windows @ heard_N / size).argmax()) - _SEEK


def lay(
    chosen: Sequence[Piece], recording_NC: npt.NDArray[np.float32], rate: int, model_rate: int
) -> npt.NDArray[np.float32]:
    """The pieces end to end (N, C) with crossfades, from the recording at any rate.

    Parameters
    ----------
    recording_NC
        Samples of the recording at `rate`; its first is the instant that pieces count from. Where
        it ends before a piece does, there is silence.
    """

    def at(sample: int) -> int:
        return round(sample * rate / model_rate)

    out_NC = np.zeros((at(chosen[-1].last), recording_NC.shape[1]), np.float32)
    half = at(FADE) // 2
    for number, piece in enumerate(chosen):
        first, last, source = at(piece.first), at(piece.last), at(piece.source)
        rise = min(half, first, last - first) if number else 0
        fall = 0
        if number + 1 < len(chosen):
            fall = min(half, at(chosen[number + 1].last) - last, last - first)
        taken_NC = _taken(recording_NC, source - rise, last - first + rise + fall)
        begin = first - rise
        if rise:
            joint = slice(begin, first + rise)
            out_NC[joint] = crossfade(out_NC[joint], taken_NC[: 2 * rise])
        rest_NC = taken_NC[2 * rise :]
        place = out_NC[begin + 2 * rise : begin + len(taken_NC)]
        place[:] = rest_NC[: len(place)]
    return out_NC


def _taken(
    recording_NC: npt.NDArray[np.float32], first: int, count: int
) -> npt.NDArray[np.float32]:
    before = max(0, -first)
    part_NC = recording_NC[max(0, first) : max(0, first + count)]
    return np.pad(part_NC, ((before, max(0, count - before - len(part_NC))), (0, 0)))


def compose(
    wanted: BandLevels, recording_N: npt.NDArray[np.float32], first: int
) -> tuple[npt.NDArray[np.float32], Mosaic]:
    """New sound of these levels, made of the recording.

    Parameters
    ----------
    wanted
        Levels of the new sound (T frames).
    recording_N
        Mono at the model's rate: what there is to choose from. Where it reaches, what lies before
        and after the new sound is its context.
    first
        Where the new sound begins, in samples of the recording; past its end it goes on from it.

    Returns
    -------
    Samples (T * hop,), and what they were made of.

    Raises
    ------
    ValueError
        If the recording is shorter than a frame.
    """
    hop, count = wanted.hop, len(wanted)
    phase, place = first % hop, first // hop
    frames = (len(recording_N) - phase) // hop
    if frames < 1:
        raise ValueError(f"{len(recording_N)} samples are nothing to choose from")
    whole_N = recording_N[phase : phase + frames * hop]
    before = place - 1 if 0 < place <= frames else None
    after = place + count if place + count < frames else None
    path_T = _chosen(wanted, whole_N, place, before, after)
    left = 0 if before is None else min(_CONTEXT, place)
    right = 0 if after is None else min(_CONTEXT, frames - after)
    around = [*range(place - left, place)], [*range(place + count, place + count + right)]
    whole_path = np.concatenate([around[0], path_T, around[1]]).astype(np.int64)
    found = pieces(whole_path, hop, whole_N)
    laid_N = lay(found, whole_N[:, None], 1, 1)[:, 0]
    levels = joined(
        [
            *_context_levels(wanted, whole_N, place - left, place),
            wanted,
            *_context_levels(wanted, whole_N, place + count, place + count + right),
        ]
    )
    made_N = _brought(levels, laid_N)
    moved = [Piece(p.first, p.last, p.source + phase) for p in found]
    return made_N[left * hop : (left + count) * hop], Mosaic(tuple(moved), left * hop)


def _chosen(
    wanted: BandLevels, recording_N: npt.NDArray[np.float32], place: int, before: int | None,
    after: int | None,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Frames of the recording for all new ones, of which the first stands at `place`.

    Some at a time, each from what is within reach of it; each goes on from the one before.
    """
    wanted_TM, count = wanted.mel_TM.cpu().numpy(), len(wanted)
    frames, reach = len(recording_N) // wanted.hop, round(REACH_S * MODEL_RATE / wanted.hop)
    path: list[int] = []
    for first in range(0, count, _AT_ONCE):
        last = min(count, first + _AT_ONCE)
        low = max(0, min(place + first, frames) - reach)
        heard_N = recording_N[low * wanted.hop : (place + last + reach) * wanted.hop]
        heard_SM = _heard(wanted, heard_N)
        comes_from = path[-1] if path else before
        if comes_from is not None and comes_from + 1 < low:
            comes_from = None
        goes_to = after if last == count else None
        chosen = select(
            _distances(wanted_TM[first:last], heard_SM),
            before=None if comes_from is None else comes_from - low,
            after=None if goes_to is None else goes_to - low,
        )
        path += (chosen + low).tolist()
    return np.array(path, np.int64)


def _heard(like: BandLevels, samples_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Levels (S, M) of the mel bands of a sound."""
    hop, count = like.hop, len(samples_N) // like.hop
    parts = []
    for first in range(0, count, _AT_ONCE):
        low, last = max(0, first - _CONTEXT), min(count, first + _AT_ONCE)
        levels_TM = like.mel_of(samples_N[low * hop : min(count, last + _CONTEXT) * hop])
        parts.append(levels_TM[first - low : last - low])
    return np.concatenate(parts)


def _brought(levels: BandLevels, samples_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sound, as loud in all bands as the levels say."""
    hop, count = levels.hop, len(levels)
    parts = []
    for first in range(0, count, _AT_ONCE):
        last = min(count, first + _AT_ONCE)
        low, high = max(0, first - _MARGIN), min(count, last + _MARGIN)
        made_N = levels.part(low, high).bring(samples_N[low * hop : high * hop], _ROUNDS, _OVER)
        parts.append(made_N[(first - low) * hop : (last - low) * hop])
    return np.concatenate(parts)


def _distances(
    wanted_TM: npt.NDArray[np.float32], heard_SM: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    new_TK, old_SK = features(wanted_TM), features(heard_SM)
    squared_TS = np.square(new_TK).sum(axis=1)[:, None] + np.square(old_SK).sum(axis=1)
    squared_TS -= 2.0 * new_TK @ old_SK.T
    return np.sqrt(np.maximum(squared_TS, 0.0))


def _context_levels(
    like: BandLevels, recording_N: npt.NDArray[np.float32], first: int, last: int
) -> list[BandLevels]:
    """What frames of the recording are, in the same bands; empty where there are none."""
    if first >= last:
        return []
    low = max(0, first - _CONTEXT)
    part_N = recording_N[low * like.hop : (last + _CONTEXT) * like.hop]
    return [like.of(part_N).part(first - low, last - low)]
