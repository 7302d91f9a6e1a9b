"""One door to all trackers."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np

from mgen.core.audio import sha256_file
from mgen.core.beats.attacks import Attacks
from mgen.core.beats.features import Samples
from mgen.core.beats.grid import Beats, fixed_beats
from mgen.core.beats.mgen_tracker import VERSION
from mgen.core.beats.refine import refine_beats
from mgen.core.errors import AudioError, UsageError

TRACKERS = ("mgen", "beat-this", "librosa")
DEFAULT_BPM = 120.0


def tracker_id(tracker: str, beat_model: Path | None = None) -> str:
    """Name what finds the beats, with its version; a checkpoint by the hash of its content.

    Raises
    ------
    MissingDependencyError, InputNotFoundError
        If Beat This! has no checkpoint to use.
    """
    if tracker == "beat-this":
        from mgen.core.beats.beat_this import find_checkpoint

        return f"beat-this-{sha256_file(find_checkpoint(beat_model))[:12]}"
    if tracker == "librosa":
        return f"librosa-{importlib.metadata.version('librosa')}"
    return f"mgen-{VERSION}"


def track_beats(
    samples_N: Samples,
    rate: int,
    *,
    tracker: str = "mgen",
    beat_model: Path | None = None,
    device: str = "cpu",
    compile: str = "auto",
    attacks: Attacks | None = None,
) -> Beats:
    """Find the beats and downbeats of a song.

    Parameters
    ----------
    samples_N
        Mono samples that slice to numpy int16 or float: an array, a memmap, a zarr array. They are
        read in blocks of a minute.
    rate
        Samples per second.
    tracker
        `mgen` (ships, fast), `beat-this` (needs a checkpoint) or `librosa`.
    beat_model
        A Beat This! checkpoint; without it, `~/.cache/mgen/beat_this.ckpt`.
    device, compile
        Where Beat This! runs, and whether it is compiled (`auto`, `on`, `off`).
    attacks
        Those of the same samples, where they are known already: `mgen` listens to them.

    Returns
    -------
    Beats
        Refined below the frame. Where nothing is heard (silence, less than two beats) it is a grid
        of 120 BPM with confidence 0.

    Raises
    ------
    UsageError
        If there is no such tracker.
    AudioError
        If the samples are not mono int16 or float, or hold NaN.
    MissingDependencyError
        If Beat This! has no checkpoint to use.
    InputError
        If the checkpoint is not one.
    """
    if tracker not in TRACKERS:
        raise UsageError(f"no tracker is called '{tracker}'; choose from {', '.join(TRACKERS)}")
    if rate <= 0:
        raise AudioError(f"a rate of {rate} samples a second makes no sense")
    if tracker == "beat-this":
        from mgen.core.beats.beat_this import track

        beats = track(samples_N, rate, beat_model, device=device, compile=compile)
    elif tracker == "librosa":
        from mgen.core.beats.librosa_tracker import track as track_librosa

        beats = track_librosa(samples_N, rate)
    else:
        from mgen.core.beats.mgen_tracker import track as track_mgen

        beats = track_mgen(samples_N, rate, attacks=attacks)
    if len(beats) < 2:
        grid = fixed_beats(samples_N.shape[0] / rate, DEFAULT_BPM)
        return Beats(grid.time_s, grid.beat_in_bar, np.zeros(len(grid), np.float32))
    return refine_beats(beats, samples_N, rate)
