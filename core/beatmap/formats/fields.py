"""Reading JSON that a stranger wrote: each field is typed, defaulted, or refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from mgen.core.errors import MapError


def parse_json(data: bytes, where: str) -> Record:
    """Decode strict UTF-8 JSON, with or without a byte order mark, that holds one object.

    Raises
    ------
    MapError
        If it is something else; the message names the file and the line.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number that JSON knows")

    try:
        loaded = json.loads(data.decode("utf-8-sig"), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise MapError(
            f"{where}: not valid JSON ({error.msg} in line {error.lineno}); save it again"
        ) from error
    except UnicodeDecodeError as error:
        raise MapError(f"{where}: not UTF-8 text; save it again as UTF-8 JSON") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MapError(f"{where}: not valid JSON ({what}); save it again") from error
    if not isinstance(loaded, dict):
        raise MapError(f"{where}: JSON, but not an object in braces; is it a map's file?")
    return Record(loaded, where)


def dump_json(value: Any) -> bytes:
    """Encode as strict UTF-8 JSON, whole numbers without a fraction; the same value, same bytes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", errors="replace")


def tidy(number: float) -> float:
    """4.0 becomes 4, as editors write it; anything else stays exact."""
    whole = int(number)
    return whole if whole == number else number


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object and the name of the place it came from, for messages."""

    fields: dict[str, Any]
    where: str

    def fail(self, key: str, what: str) -> NoReturn:
        """Raise the one-line error for a field."""
        raise MapError(f"{self.where}: {key} {what}; open and save the map in an editor")

    def number(self, key: str, default: float | None = 0.0) -> float:
        """Read a finite number. A `default` of None makes the field required."""
        value = self.fields.get(key)
        if value is None:
            if default is None:
                self.fail(key, "is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self.fail(key, f"is {_short(value)}, not a number")
        try:
            read = float(value)  # some early files hold numbers as text
        except (ValueError, OverflowError):
            self.fail(key, f"is {_short(value)}, not a number")
        if not math.isfinite(read):
            self.fail(key, f"is {_short(value)}, not a finite number")
        return read

    def whole(self, key: str, default: int | None = 0) -> int:
        """Read a whole number."""
        read = self.number(key, default)
        if read != int(read):
            self.fail(key, f"is {read}, not a whole number")
        return int(read)

    def text(self, key: str, default: str | None = "") -> str:
        """Read a text."""
        value = self.fields.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.fail(key, "is missing" if value is None else f"is {_short(value)}, not a text")
        return value

    def record(self, key: str) -> Record:
        """Read a nested object; an absent one is empty."""
        value = self.fields.get(key)
        if value is None:
            return Record({}, self.where)
        if not isinstance(value, dict):
            self.fail(key, f"is {_short(value)}, not an object")
        return Record(value, self.where)

    def records(self, key: str) -> Iterator[Record]:
        """Read a list of objects; an absent one is empty."""
        for value in self.values(key):
            if not isinstance(value, dict):
                self.fail(key, f"holds {_short(value)}, not an object")
            yield Record(value, self.where)

    def values(self, key: str) -> list[Any]:
        """Read a list of anything; an absent one is empty."""
        value = self.fields.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(key, f"is {_short(value)}, not a list")
        return value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
