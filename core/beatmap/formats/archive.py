"""A level as it travels: a zip, or a folder, of an info file, difficulties, a song and a cover.

Files come from strangers: only the names that Info.dat gives are opened, none outside the level,
none larger than `MAX_BYTES` unpacked, and nothing in them is ever run.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from mgen.core.beatmap.chart import BeatMap, BpmChange, Chart
from mgen.core.beatmap.formats import info, v2, v3, v4
from mgen.core.beatmap.formats.fields import Record, dump_json, parse_json
from mgen.core.beatmap.formats.tempo import changes_from_regions
from mgen.core.errors import InputNotFoundError, MapError, OutputExistsError, UsageError

MAX_BYTES = 256 * 2**20
MAX_TEXT_BYTES = 64 * 2**20
MAX_CHARTS = 100
"""Largest song and largest text of a level, unpacked, and most difficulties; the game's site takes
50 MB for the whole zip."""
FORMATS = {"v3": v3.dump, "v2": v2.dump}


class _Files(Protocol):
    where: str

    def names(self) -> list[str]: ...

    def read(self, name: str, most: int = ...) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.where = path, os.fspath(path)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.path.iterdir() if p.is_file())

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise MapError(f"{self.where}: '{name}' lies outside the map; refused")
        with path.open("rb") as file:
            return _limited(file, f"{self.where}/{name}", most)


class _Zip:
    def __init__(self, path: Path) -> None:
        self.where = os.fspath(path)
        try:
            self.zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise MapError(
                f"{self.where}: not a zip, or a damaged one; download it again"
            ) from error

    def names(self) -> list[str]:
        return sorted(n for n in self.zip.namelist() if not n.endswith("/"))

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        where = f"{self.where}/{name}"
        try:
            with self.zip.open(name) as file:
                return _limited(file, where, most)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise MapError(f"{where}: damaged inside the zip; download it again") from error
        except NotImplementedError as error:  # Deflate64 and the like
            raise MapError(
                f"{where}: packed in a way that is not read here; unpack it first"
            ) from error
        except RuntimeError as error:  # how zipfile says that a password is needed
            raise MapError(f"{where}: locked with a password; unpack it first") from error


def _limited(file: IO[bytes] | gzip.GzipFile, where: str, most: int) -> bytes:
    data = file.read(most + 1)
    if len(data) > most:
        raise MapError(f"{where}: larger than {most >> 20} MB unpacked; not a map's file")
    return data


def read_map(path: str | os.PathLike[str]) -> BeatMap:
    """Read a level from a zip or a folder: Info 2 or 4, difficulties of format 2, 3 or 4.

    `Info.dat` may be spelt in any case, lie in a folder inside the zip, and every text file may be
    gzipped or begin with a byte order mark. A missing song or cover gives empty bytes.

    Raises
    ------
    InputNotFoundError
        If there is nothing at `path`.
    MapError
        If it is not a level, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise InputNotFoundError(f"{path}: not found; check the path")
    if path.is_dir():
        return _read(_Folder(path))
    archive = _Zip(path)
    with archive.zip:
        return _read(archive)


def _read(files: _Files) -> BeatMap:
    names = files.names()
    found = sorted(
        (n for n in names if PurePosixPath(n).name.lower() == "info.dat"), key=lambda n: (len(n), n)
    )
    if not found:
        hint = "format 1 (info.json) is too old" if _has(names, "info.json") else "not a map"
        raise MapError(f"{files.where}: no Info.dat inside; {hint}")
    root = found[0][: -len("info.dat")]
    level = info.parse(_document(files, found[0]))
    if not level.entries:
        raise MapError(f"{files.where}: Info.dat lists no difficulty; there is nothing to read")
    if len(level.entries) > MAX_CHARTS:
        raise MapError(
            f"{files.where}: Info.dat lists {len(level.entries)} difficulties; not a map"
        )
    audio = None
    if level.audio_data:
        named = _locate(files, names, root, level.audio_data)
        audio = _document(files, named) if named else None
    charts = tuple(_chart(files, names, root, e, level.beat_map.bpm, audio) for e in level.entries)
    song = _optional(files, names, root, level.beat_map.song_filename)
    samples, rate = vorbis_length(song) or _stated_length(files, names, root, audio)
    return replace(
        level.beat_map,
        charts=charts,
        song=song,
        cover=_optional(files, names, root, level.beat_map.cover_filename),
        song_samples=samples,
        song_rate=rate,
    )


def _chart(
    files: _Files, names: list[str], root: str, entry: info.Entry, bpm: float, audio: Record | None
) -> Chart:
    doc = _required(files, names, root, entry.filename)
    version = doc.text("version", doc.text("_version", ""))
    if version.startswith("4"):
        show = _required(files, names, root, entry.lightshow) if entry.lightshow else None
        tempo: tuple[BpmChange, ...] = changes_from_regions(audio, bpm) if audio else ()
        return v4.parse(doc, entry.header, tempo, show)
    if version.startswith("3"):
        return v3.parse(doc, entry.header, bpm)
    if version.startswith(("2", "1")) or (not version and "_notes" in doc.fields):
        return v2.parse(doc, entry.header, bpm)
    raise MapError(
        f"{doc.where}: a difficulty of format {version[:12] or '?'}; formats 2, 3 and 4 are read"
    )


