"""Writing recordings: whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgen.core.audio.reading import Audio
from mgen.core.errors import AudioError, UsageError

_FORMATS = {
    ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".egg": "OGG", ".opus": "OGG",
    ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF", ".au": "AU", ".caf": "CAF",
}  # fmt: skip

# libsndfile's Vorbis encoder overruns its stack on one write of 2-3 million samples
_BLOCK = 1 << 16


def write_audio(
    path: str | Path, audio: Audio, *, subtype: str | None = None, format: str | None = None
) -> None:
    """Write a recording under a temporary name in the same folder, then rename it.

    Parameters
    ----------
    path
        Where to; an existing file is replaced (asking for `--force` is the caller's business).
    audio
        Samples beyond full scale are clipped in integer formats, as libsndfile does.
    subtype
        libsndfile's name of the encoding, e.g. `PCM_16`, `PCM_24`, `FLOAT`, `VORBIS`, `OPUS`;
        by default the usual one of the format.
    format
        libsndfile's name of the container; by default from the path's ending.

    Raises
    ------
    UsageError
        If the ending names no format that can be written, or the format cannot hold the samples.
    AudioError
        If the samples hold NaN or infinity.
    OSError
        If the folder is missing or read-only, or the disk is full.
    """
    import soundfile

    path = Path(path)
    container = format or _FORMATS.get(path.suffix.lower())
    if container is None:
        endings = ", ".join(sorted(_FORMATS))
        raise UsageError(f"{path}: '{path.suffix}' is no format to write; use one of {endings}")
    if subtype is None and path.suffix.lower() == ".opus":
        subtype = "OPUS"
    samples_CN = audio.samples_CN
    if not np.isfinite(samples_CN).all():
        raise AudioError(f"{path}: not written: the samples hold NaN or infinity")
    subtype = subtype or soundfile.default_subtype(container)
    if not soundfile.check_format(container, subtype):
        raise UsageError(f"{path}: {container} cannot hold {subtype}; choose another format")
    blocks = (
        np.ascontiguousarray(samples_CN[:, start : start + _BLOCK].T)
        for start in range(0, samples_CN.shape[1], _BLOCK)
    )
    _write(path, blocks, audio.rate, len(samples_CN), container, subtype)


def write_wav(path: str | Path, blocks: Iterable[npt.NDArray[np.int16]], rate: int) -> None:
    """Write mono samples as they come, as 16-bit WAV, under a temporary name that is then renamed.

    Parameters
    ----------
    path
        Where to; an existing file is replaced (asking for `--force` is the caller's business).
    blocks
        Samples (n,) int16, stored as they are; only one block is in memory at a time.
    rate
        Hz.

    Raises
    ------
    OSError
        If the folder is missing or read-only, or the disk is full.
    """
    _write(Path(path), blocks, rate, 1, "WAV", "PCM_16")


def _write(
    path: Path, blocks: Iterable[np.ndarray], rate: int, channels: int, container: str, subtype: str
) -> None:
    # the ending stays last: libsndfile is given the format, other programs go by the name
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        with open(part, "xb"):  # the system's own error, with the name, if it may not be made
            pass
        _encode(part, path, blocks, rate, channels, container, subtype)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _encode(
    part: Path, path: Path, blocks: Iterable[np.ndarray], rate: int, channels: int, container: str,
    subtype: str,
) -> None:  # fmt: skip
    import soundfile

    try:
        file = soundfile.SoundFile(
            part, "w", samplerate=rate, channels=channels, format=container, subtype=subtype
        )
    except soundfile.LibsndfileError as error:
        raise UsageError(
            f"{path}: {container} {subtype} cannot hold {channels} channels at {rate} Hz;"
            " choose another format"
        ) from error
    block = np.empty(0)
    try:
        with file:
            for block in blocks:
                file.write(block)
    except (soundfile.LibsndfileError, AssertionError) as error:  # a short write is an assert
        full = shutil.disk_usage(part.parent).free < max(block.nbytes, 1 << 20)
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
