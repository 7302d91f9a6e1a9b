"""What `mgen edit` works on: the words that were typed, the song, its store, and the models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mgen.cli import output
from mgen.cli.info import Kind, kind_of
from mgen.core.errors import InputError, InputNotFoundError, OutputExistsError, UsageError

if TYPE_CHECKING:
    from mgen.core.editing.request import BarWriter, Clip, EditRequest
    from mgen.core.store import SongRow, Store
    from mgen.core.tokenizer import Tokenizer

    WriterLoader = Callable[[Store | None], BarWriter]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was typed, but for where and with which models."""

    bars: str | None
    every: int | None
    first: int | None
    append: int
    action: str | None
    like: str | None
    strength: float
    depth: int | None
    guidance: float | None
    seed: int
    takes: int
    on: str | None
    take: int | None
    undo: bool
    list_takes: bool
    source: Path | None
    plot: Path | None
    force: bool

    @property
    def history(self) -> bool:
        """Whether old takes are wanted, not a new one."""
        return self.undo or self.list_takes or self.take is not None

    def check(self) -> None:
        """Refuse what makes no sense before anything is opened."""
        from mgen.core.editing.request import EditRequest
        from mgen.core.editing.spans import Share, parse_action, parse_like, read_ranges

        asked = (self.bars, self.every, self.append or None, self.action, self.like, self.on)
        if sum((self.undo, self.list_takes, self.take is not None)) > 1:
            raise UsageError("--take, --undo and --list exclude each other; give one of them")
        if self.history and any(word is not None for word in (*asked, self.plot)):
            raise UsageError("--take, --undo and --list make no edit; leave the others out")
        if self.bars is not None and self.every is not None:
            raise UsageError("--bars and --every exclude each other; give one of them")
        if self.first is not None and self.every is None:
            raise UsageError("--first says where --every begins; give --every too, or --bars")
        if self.on not in (None, "head") and not str(self.on).isdecimal():
            raise UsageError(f"--on {self.on}: give a take's number, or head")
        if self.bars is not None:
            read_ranges(self.bars)
        if self.like is not None:
            parse_like(self.like)
        action = () if self.action is None else parse_action(self.action)
        if self.plot is not None:
            self._check_plot(self.plot)
        if not self.history:
            if self.action is not None and self.like is not None:
                raise UsageError("--action and --like exclude each other; give one of them")
            EditRequest(
                bars=() if self.bars is None and self.every is None else (0,), append=self.append,
                action=action or ((Share(0, 1.0),) if self.like is not None else ()),
                strength=self.strength, takes=self.takes,
            ).check()  # fmt: skip

    def _check_plot(self, plot: Path) -> None:
        if self.takes > 1:
            raise UsageError("--plot draws one take; leave --takes out")
        if plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {plot}: pictures are PNG files; name one that ends in .png")
        if plot.exists() and not self.force:
            raise OutputExistsError(f"{plot}: exists; give --force to replace it")
        if not plot.absolute().parent.is_dir():
            raise InputNotFoundError(f"{plot.parent}: no such folder; make it first")


@dataclass(frozen=True, kw_only=True)
class Session:
    """The song, its store, and what writes its bars (None where nothing will be written)."""

    store: Store
    row: SongRow
    path: Path
    source: Path | None
    writer: BarWriter | None


def open_session(
    place: Path | str, song: str | None, words: Words, load: WriterLoader, stack: ExitStack
) -> Session:
    """Open a song's store, make what an edit needs and a cache may hold, load the models.

    The models come first: where there are none, nothing is made.

    Raises
    ------
    InputError, UsageError, StoreError
        If the place is neither a song nor a store, or does not hold the song, its bars or latents.
    """
    kind = kind_of(place)
    if kind is Kind.map:
        raise InputError(f"{place}: a beat map, not a song or a store; name another")
    if kind is Kind.song:
        if song is not None or words.source is not None:
            raise UsageError("--song and --source are for stores; leave them out")
        return _open_song(Path(place), words, load, stack)
    return _open_store(place, song, words, load, stack)


