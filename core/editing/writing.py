"""The edited recording as a file: the source's samples with some spans replaced, or nothing.

Arrays: C channels, N samples, n samples of one block.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.audio import sha256_file
from mgen.core.editing.source import BLOCK, Encoding, SourceFile
from mgen.core.errors import AudioError, UsageError

_KEPT_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF"}
_ENDINGS = {
    ".wav": "WAV", ".wave": "WAV", ".rf64": "RF64", ".w64": "W64", ".flac": "FLAC",
    ".aif": "AIFF", ".aiff": "AIFF", ".aifc": "AIFF", ".au": "AU", ".caf": "CAF", ".ogg": "OGG",
    ".oga": "OGG", ".opus": "OGG", ".mp3": "MP3",
}  # fmt: skip
_FLOAT_TO = {"FLAC": "PCM_24"}  # what --lossy makes of samples that a container cannot hold

_SAMPLE_BYTES = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8
}  # fmt: skip
_LARGEST = 0xFFFFFFFF - (1 << 20)
"""Bytes of sound that a file with 32-bit sizes holds, with room for its header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is written: libsndfile's names, and whether every sample comes back from the file."""

    format: str
    subtype: str
    suffix: str
    exact: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """New samples (N, C), of the source's own type, from sample `first` on."""

    first: int
    pcm_NC: npt.NDArray[Any]

    @property
    def last(self) -> int:
        """The sample after the last one."""
        return self.first + len(self.pcm_NC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was written, measured on the way.

    `changed` counts samples (all channels of an instant are one) that differ from the source, the
    appended ones too. `outside` is the largest difference outside the patches as read back from
    the file, in full scales; None where the file is lossy. `sha256` is that of the file.
    """

    samples: int
    changed: int
    outside: float | None
    sha256: str


def choose_output(source: Encoding, source_path: Path, given: Path | None, lossy: bool) -> Output:
    """How an edit of this source is written: as the source is, else as float WAV.

    Parameters
    ----------
    given
        The file that a person asks for; its ending names the container. None for the default.
    lossy
        Whether a person allows a file that does not hold every sample.

    Raises
    ------
    UsageError
        If the ending names no container that can be written, or one that cannot hold the source's
        samples, without `lossy`.
    """
    import soundfile

    exact = source.exact_subtype
    if given is None:
        keeps = source.format in _KEPT_FORMATS and soundfile.check_format(source.format, exact)
        suffix = source_path.suffix if keeps and source_path.suffix else ".wav"
        return Output(format=source.format if keeps else "WAV", subtype=exact, suffix=suffix)
    suffix = given.suffix
    container = _ENDINGS.get(suffix.lower())
    if container is None:
        raise UsageError(
            f"{given}: '{suffix}' is no format to write; use one of {', '.join(sorted(_ENDINGS))}"
        )
    if soundfile.check_format(container, exact):
        return Output(format=container, subtype=exact, suffix=suffix)
    if not lossy:
        raise UsageError(
            f"{given}: {container} cannot hold every sample of the source ({exact}); name a .wav,"
            " or allow the loss with --lossy"
        )
    subtype = _FLOAT_TO.get(container) or soundfile.default_subtype(container)
    subtype = "OPUS" if suffix.lower() == ".opus" else subtype
    return Output(format=container, subtype=subtype, suffix=suffix, exact=False)


class Staged:
    """A file that is complete, but not yet in its place."""

    def __init__(self, part: Path, path: Path, figures: Figures) -> None:
        self._part, self.path, self.figures = part, path, figures

    def publish(self) -> Path:
        """Give the file its name, in one step; what had it before is replaced."""
        os.replace(self._part, self.path)
        return self.path


@contextmanager
def staged(
    path: Path, source: SourceFile, patches: Sequence[Patch], output: Output, spool: Path
) -> Iterator[Staged]:
    """Write the source with patches to a temporary file, read it back, and hand it over.

    What is not published is removed. A patch may reach past the end of the source, which then
    becomes longer.

    Parameters
    ----------
    path
        What `Staged.publish` will call it.
    patches
        Sorted, apart from each other.
    spool
        A folder that is emptied by whoever comes next; used where it lies on the same disk, so that
        a process that is killed leaves nothing beside the song.

    Raises
    ------
    UsageError
        If the container cannot hold the channels or the rate.
    AudioError
        If the file does not give back what was written.
    OSError
        If the folder is missing or read-only, or the disk is full.
    """
    near = path.absolute().parent
    name = f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}"
    part = (spool if _same_disk(spool, near) and os.access(near, os.W_OK) else near) / name
    try:
        _claim(part, path)
        samples, changed, digest = _write(part, path, source, patches, output)
        _still(part)
        outside = None
        if output.exact:
            if _digest_of(part, source.encoding.dtype) != digest:
                raise AudioError(
                    f"{path}: not written: the file does not give back the samples; choose another"
                    " format with -o"
                )
            outside = 0.0
        yield Staged(
            part, path,
            Figures(samples=samples, changed=changed, outside=outside, sha256=sha256_file(part)),
        )  # fmt: skip
    finally:
        part.unlink(missing_ok=True)


def _claim(part: Path, path: Path) -> None:
    try:
        with open(part, "xb"):
            pass
    except OSError as error:  # the system's own words, with the name that a person knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def edited_blocks(
    source: SourceFile, patches: Sequence[Patch], size: int = BLOCK
) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """The edited recording in blocks (n, C), and how many samples of each differ from the source.

    Raises
    ------
    AudioError
        If there would be a gap between the end of the source and a patch.
    """
    at = 0
    for block_nC in source.blocks(size):
        out_nC = block_nC
        for patch in patches:
            first, last = max(at, patch.first), min(at + len(block_nC), patch.last)
            if first < last:
                out_nC = out_nC.copy() if out_nC is block_nC else out_nC
                out_nC[first - at : last - at] = patch.pcm_NC[
                    first - patch.first : last - patch.first
                ]
        differs = 0 if out_nC is block_nC else int((out_nC != block_nC).any(axis=1).sum())
        yield out_nC, differs
        at += len(block_nC)
    for patch in patches:
        if patch.last > at:
            if patch.first > at:
                raise AudioError(f"{source.path}: ends at sample {at}, before {patch.first}")
            for start in range(at - patch.first, len(patch.pcm_NC), size):
                rest_nC = patch.pcm_NC[start : start + size]
                yield rest_nC, len(rest_nC)
            at = patch.last


def _write(
    part: Path, path: Path, source: SourceFile, patches: Sequence[Patch], output: Output
) -> tuple[int, int, bytes]:
    """Samples written, samples changed, and a digest of all of them."""
    import soundfile

    encoding = source.encoding
    try:
        file = soundfile.SoundFile(
            part, "w", samplerate=encoding.rate, channels=encoding.channels,
            format=_wide_enough(path, source, patches, output), subtype=output.subtype,
        )  # fmt: skip
    except soundfile.LibsndfileError as error:
        raise UsageError(
            f"{path}: {output.format} {output.subtype} cannot hold {encoding.channels} channels at"
            f" {encoding.rate} Hz; choose another format with -o"
        ) from error
    digest, samples, changed = hashlib.sha256(), 0, 0
    block_nC: npt.NDArray[Any] = np.empty(0)
    try:
        with file:
            with contextlib.suppress(soundfile.LibsndfileError):  # a container without tags
                for key, value in encoding.tags:
                    setattr(file, key, value)
            for block_nC, differs in edited_blocks(source, patches):
                file.write(block_nC)
                digest.update(block_nC.tobytes())
                samples, changed = samples + len(block_nC), changed + differs
    except (soundfile.LibsndfileError, AssertionError) as error:  # a short write is an assert
        full = shutil.disk_usage(part.parent).free < max(block_nC.nbytes, 1 << 20)
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
    return samples, changed, digest.digest()


def _wide_enough(path: Path, source: SourceFile, patches: Sequence[Patch], output: Output) -> str:
    """The container; RF64 for a WAV beyond 4 GB."""
    limited = {"WAV", "WAVEX", "AIFF", "AU"}
    width = _SAMPLE_BYTES.get(output.subtype, 0) * source.encoding.channels
    if output.format not in limited or width * source.length_bound(patches_end(patches)) < _LARGEST:
        return output.format
    if output.format in ("WAV", "WAVEX"):
        return "RF64"
    raise UsageError(f"{path}: {output.format} ends at 4 GB; name a .wav with -o (it becomes RF64)")


def patches_end(patches: Sequence[Patch]) -> int:
    """The sample after the last patch."""
    return max((patch.last for patch in patches), default=0)


def _digest_of(path: Path, dtype: str) -> bytes:
    import soundfile

    digest = hashlib.sha256()
    with soundfile.SoundFile(os.fspath(path)) as file:
        while len(block_nC := file.read(BLOCK, dtype=dtype, always_2d=True)):
            digest.update(block_nC.tobytes())
    return digest.digest()


def _still(path: Path) -> None:
    """Stop the clock in a float file: libsndfile writes the time into its PEAK chunk.

    The same edit is to give the same bytes.
    """
    with open(path, "r+b") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"FORM"):
            return
        order = "<" if head[:4] == b"RIFF" else ">"
        while len(chunk := file.read(8)) == 8:
            if chunk[:4] == b"PEAK":
                file.seek(4, os.SEEK_CUR)  # its version
                file.write(bytes(4))
                return
            (size,) = struct.unpack(order + "I", chunk[4:])
            file.seek(size + size % 2, os.SEEK_CUR)
