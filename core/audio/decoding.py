"""Decoders behind one small interface: libsndfile, and an `ffmpeg` program for what it lacks.

Arrays: C channels, n samples of one block.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from mgen.core.errors import AudioError, InputNotFoundError, MissingDependencyError

EXPORT_CURE = "export or convert it again, e.g. to WAV or FLAC"

# a length in the header may be off by an encoder's padding, but not by more than this
_SLACK_S = 0.25
_SLACK_SHARE = 0.02

_FFMPEG_SUFFIXES = {".m4a", ".aac", ".wma", ".mp4", ".webm", ".mka", ".ape", ".wv", ".opus"}


class Source(Protocol):
    """An open recording. `n_samples` is what the header promises, None where it says nothing."""

    format: str
    subtype: str
    rate: int
    channels: int
    n_samples: int | None
    tags: dict[str, str]

    def blocks(self, start: int, count: int | None, size: int) -> Iterator[np.ndarray]:
        """Samples `start` to `start + count` as (C, n) float32 blocks of `size` or fewer."""
        ...

    def close(self) -> None:
        """Free the file or the process."""
        ...


@contextmanager
def open_source(path: str | Path) -> Iterator[Source]:
    """Open a recording with the decoder that understands it.

    Raises
    ------
    InputNotFoundError
        If the file is not there.
    AudioError
        If it is empty, no audio, or damaged.
    MissingDependencyError
        If only an `ffmpeg` program could read it, and there is none.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputNotFoundError(f"{path}: not found; check the path")
    if not path.is_file():
        raise AudioError(f"{path}: not a regular file; name an audio file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: empty (0 bytes); copy or download it again")
    source = _open(path)
    try:
        yield source
    finally:
        source.close()


def _open(path: Path) -> Source:
    import soundfile

    with open(path, "rb"):  # a file that may not be read: the system's own error names the cause
        pass
    try:
        return _Sndfile(path)
    except soundfile.LibsndfileError as error:
        cause = _plain(error)
    if shutil.which("ffmpeg"):
        return _Ffmpeg(path)
    if path.suffix.lower() in _FFMPEG_SUFFIXES:
        raise MissingDependencyError(
            f"{path}: {path.suffix} needs an `ffmpeg` program, and none is on PATH; install ffmpeg,"
            " or convert the file to FLAC"
        )
    raise AudioError(f"{path}: cannot be read as audio ({cause}); {EXPORT_CURE}")


def _plain(error: Exception) -> str:
    text = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return (text[:1].lower() + text[1:]).removeprefix("error : ")


def _is_cut_short(got: int, promised: int, rate: int) -> bool:
    missing = promised - got
    return missing > _SLACK_S * rate and missing > _SLACK_SHARE * promised


def _cut_short(path: Path, got: int, promised: int, rate: int) -> AudioError:
    return AudioError(
        f"{path}: cut short: {got / rate:.1f} s of the {promised / rate:.1f} s that its header"
        " promises are there; copy or download it again"
    )


class _Sndfile:
    """A file through libsndfile: wav, flac, ogg, mp3, aiff and more."""

    def __init__(self, path: Path) -> None:
        import soundfile

        self._path = path
        with _hushed(path.suffix.lower() == ".mp3"):
            self._file: Any = soundfile.SoundFile(os.fspath(path))
        self.format: str = self._file.format
        self.subtype: str = self._file.subtype
        self.rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        frames = int(self._file.frames)
        self.n_samples = frames if 0 <= frames < 1 << 60 else None
        # libsndfile knows ID3, Vorbis comments, RIFF INFO and AIFF text; it gives '' for none
        self.tags = {
            key: str(getattr(self._file, key) or "").strip()
            for key in ("title", "artist", "album", "date", "genre")
        }
        try:
            self._check_container()
        except AudioError:
            self.close()
            raise

    def _check_container(self) -> None:
        # libsndfile takes what is there of a cut WAV or AIFF and says nothing
        if self.n_samples is None or self.format not in {"WAV", "WAVEX", "AIFF"}:
            return
        sizes = _data_chunk(self._path)
        if sizes is None:
            return
        promised, there = sizes
        if there and self.n_samples and promised > there:
            frames = round(self.n_samples * promised / there)
            if _is_cut_short(self.n_samples, frames, self.rate):
                raise _cut_short(self._path, self.n_samples, frames, self.rate)

    def blocks(self, start: int, count: int | None, size: int) -> Iterator[np.ndarray]:
        import soundfile

        position = start
        stop = None if count is None else start + count
        hush = self.format == "MP3"
        try:
            if start:
                with _hushed(hush):
                    self._file.seek(min(start, self.n_samples or start))
            while stop is None or position < stop:
                n = size if stop is None else min(size, stop - position)
                with _hushed(hush):
                    block = self._file.read(n, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                if not np.isfinite(block).all():
                    raise AudioError(
                        f"{self._path}: holds NaN or infinite samples near"
                        f" {position / self.rate:.1f} s; {EXPORT_CURE}"
                    )
                position += len(block)
                yield np.ascontiguousarray(block.T)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{self._path}: damaged or cut short after {position / self.rate:.1f} s"
                f" ({_plain(error)});"
                f" {EXPORT_CURE}"
            ) from error
        wanted = self.n_samples if stop is None or self.n_samples is None else min(
            stop, self.n_samples
        )  # fmt: skip
        if wanted is not None and start < wanted and _is_cut_short(position, wanted, self.rate):
            raise _cut_short(self._path, position, wanted, self.rate)

    def close(self) -> None:
        self._file.close()