def _stated_length(
    files: _Files, names: list[str], root: str, audio: Record | None
) -> tuple[int, int]:
    if audio is not None:
        return audio.whole("songSampleCount"), audio.whole("songFrequency", 44100)
    named = _locate(files, names, root, info.BPM_INFO_NAME)
    if named is None:
        return 0, 44100
    doc = _document(files, named)
    return doc.whole("_songSampleCount"), doc.whole("_songFrequency", 44100)


def _required(files: _Files, names: list[str], root: str, name: str) -> Record:
    located = _locate(files, names, root, name)
    if located is None:
        raise MapError(f"{files.where}: '{name}' is missing, though Info.dat names it")
    return _document(files, located)


def _optional(files: _Files, names: list[str], root: str, name: str) -> bytes:
    located = _locate(files, names, root, name) if name else None
    return b"" if located is None else files.read(located)


def _document(files: _Files, name: str) -> Record:
    data = files.read(name, MAX_TEXT_BYTES)
    where = f"{files.where}/{name}"
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
                data = _limited(unpacked, where, MAX_TEXT_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise MapError(f"{where}: damaged gzip data; download it again") from error
    return parse_json(data, where)


def _locate(files: _Files, names: list[str], root: str, name: str) -> str | None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or ":" in name or "\0" in name:
        raise MapError(f"{files.where}: Info.dat names '{name}', outside the map; refused")
    wanted = root + "/".join(parts)
    if wanted in names:
        return wanted
    matches = [n for n in names if n.lower() == wanted.lower()]  # the game runs on Windows
    if matches:
        return matches[0]
    if isinstance(files, _Folder) and (files.path / wanted).is_file():
        return wanted
    return None


def _has(names: list[str], name: str) -> bool:
    return any(PurePosixPath(n).name.lower() == name for n in names)


def vorbis_length(data: bytes) -> tuple[int, int] | None:
    """Samples per channel and rate of an Ogg Vorbis stream, from its first and last page.

    Ogg page header (RFC 3533, section 6): "OggS", version, flags, granule position (int64), ...;
    the Vorbis identification header (Vorbis I, 4.2.2) holds the rate at its byte 12.
    """
    start = data.find(b"\x01vorbis", 0, 4096)
    last = data.rfind(b"OggS")
    if data[:4] != b"OggS" or start < 0 or last < 0 or len(data) < max(start + 16, last + 14):
        return None
    (rate,) = struct.unpack_from("<I", data, start + 12)
    (samples,) = struct.unpack_from("<q", data, last + 6)
    return (samples, rate) if samples > 0 and rate > 0 else None


def write_map(
    path: str | os.PathLike[str],
    beat_map: BeatMap,
    *,
    version: str = "v3",
    force: bool = False,
) -> Path:
    """Write a level as a zip that the game loads; the same map gives the same bytes.

    The file appears whole or not at all.

    Parameters
    ----------
    path
        The zip to write.
    beat_map
        The level with its song and cover.
    version
        Format of the difficulty files: `v3` (3.3.0) or `v2` (2.6.0).
    force
        Replace a file that is there.

    Raises
    ------
    OutputExistsError
        If the file is there and `force` is not set.
    InputNotFoundError
        If the folder to write into is not there.
    UsageError
        If the format is unknown or cannot hold the map.
    """
    path = Path(path)
    check_output(path, force=force)
    data = pack(beat_map, version=version)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a place that a map cannot be written to, before any work is done.

    Raises
    ------
    OutputExistsError, InputNotFoundError, UsageError, PermissionError
        With the reason.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name the zip to write inside it")
    if path.exists() and not force:
        raise OutputExistsError(f"{path}: is already there; --force replaces it, -o names another")
    parent = path.parent
    if not parent.is_dir():
        raise InputNotFoundError(f"{parent}: no such folder to write into; make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(13, "permission denied", os.fspath(parent))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def pack(beat_map: BeatMap, *, version: str = "v3") -> bytes:
    """Build the zip's bytes: fixed times and order, texts deflated, song and cover stored."""
    if version not in FORMATS:
        raise UsageError(f"no map format is called '{version}'; choose {' or '.join(FORMATS)}")
    if not beat_map.charts:
        raise UsageError("a map needs at least one difficulty")
    texts = {info.INFO_NAME: info.dump(beat_map)}
    for chart in info.in_file_order(beat_map.charts):
        texts[info.chart_filename(chart)] = FORMATS[version](chart)
    if beat_map.song_samples > 0:
        texts[info.BPM_INFO_NAME] = info.dump_bpm_info(beat_map)
    media = {beat_map.song_filename: beat_map.song, beat_map.cover_filename: beat_map.cover}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in texts.items():
            _add(archive, name, dump_json(value), zipfile.ZIP_DEFLATED)
        for name, data in media.items():
            if data:
                _add(archive, name, data, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # the same bytes on every system
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, compress_type=method, compresslevel=6)