def _open_song(path: Path, words: Words, load: WriterLoader, stack: ExitStack) -> Session:
    """A file, with the store beside it (or in the cache); made, if it is needed and not there."""
    from mgen.core.audio import sha256_file
    from mgen.core.editing.cache import add_song, cache_path, open_cache, song_of
    from mgen.core.store import Store

    sha256 = sha256_file(path)
    location = cache_path(path, sha256)
    mode: Literal["r", "a"] = "r" if words.list_takes else "a"
    store = stack.enter_context(Store.open(location, mode)) if location.exists() else None
    if words.history:
        row = None if store is None else song_of(store, sha256)
        if store is None or row is None:
            raise UsageError(f"{path}: has no takes yet; --bars and --action make one")
        return Session(store=store, row=row, path=path, source=path, writer=None)
    writer = load(store) if words.strength > 0 else None
    if store is None:
        store = stack.enter_context(open_cache(path, sha256))
    row = add_song(store, path, sha256, output.command_line())
    prepare_song(store, row, None if writer is None else writer.tokenizer)
    return Session(store=store, row=row, path=path, source=path, writer=writer)


def _open_store(
    place: Path | str, song: str | None, words: Words, load: WriterLoader, stack: ExitStack
) -> Session:
    from mgen.core.editing.cache import require
    from mgen.core.store import Store

    store = stack.enter_context(Store.open(place, "r" if words.list_takes else "a"))
    row = _pick(store, song)
    writer = None
    if not words.history:
        writer = load(store) if words.strength > 0 else None
        require(store, row, None if writer is None else writer.tokenizer)
    return Session(
        store=store, row=row, path=words.source or Path(row.source), source=words.source,
        writer=writer,
    )  # fmt: skip


def _pick(store: Store, song: str | None) -> SongRow:
    kept = [row for row in store.songs() if row.kept]
    if song is None:
        if len(kept) != 1:
            some = ", ".join(row.name for row in kept[:4]) + (", ..." if len(kept) > 4 else "")
            there = f"{len(kept)} songs ({some}); say which with --song" if kept else "no song"
            raise UsageError(f"{store.where}: holds {there}")
        return kept[0]
    row = store.song(song)
    if not row.kept:
        raise InputError(f"{store.where}: '{row.name}' has no sound: {row.reason}")
    return row


def prepare_song(store: Store, row: SongRow, tokenizer: Tokenizer | None) -> None:
    """Make the bars and latents of a song where they are missing, showing what is being done."""
    from mgen.core.editing.cache import prepare, require

    with output.progress(None, "prepare", "step") as bar:
        for step in prepare(store, row, tokenizer, output.command_line()):
            bar.set_postfix_str(step)
            bar.update()
    require(store, row, tokenizer)


def make_request(session: Session, words: Words, stack: ExitStack) -> EditRequest:
    """What was typed as a request: bars counted in this song, clips opened.

    Raises
    ------
    UsageError
        If there are no such bars.
    """
    from mgen.core.editing.pipeline import song_bars
    from mgen.core.editing.request import EditRequest
    from mgen.core.editing.spans import every_bar, parse_action, parse_bars
    from mgen.core.store import Takes

    on = 0
    if words.on is not None:
        on = Takes(session.store).head(session.row) if words.on == "head" else int(words.on)
    bars: tuple[int, ...] = ()
    if words.bars is not None:
        bars = parse_bars(words.bars, song_bars(session.store, session.row, on))
    elif words.every is not None:
        first = 1 if words.first is None else words.first
        bars = every_bar(words.every, first, song_bars(session.store, session.row, on))
    clip = None
    if words.like is not None and session.writer is not None:
        clip = _clip(words.like, session, session.writer, stack)
    return EditRequest(
        bars=bars, append=words.append, strength=words.strength, depth=words.depth,
        action=() if words.action is None else parse_action(words.action), like=clip,
        guidance=words.guidance, seed=words.seed, takes=words.takes, on=on,
    )  # fmt: skip


def _clip(text: str, session: Session, writer: BarWriter, stack: ExitStack) -> Clip:
    """The bars of `other.wav:5-8`; their song is read, segmented and tokenized where it is not."""
    from mgen.core.audio import sha256_file
    from mgen.core.editing.cache import add_song, cache_path, open_cache
    from mgen.core.editing.request import Clip
    from mgen.core.editing.spans import parse_bars, parse_like
    from mgen.core.store.files import local_path

    path, wanted = parse_like(text)
    if not path.is_file():
        raise InputNotFoundError(f"--like {path}: not found; name a song's file")
    sha256 = sha256_file(path)
    store, here = session.store, local_path(session.store.location)
    if sha256 != session.row.sha256 and (
        here is None or cache_path(path, sha256) != here.absolute()
    ):  # a store is opened once
        store = stack.enter_context(open_cache(path, sha256))
    row = session.row
    if sha256 != session.row.sha256:
        row = add_song(store, path, sha256, output.command_line())
        prepare_song(store, row, writer.tokenizer)
    table = store.bars(row.index)
    return Clip.of(store, row, parse_bars(wanted, len(table)))