def _data_chunk(path: Path) -> tuple[int, int] | None:
    """Bytes of sound that a WAV or AIFF promises, and bytes that are there; None if not said."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] not in {b"RIFF", b"RIFX", b"FORM"}:
            return None
        order = "<" if head[:4] == b"RIFF" else ">"
        total = os.fstat(file.fileno()).st_size
        while len(chunk := file.read(8)) == 8:
            size: int = struct.unpack(order + "I", chunk[4:])[0]
            if chunk[:4] in {b"data", b"SSND"}:
                # a program that wrote into a pipe could not know the size: 0, or the largest
                return None if size == 0 or size >= 0x7FFFFF00 else (size, total - file.tell())
            file.seek(size + size % 2, os.SEEK_CUR)
    return None


_hush_lock = threading.Lock()
_hush_depth = 0
_hush_kept = -1


@contextmanager
def _hushed(wanted: bool) -> Iterator[None]:
    """Send the process's stderr nowhere for a moment: libmpg123 writes its complaints there."""
    global _hush_depth, _hush_kept
    if not wanted:
        yield
        return
    with _hush_lock:
        if _hush_depth == 0:
            _hush_kept = _redirect_stderr()
        _hush_depth += 1
    try:
        yield
    finally:
        with _hush_lock:
            _hush_depth -= 1
            if _hush_depth == 0 and _hush_kept >= 0:
                os.dup2(_hush_kept, 2)
                os.close(_hush_kept)


def _redirect_stderr() -> int:
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr has nothing to hush
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return kept


class _Ffmpeg:
    """A file through an `ffmpeg` program, as float samples in Sun's AU container over a pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: list[subprocess.Popen[bytes]] = []
        try:
            metadata, log = self._ask("-f", "ffmetadata", "pipe:1")
            _, (self.rate, self.channels) = next(self._decode(0.0, "-t", "0.1"))
        except BaseException:
            self.close()
            raise
        self.tags = _ffmetadata(metadata)
        codec = re.search(r"Audio: (\w+)", log)
        self.format = path.suffix.lstrip(".").upper() or "FFMPEG"
        self.subtype = codec.group(1).upper() if codec else ""
        length = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", log)
        self.n_samples: int | None = None
        if length and "Estimating duration" not in log:  # a guess from the bit rate
            hours, minutes, seconds = (float(part) for part in length.groups())
            self.n_samples = round((3600 * hours + 60 * minutes + seconds) * self.rate)

    def _command(self, start_s: float, *output: str) -> list[str]:
        # `file:` keeps names that look like an option or a URL from being one
        seek = ("-ss", f"{start_s:.6f}") if start_s else ()
        return [
            "ffmpeg", "-hide_banner", "-nostdin", "-protocol_whitelist", "file,pipe",
            *seek, "-i", f"file:{self._path}", *output,
        ]  # fmt: skip

    def _ask(self, *output: str) -> tuple[str, str]:
        run = subprocess.run(self._command(0.0, *output), capture_output=True, check=False)
        log = run.stderr.decode("utf-8", "replace")
        if run.returncode:
            raise AudioError(
                f"{self._path}: cannot be read as audio, by ffmpeg either; {EXPORT_CURE}"
            )
        return run.stdout.decode("utf-8", "replace"), log

    def _decode(self, start_s: float, *limits: str) -> Iterator[tuple[IO[bytes], tuple[int, int]]]:
        """Start a decoder; give its pipe, just behind the header, and (rate, channels)."""
        command = self._command(
            start_s, *limits, "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"
        )
        with tempfile.TemporaryFile() as log:  # a pipe for stderr could fill up and block
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            self._running.append(process)
            assert process.stdout is not None
            head = process.stdout.read(24)
            if len(head) < 24 or head[:4] != b".snd":
                raise AudioError(f"{self._path}: ffmpeg cannot decode it; {EXPORT_CURE}")
            _, offset, _, _, rate, channels = struct.unpack(">6I", head)
            process.stdout.read(offset - 24)
            yield process.stdout, (rate, channels)
            if process.wait() != 0:
                raise AudioError(f"{self._path}: damaged: ffmpeg stopped early; {EXPORT_CURE}")

    def blocks(self, start: int, count: int | None, size: int) -> Iterator[np.ndarray]:
        done = 0
        frame = 4 * self.channels
        for pipe, _ in self._decode(start / self.rate):
            while count is None or done < count:
                n = size if count is None else min(size, count - done)
                data = pipe.read(n * frame)  # blocks until it has them all, or the end
                if len(data) < frame:
                    break
                samples = np.frombuffer(data, ">f4", len(data) // frame * self.channels)
                block = samples.reshape(-1, self.channels).T.astype(np.float32, order="C")
                if not np.isfinite(block).all():
                    raise AudioError(f"{self._path}: holds NaN or infinite samples; {EXPORT_CURE}")
                done += block.shape[1]
                yield block
            if count is not None and done >= count:
                return
        if count is None and self.n_samples is not None:
            promised = self.n_samples - start
            if _is_cut_short(done, promised, self.rate):
                raise _cut_short(self._path, start + done, self.n_samples, self.rate)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _ffmetadata(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith((";", "[")):
            tags.setdefault(key.strip().lower(), re.sub(r"\\(.)", r"\1", value).strip())
    return tags
