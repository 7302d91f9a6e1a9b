"""What an edit is made on: the source, or what earlier takes have made of it.

Arrays: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.editing.source import SourceFile
from mgen.core.editing.writing import Patch
from mgen.core.store import StoredTake


class Base:
    """The samples of a source under those of the takes that the edit stands on."""

    def __init__(self, source: SourceFile, line: Sequence[StoredTake] = ()) -> None:
        self.source = source
        self.patches = patched((), (Patch(a, pcm) for take in line for a, pcm in take.pieces()))
        self._held: list[Patch] = []
        self._ends: list[int] = []

    @contextmanager
    def holding(self, spans: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Samples of these spans are read once, and not again for what is read of them.

        A lossy file is decoded from its beginning at each reading.
        """
        apart: list[tuple[int, int]] = []
        for first, last in sorted(spans):
            if apart and first <= apart[-1][1]:
                apart[-1] = (apart[-1][0], max(last, apart[-1][1]))
            else:
                apart.append((first, last))
        found = self.source.read_spans(apart)
        self._held = [Patch(a, own_NC) for (a, _), own_NC in zip(apart, found, strict=True)]
        self._ends = [last for _, last in apart]
        try:
            yield
        finally:
            self._held, self._ends = [], []

    def _source(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[Any]]:
        """The source's own samples of spans; those that may be written to are copies."""
        found = []
        for first, last in spans:
            for held, end in zip(self._held, self._ends, strict=True):
                if held.first <= first and last <= end:
                    found.append(held.pcm_NC[first - held.first : last - held.first].copy())
                    break
            else:
                return self.source.read_spans(spans)
        return found

    def read(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[Any]]:
        """Samples of each span, arrays (N, C) of the source's type; past the end there is less."""
        found = []
        for (first, last), own_NC in zip(spans, self._source(spans), strict=True):
            end = max((min(last, p.last) for p in self.patches if p.first < last), default=first)
            out_NC = own_NC
            if self.patches:
                longer = max(0, end - first - len(own_NC))
                out_NC = np.pad(own_NC, ((0, longer), (0, 0)))
            for patch in self.patches:
                a, b = max(first, patch.first), min(last, patch.last)
                if a < b:
                    out_NC[a - first : b - first] = patch.pcm_NC[a - patch.first : b - patch.first]
            found.append(out_NC)
        return found


def patched(old: Sequence[Patch], new: Iterable[Patch]) -> tuple[Patch, ...]:
    """Patches laid over others, one by one; what comes out is sorted and apart from each other."""
    found = list(old)
    for patch in new:
        if not len(patch.pcm_NC):
            continue
        kept = [patch]
        for other in found:
            if other.first < patch.first:
                kept.append(Patch(other.first, other.pcm_NC[: patch.first - other.first]))
            if other.last > patch.last:
                begin = max(other.first, patch.last)
                kept.append(Patch(begin, other.pcm_NC[begin - other.first :]))
        found = sorted(kept, key=lambda p: p.first)
    return tuple(found)
