"""What an edit asks for, and what it asks of the models.

The models stand behind `BarWriter`: it is given bars to write with what is around them, and gives
back their latents with what these tell of the sound, or sound itself, warped, at 16 kHz mono.

Letters: B bars, L tokens, D dims, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from mgen.core.bars import BAR_SAMPLES
from mgen.core.editing.spans import Share
from mgen.core.errors import UsageError
from mgen.core.store import BarTable, SongRow, Store

if TYPE_CHECKING:
    from mgen.core.tokenizer import Tokenizer
    from mgen.core.tokenizer.levels import BandLevels

MOST_TAKES = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Bars of a song, of this store or another: the sound whose action is wanted (`--like`)."""

    store: Store
    song: SongRow
    bars: BarTable

    @classmethod
    def of(cls, store: Store, song: SongRow, bars: Sequence[int]) -> Self:
        """Bars of a stored song, by position."""
        table = store.bars(song.index)
        return cls(store=store, song=song, bars=table.where(np.isin(np.arange(len(table)), bars)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditRequest:
    """One edit of one song.

    Attributes
    ----------
    bars
        Bars to write, from 0, sorted; empty where bars are only appended.
    append
        Bars to write past the end of the song.
    action
        The mix to apply; empty where `like` says it.
    like
        A clip whose action is applied.
    depth
        Codes of a residual action that are used, coarse to fine; None for all.
    strength
        0 to 1: how far from what the bars are to what is asked for. 0 leaves every sample.
    guidance
        How strictly the action is followed; None for the model's own default.
    seed, takes
        Candidates 1 to `takes` are made; candidate k is the same whatever `takes` is.
    on
        Take that the edit is made on; 0 for the original.
    """

    bars: tuple[int, ...]
    append: int = 0
    action: tuple[Share, ...] = ()
    like: Clip | None = None
    depth: int | None = None
    strength: float = 1.0
    guidance: float | None = None
    seed: int = 0
    takes: int = 1
    on: int = 0

    def check(self, actions: int | None = None) -> None:
        """Refuse what makes no sense before any work is done; `actions` counts the palette's.

        Raises
        ------
        UsageError
            If options exclude each other or are out of range, or an action is outside the palette.
        """
        if not self.bars and not self.append:
            raise UsageError("which bars? give --bars, --every or --append")
        if not 0 <= self.append <= 999:
            raise UsageError(f"--append {self.append}: give 0 to 999 bars")
        if not 0.0 <= self.strength <= 1.0:
            raise UsageError(f"--strength {self.strength:g}: give 0 to 1")
        if not 1 <= self.takes <= MOST_TAKES:
            raise UsageError(f"--takes {self.takes}: give 1 to {MOST_TAKES}")
        if self.action and self.like is not None:
            raise UsageError("--action and --like exclude each other; give one of them")
        if self.strength == 0:
            if self.append:
                raise UsageError("--strength 0 keeps what is there, and --append has nothing yet")
            return
        if not self.action and self.like is None:
            raise UsageError("what is to be done? give --action 17, or --like other.wav:5-8")
        for share in self.action:
            if actions is not None and share.action >= actions:
                raise UsageError(
                    f"--action {share.action}: outside the palette; it has 0-{actions - 1}"
                    " (`mgen actions` lists them)"
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WriteRequest:
    """What a writer is given.

    Attributes
    ----------
    store, song
        With the song's bars and, where the writer needs them, latents.
    bars
        All bars of the song in order, and behind them those that are appended, whose `row` is -1.
    edited
        Positions in `bars` of the bars to write (B,), sorted.
    written
        Latents (L, D) that earlier takes gave bars, by position: they stand for the store's own.
    action, like, depth, strength, guidance, seed
        As in `EditRequest`; `strength` is above 0.
    take
        Which candidate, from 1. The same request with the same `take` gives the same bars.
    """

    store: Store
    song: SongRow
    bars: BarTable
    edited: npt.NDArray[np.int64]
    written: Mapping[int, npt.NDArray[np.float16]] = field(default_factory=dict)
    action: tuple[Share, ...] = ()
    like: Clip | None = None
    depth: int | None = None
    strength: float = 1.0
    guidance: float | None = None
    seed: int = 0
    take: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenBars:
    """What a writer gives back, a row for each bar of `WriteRequest.edited`.

    Attributes
    ----------
    z_BLD
        Latents of the bars.
    levels
        What they tell of the levels of bands, each bar warped to 2.048 s: the recording is then
        made to sound so. None where a writer knows only sound.
    pcm_BN
        Sound (B, 32768), float32, 16 kHz mono, each bar warped to 2.048 s; None where levels are
        given.
    change_LU
        By how much (B,) the action makes a bar louder, as measured; 0 where it is not known to.
    """

    z_BLD: npt.NDArray[np.floating[Any]]
    change_LU: npt.NDArray[np.floating[Any]]
    levels: Sequence[BandLevels] | None = None
    pcm_BN: npt.NDArray[np.float32] | None = None

    def check(self, bars: int) -> None:
        """Raise ValueError where a writer does not keep its word."""
        if self.z_BLD.ndim != 3 or (len(self.z_BLD), *self.change_LU.shape) != (bars, bars):
            raise ValueError(
                f"latents {self.z_BLD.shape}, changes {self.change_LU.shape}: {bars} bars"
            )
        found = {"z_BLD": self.z_BLD, "change_LU": self.change_LU}
        if self.levels is not None:
            lengths = {len(bar) * bar.hop for bar in self.levels}
            if len(self.levels) != bars or lengths != {BAR_SAMPLES}:
                raise ValueError(f"levels of {len(self.levels)} bars, {lengths} samples")
            for name in ("mel_TM", "pitch_TM"):
                found[name] = np.stack([getattr(b, name).cpu().numpy() for b in self.levels])
        elif self.pcm_BN is None or self.pcm_BN.shape != (bars, BAR_SAMPLES):
            shape = None if self.pcm_BN is None else self.pcm_BN.shape
            raise ValueError(f"sound {shape}: {bars} bars")
        else:
            found["pcm_BN"] = self.pcm_BN
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinity")


class BarWriter(Protocol):
    """Models that write bars."""

    @property
    def model_ids(self) -> Mapping[str, str]:
        """What decides the result, by stage: tokenizer, lam, dynamics, palette -> id."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Whose latents of the song the store has to hold; None where none are needed."""

    @property
    def actions(self) -> int:
        """Rows of the palette; ids run from 0 to one less."""

    def write(self, request: WriteRequest) -> WrittenBars:
        """Write the bars that are asked for."""
