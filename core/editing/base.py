"""What an edit is made on: the source, or what earlier takes have made of it.

Arrays: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def read(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[Any]]:
        """Samples of each span, arrays (N, C) of the source's type; past the end there is less."""
        found = []
        for (first, last), own_NC in zip(spans, self.source.read_spans(spans), strict=True):
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
