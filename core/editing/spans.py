"""Which bars, and which action, in a person's words.

Bars count from 1 and a range holds both of its ends; inside the program they count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgen.core.errors import UsageError

_RANGE = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?")
_SHARE = re.compile(r"(\d{1,9})(?:\s*:\s*([0-9.eE+-]+))?")


@dataclass(frozen=True, slots=True)
class Share:
    """One action of a mix and its part of it; the parts of a mix add up to 1."""

    action: int
    weight: float


def parse_bars(text: str, count: int) -> tuple[int, ...]:
    """The bars that `8-12`, `3` or `1-4,9` mean, sorted, from 0.

    Parameters
    ----------
    text
        As a person types it.
    count
        Bars that the song has.

    Raises
    ------
    UsageError
        If it is no list of bars, or names bars that the song does not have.
    """
    _require_bars(count)
    found: set[int] = set()
    for first, last in read_ranges(text):
        if last > count:
            raise UsageError(f"--bars '{text}': there is no bar {last}; the song has {_all(count)}")
        found.update(range(first - 1, last))
    return tuple(sorted(found))


def read_ranges(text: str) -> list[tuple[int, int]]:
    """The ranges of `1-4,9` as they are typed: from 1, both ends included.

    Raises
    ------
    UsageError
        If it is no list of bars: known before the song is.
    """
    found = []
    for part in (piece.strip() for piece in text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UsageError(f"--bars '{text}': '{part}' is no bar; write 3, 8-12 or 1-4,9")
        first = int(match[1])
        last = int(match[2] or first)
        if first < 1:
            raise UsageError(f"--bars '{text}': there is no bar {first}; bars count from 1")
        if last < first:
            raise UsageError(f"--bars '{text}': {part} runs backwards; write {last}-{first}")
        found.append((first, last))
    return found


def every_bar(every: int, first: int, count: int) -> tuple[int, ...]:
    """Every so many bars, beginning with bar `first` (from 1); sorted, from 0.

    Raises
    ------
    UsageError
        If `every` is not positive, or the song has no bar `first`.
    """
    _require_bars(count)
    if every < 1:
        raise UsageError(f"--every {every}: give 1 or more")
    if not 1 <= first <= count:
        raise UsageError(f"--first {first}: there is no such bar; the song has {_all(count)}")
    return tuple(range(first - 1, count, every))


def describe_bars(bars: Iterable[int]) -> str:
    """Bars (from 0) as a person writes them: `1-4,9`."""
    return ",".join(
        f"{run[0] + 1}" if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}"
        for run in runs(sorted(bars))
    )


def runs(bars: Sequence[int]) -> list[tuple[int, ...]]:
    """Sorted bars, cut into runs of neighbours."""
    found: list[list[int]] = []
    for bar in bars:
        if found and bar == found[-1][-1] + 1:
            found[-1].append(bar)
        else:
            found.append([bar])
    return [tuple(run) for run in found]


def parse_action(text: str) -> tuple[Share, ...]:
    """The mix that `17`, `17,42` or `17:0.6,42:0.4` means.

    Weights are shares: they are divided by their sum, so that a mix is as strong as one action is,
    whatever the numbers (`17:3,42:2` is the mix above). How strongly it is applied is said by
    --strength alone. Without weights the shares are equal.

    Raises
    ------
    UsageError
        If it is no action or mix.
    """
    shares: list[tuple[int, float | None]] = []
    for part in text.split(","):
        match = _SHARE.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"--action '{text}': '{part.strip()}' is no action; write 17 or 17:0.6,42:0.4"
            )
        shares.append((int(match[1]), None if match[2] is None else _weight(text, match[2])))
    ids = [action for action, _ in shares]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UsageError(f"--action '{text}': names {twice} twice; give it one weight")
    given = [weight for _, weight in shares if weight is not None]
    if given and len(given) < len(shares):
        raise UsageError(f"--action '{text}': give every action of the mix a weight, or none")
    if len(shares) == 1 and given and given[0] != 1.0:
        raise UsageError(
            f"--action '{text}': a weight shares out a mix of several actions; how strongly one is"
            f" applied is said by --strength {min(given[0], 1.0):g}"
        )
    total = sum(given) or float(len(shares))
    return tuple(Share(a, (1.0 if w is None else w) / total) for a, w in sorted(shares))


def parse_like(text: str) -> tuple[Path, str]:
    """The file and the bars of `other.wav:5-8`; the bars are left for `parse_bars`.

    Raises
    ------
    UsageError
        If there are no bars behind a colon.
    """
    path, colon, bars = text.rpartition(":")
    if not colon or not path or not bars:
        raise UsageError(f"--like '{text}': name a file and its bars, e.g. other.wav:5-8")
    return Path(path).expanduser(), bars


def _weight(text: str, word: str) -> float:
    try:
        weight = float(word)
    except ValueError:
        weight = float("nan")
    if not 0.0 < weight < float("inf"):
        raise UsageError(f"--action '{text}': '{word}' is no weight; give a number above 0")
    return weight


def _require_bars(count: int) -> None:
    if count < 1:
        raise UsageError("the song has no bars; there is nothing to edit")


def _all(count: int) -> str:
    return f"bars 1-{count}" if count > 1 else "bar 1 only"
