"""The files of takes: their names, and how one is written from the source and what takes hold."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mgen.core.corpus.files import check_output_folder
from mgen.core.editing.base import Base
from mgen.core.editing.source import BLOCK, SourceFile, find_source
from mgen.core.editing.spans import describe_bars
from mgen.core.editing.writing import Output, choose_output, edited_blocks, staged
from mgen.core.errors import MgenError, OutputExistsError, UsageError
from mgen.core.store import SongRow, Store, StoredTake, Takes


@dataclass(frozen=True, slots=True, kw_only=True)
class EditReport:
    """What became of one candidate.

    `known`: the take was there. `written`: its file was not. `samples` counts the file's,
    `changed` those that differ from the source's (all channels of an instant are one), `outside`
    is the largest difference outside the edited bars as read back from the file, in full scales
    (None: nothing was written, or the file is lossy). `seams_LU` are as in `RenderedSpan`; empty
    where the take was there.
    """

    number: int
    parent: int
    path: Path
    bars: str
    known: bool
    written: bool
    spans_s: tuple[tuple[float, float], ...] = ()
    samples: int = 0
    changed: int = 0
    outside: float | None = None
    seams_LU: tuple[tuple[float | None, float | None], ...] = ()

    @property
    def seconds(self) -> float:
        """Length of what was edited."""
        return sum(b - a for a, b in self.spans_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the files of an edit go.

    Attributes
    ----------
    song
        The song's file: takes go beside it, as `<song>.edit-N` with its ending (`.wav` where that
        format is lossy).
    out
        Another file, or (without an ending) a folder; None for none.
    lossy
        Whether a file that does not hold every sample is allowed.
    """

    song: Path
    out: Path | None = None
    lossy: bool = False

    def check(self, source: SourceFile, takes: int = 1, *, force: bool = False) -> None:
        """Refuse a place that cannot be meant, before any work is done.

        Raises
        ------
        UsageError
            If several takes would become one file, the ending names no fitting format, or the place
            lies in a store or is the source itself.
        OSError
            If the folder may not be written to.
        """
        folder = self.path(1, source)[0].parent
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))
        if self.out is None:
            return
        if self._is_folder:
            check_output_folder(self.out, "-o")
            return
        if takes > 1:
            raise UsageError(f"{self.out}: one file for {takes} takes; name a folder with -o")
        check_output_folder(self.out.parent, "-o")
        choose_output(source.encoding, source.path, self.out, self.lossy)
        if self.out.exists() and self.out.samefile(source.path):
            raise UsageError(f"{self.out}: is the source, which is never modified; name another")

    @property
    def _is_folder(self) -> bool:
        return self.out is not None and (self.out.is_dir() or not self.out.suffix)

    def path(self, number: int, source: SourceFile) -> tuple[Path, Output]:
        """Where take `number` goes, and how it is written."""
        if self.out is not None and not self._is_folder:
            return self.out, choose_output(source.encoding, source.path, self.out, self.lossy)
        output = choose_output(source.encoding, source.path, None, self.lossy)
        name = f"{self.song.stem}.edit-{number}{output.suffix}"
        return (self.out / name if self.out is not None else self.song.with_name(name)), output

    def refuse_to_replace(self, *, force: bool) -> None:
        """Refuse a file that is there already, before bars are written for it.

        Raises
        ------
        OutputExistsError
            Without `force`.
        """
        if self.out is not None and not self._is_folder and not force and os.path.lexists(self.out):
            raise OutputExistsError(f"{self.out}: exists; --force replaces it, -o names another")

    def free_number(self, number: int, source: SourceFile) -> int:
        """The first number from `number` on whose file is not there: no file is in the way."""
        if self.out is None or self._is_folder:
            while os.path.lexists(self.path(number, source)[0]):
                number += 1
        return number


def write_take(
    base: Base, store: Store, take: StoredTake, target: Target, *, force: bool = False,
    keep: Callable[[], object] | None = None,
    seams_LU: Sequence[tuple[float | None, float | None]] = (),
) -> EditReport:  # fmt: skip
    """Write the file of a take, unless it is there and holds the same samples.

    Parameters
    ----------
    base
        The source with the take and all that it was made on.
    keep
        Called when the file is complete and not yet in its place: stores a take that is new.

    Raises
    ------
    OutputExistsError
        If another file is there, without `force`.
    OSError
        If it cannot be written.
    """
    path, output = target.path(take.number, base.source)
    encoding = base.source.encoding
    report = EditReport(
        number=take.number, parent=take.parent, path=path, bars=describe_bars(take.bars),
        known=keep is None, written=False,
        spans_s=tuple((a / encoding.rate, b / encoding.rate) for a, b in take.spans),
        seams_LU=tuple(seams_LU),
    )  # fmt: skip
    if os.path.lexists(path):
        if output.exact and _holds(path, base):
            return report
        if not force:
            raise OutputExistsError(
                f"{path}: exists, and is not what take {take.number} holds; --force replaces it,"
                " -o names another"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path, base.source, base.patches, output, store.spool) as file:
        if keep is not None:
            keep()
        file.publish()
    figures = file.figures
    return replace(
        report, written=True, samples=figures.samples, changed=figures.changed,
        outside=figures.outside,
    )  # fmt: skip


def rewrite_take(
    store: Store, song: SongRow, number: int, target: Target, *, source: Path | None = None,
    force: bool = False,
) -> EditReport:  # fmt: skip
    """Write the file of an old take again, and make it the current one.

    Raises
    ------
    UsageError
        If the song has no such take.
    InputError, OutputExistsError, OSError
        As `edit_song`.
    """
    takes = Takes(store)
    line = takes.line(number, song)
    if not line:
        raise UsageError(f"{store.where}: takes count from 1; 0 is the original")
    with SourceFile(find_source(store, song, source)) as opened:
        target.check(opened, force=force)
        report = write_take(Base(opened, line), store, line[-1], target, force=force)
    takes.move_head(song, number)
    return report


def undo(
    store: Store, song: SongRow, target: Target, *, source: Path | None = None, force: bool = False
) -> EditReport | Path:
    """Make the parent of a song's current take the current one.

    Returns
    -------
    EditReport or Path
        The parent's file, written if it is gone; the song's own where that is the original.

    Raises
    ------
    UsageError
        If the original is the current one already.
    """
    takes = Takes(store)
    head = takes.head(song)
    if not head:
        raise UsageError(f"{store.where}: nothing to undo; '{song.name}' is at the original")
    parent = takes.read(head, song, sound=False).parent
    if parent:
        return rewrite_take(store, song, parent, target, source=source, force=force)
    path = find_source(store, song, source)
    takes.move_head(song, 0)
    return path


def _holds(path: Path, base: Base) -> bool:
    """Whether a file decodes to exactly the edited recording."""
    try:
        with SourceFile(path) as there:
            mine, other = base.source.encoding, there.encoding
            if (mine.rate, mine.channels, mine.dtype) != (other.rate, other.channels, other.dtype):
                return False
            digest = hashlib.sha256()
            for block_nC in there.blocks(BLOCK):
                digest.update(block_nC.tobytes())
    except MgenError:
        return False
    own = hashlib.sha256()
    for block_nC, _ in edited_blocks(base.source, base.patches):
        own.update(block_nC.tobytes())
    return digest.digest() == own.digest()
