"""Reading a person's own beats: `.beats`/TSV, CSV, JSON and Audacity's labels."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgen.core.beats.grid import Beats
from mgen.core.errors import InputError, InputNotFoundError

MAX_BEAT_IN_BAR = 32
MAX_METER = 16
"""A count that runs past this without a new bar is a count of beats."""
MAX_BYTES = 64 * 2**20

_TIME_NAMES = ("time_s", "time", "start", "seconds", "onset")
_BEAT_NAMES = ("beat_in_bar", "beat", "position", "beat_position", "label")
_DOWNBEAT_WORDS = frozenset({"1", "d", "db", "downbeat", "bar"})
# what `exports` writes of a song without beats: a comment, or one label
_NO_BEATS = re.compile(r"(?:#|0\.0+\t0\.0+\t)\s*no beats")
_BAR_AND_BEAT = re.compile(r"\d+\.([1-9]\d*)")

Row = tuple[float, int]


def read_beats(path: Path | str, *, least: int = 2) -> Beats:
    """Beats from a file, by what is in it rather than by its name.

    Understood: columns `time [beat_in_bar]` parted by tabs, spaces, commas or semicolons; a CSV
    with a header (`time_s,beat_in_bar`); three columns `start end label` (Audacity), where a label
    is a place in the bar or, as exported, `bar.place`; JSON as a list of times, of `[time, beat]`,
    of objects, or as `{"beats": [...], "downbeats": [...]}`. Beats without a place in the bar get
    0. Only a file that says `no beats`, as exports do, gives none.

    Parameters
    ----------
    path
        The file.
    least
        Fewer beats than this are refused: who writes a file by hand has more to say than one beat.

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    InputError
        If it is empty, not text, or has times that are not numbers, negative or out of order.
    """
    path = Path(path)
    text = _read_text(path)
    if _NO_BEATS.fullmatch(text.strip()):
        return Beats(np.empty(0), np.empty(0, np.int8), np.empty(0, np.float32))
    if text.lstrip().startswith(("[", "{")):
        rows = _from_json(path, text)
    else:
        rows = _from_columns(path, text)
    return _checked(path, rows, least)


def _read_text(path: Path) -> str:
    if not path.exists():
        raise InputNotFoundError(f"{path}: not found; check the path given to --beats")
    if not path.is_file():
        raise InputError(f"{path}: not a file; name a file of beats")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: too large for a file of beats; name a text file of beat times")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path}: not text; beats come from .beats, TSV, CSV, JSON or labels")
    if not text.strip():
        raise InputError(f"{path}: empty; write one line per beat: seconds, beat in the bar")
    return text


def _from_columns(path: Path, text: str) -> list[Row]:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        # Audacity writes the frequencies of a spectral label on a line that starts with `\`
        if line.strip() and not line.lstrip().startswith(("#", "\\"))
    ]
    if not lines:
        raise InputError(f"{path}: only comments; write one line per beat: time, beat in the bar")
    rows: list[Row] = []
    time_at, beat_at, headed = 0, 1, False
    for position, (number, line) in enumerate(lines):
        cells = _split(line)
        if position == 0 and _number(cells[0]) is None:
            time_at, beat_at = _header(path, cells)
            headed = True
            continue
        time = _number(cells[time_at]) if time_at < len(cells) else None
        if time is None:
            raise InputError(
                f"{path}: line {number} has no time in seconds ('{line.strip()[:40]}');"
                " write: time, beat in the bar"
            )
        is_label = not headed and len(cells) >= 3
        at = 2 if is_label else beat_at
        cell = cells[at] if 0 <= at < len(cells) else ""
        numbered = _BAR_AND_BEAT.fullmatch(cell) if is_label else None
        beat = _beat_in_bar(numbered[1] if numbered else cell)
        if beat is None:
            if not is_label:
                raise InputError(
                    f"{path}: line {number} has '{cell}' as its beat in the bar;"
                    f" write 1 for a downbeat, up to {MAX_BEAT_IN_BAR}, 0 where unknown"
                )
            beat = 0
        rows.append((time, beat))
    places = [beat for _, beat in rows]
    if len(rows) > MAX_METER and places == list(range(places[0], places[0] + len(rows))):
        return [(time, 0) for time, _ in rows]  # numbered from first to last, not within bars
    return rows


def _split(line: str) -> list[str]:
    if "\t" in line:
        cells = line.split("\t")
    elif "," in line or ";" in line:
        cells = next(csv.reader(io.StringIO(line), delimiter="," if "," in line else ";"))
    else:
        cells = line.split()
    return [cell.strip() for cell in cells]


def _header(path: Path, cells: Sequence[str]) -> tuple[int, int]:
    names = [cell.lower() for cell in cells]
    time_at = next((names.index(n) for n in _TIME_NAMES if n in names), None)
    if time_at is None:
        raise InputError(
            f"{path}: line 1 is neither a beat nor a header; write `time_s,beat_in_bar` first"
        )
    return time_at, next((names.index(n) for n in _BEAT_NAMES if n in names), -1)


def _number(text: Any) -> float | None:
    if isinstance(text, bool):
        return None
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _beat_in_bar(value: Any) -> int | None:
    """1..32, 0 for unknown, None for what cannot be meant."""
    text = str(value).strip().lower()
    if not text or value is None:
        return 0
    number = _number(text)
    if number is None:
        return 1 if text in _DOWNBEAT_WORDS else None
    if not number.is_integer() or not 0 <= number <= MAX_BEAT_IN_BAR:
        return None
    return int(number)


def _from_json(path: Path, text: str) -> list[Row]:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not valid JSON ({reason}); repair or export it again") from None
    if isinstance(data, dict):
        return _from_json_object(path, data)
    return [_json_row(path, index, item) for index, item in enumerate(data)]


def _from_json_object(path: Path, data: dict[str, Any]) -> list[Row]:
    if not isinstance(data.get("beats"), list):
        raise InputError(f'{path}: no list of beats in it; write {{"beats": [0.5, 1.0, ...]}}')
    rows = [_json_row(path, index, item) for index, item in enumerate(data["beats"])]
    positions = data.get("beat_in_bar", data.get("beat_positions"))
    if isinstance(positions, list) and len(positions) == len(rows):
        return [(time, _beat_in_bar(p) or 0) for (time, _), p in zip(rows, positions, strict=True)]
    downbeats = data.get("downbeats")
    if isinstance(downbeats, list) and downbeats:
        return _count_from(rows, [_json_row(path, i, d)[0] for i, d in enumerate(downbeats)])
    return rows


def _count_from(rows: list[Row], downbeats: list[float]) -> list[Row]:
    """Number beats from the downbeats (within 70 ms); beats before the first stay unknown."""
    counted: list[Row] = []
    place = 0
    for time, _ in rows:
        if any(abs(time - d) <= 0.07 for d in downbeats):
            place = 1
        elif 0 < place < MAX_BEAT_IN_BAR:
            place += 1
        else:
            place = 0
        counted.append((time, place))
    return counted


def _json_row(path: Path, index: int, item: Any) -> Row:
    time, beat = item, 0
    if isinstance(item, list) and item:
        time, beat = item[0], item[1] if len(item) > 1 else 0
    elif isinstance(item, dict):
        time = next((item[n] for n in _TIME_NAMES if n in item), None)
        beat = next((item[n] for n in _BEAT_NAMES if n in item), 0)
    number, place = _number(time), _beat_in_bar(beat)
    if number is None or place is None:
        raise InputError(
            f"{path}: beat {index + 1} is {json.dumps(item)[:40]}; write a time in seconds,"
            " [time, beat in the bar] or an object with time_s and beat_in_bar"
        )
    return number, place


def _checked(path: Path, rows: list[Row], least: int) -> Beats:
    if len(rows) < least:
        few = {1: "one is", 2: "two are"}.get(least, f"{least} are")
        raise InputError(f"{path}: {len(rows)} beats; at least {few} needed")
    for index, (time, _) in enumerate(rows, 1):
        if not math.isfinite(time) or time < 0:
            raise InputError(f"{path}: beat {index} is at {time:g} s; times start at 0 seconds")
    for index, ((before, _), (time, _)) in enumerate(itertools.pairwise(rows), 2):
        if time <= before:
            raise InputError(
                f"{path}: beat {index} ({time:g} s) is not after the one before ({before:g} s);"
                " sort the beats by time and leave out doubles"
            )
    time_s, place = (np.array(column) for column in zip(*rows, strict=True))
    return Beats(time_s.astype(np.float64), place, np.ones(len(rows), np.float32))
