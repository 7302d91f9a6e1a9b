"""`mgen edit`: chosen bars of a recording are written anew by an action; the rest stays."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgen.cli import output
from mgen.cli.edit_report import draw, line, print_list, print_reports
from mgen.cli.edit_session import Session, Words, make_request, open_session
from mgen.cli.options import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    SeedOption,
    TokenizerOption,
    resolve_store,
)

if TYPE_CHECKING:
    from mgen.core.editing.files import EditReport, Target
    from mgen.core.editing.request import BarWriter, EditRequest
    from mgen.core.store import Store

_WHERE, _WHAT, _TAKES, _FILE, _MODELS = "Which bars", "What happens", "Takes", "Files", "Models"


def edit(
    song_or_store: Annotated[
        str | None,
        typer.Argument(
            metavar="[SONG|STORE]",
            help="A song, or a store that holds it. Else: a pipe, MGEN_STORE, ./mgen.zarr.",
            show_default=False,
        ),
    ] = None,
    bars: Annotated[
        str | None,
        typer.Option(help="8-12, 3 or 1-4,9: from 1, both ends included.", rich_help_panel=_WHERE),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(help="Every so many bars, from --first on.", rich_help_panel=_WHERE),
    ] = None,
    first: Annotated[
        int | None, typer.Option(help="Where --every begins. [1]", rich_help_panel=_WHERE)
    ] = None,
    append: Annotated[
        int, typer.Option(help="Bars to go on for past the end.", rich_help_panel=_WHERE)
    ] = 0,
    song: Annotated[
        str | None,
        typer.Option(help="Of a store with several: row, id or name.", rich_help_panel=_WHERE),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            help="17, or a mix: 17:0.6,42:0.4 (shares; `mgen actions` lists them).",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:BARS",
            help="The action of another clip: other.wav:5-8.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            help="0 (nothing changes) to 1, from the bars' own action to this one.",
            rich_help_panel=_WHAT,
        ),
    ] = 1.0,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Codes of a residual action, coarse to fine.", rich_help_panel=_WHAT, min=1
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How strictly to follow the action; else the model's own way.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    seed: SeedOption = 0,
    takes: Annotated[int, typer.Option(help="Candidates to make.", rich_help_panel=_TAKES)] = 1,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="N|head",
            help="Edit take N, or the current one, not the original.",
            rich_help_panel=_TAKES,
        ),
    ] = None,
    take: Annotated[
        int | None, typer.Option(help="Write take N's file again.", rich_help_panel=_TAKES)
    ] = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo", help="Go back to what the take was made on.", rich_help_panel=_TAKES
        ),
    ] = False,
    list_takes: Annotated[
        bool, typer.Option("--list", help="List the takes.", rich_help_panel=_TAKES)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file, or a folder. [SONG.edit-N.wav beside the song]",
            show_default=False,
            rich_help_panel=_FILE,
        ),
    ] = None,
    lossy: Annotated[
        bool,
        typer.Option(
            "--lossy",
            help="Allow an -o that cannot hold every sample (mp3, ogg).",
            rich_help_panel=_FILE,
        ),
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option(help="Where a stored song's file is now.", rich_help_panel=_FILE),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw before and after as a PNG.", rich_help_panel=_FILE)
    ] = None,
    tokenizer: TokenizerOption = None,
    lam: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="An action model.", rich_help_panel=_MODELS)
    ] = None,
    dynamics: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="A dynamics model.", rich_help_panel=_MODELS),
    ] = None,
    palette: Annotated[
        Path | None,
        typer.Option(
            help="Whose rows the actions are; else the action model's.", rich_help_panel=_MODELS
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write bars of a song anew by an action; every sample outside them stays as it is.

    Each edit is a take, kept in SONG.mgen.zarr beside the song (or in the store that was named),
    and starts from the original unless --on stacks it. The same edit again prints the same file.

    [bold]Examples[/bold]

      mgen edit song.flac --bars 8-12 --action 17

      mgen edit song.flac --every 4 --first 3 --action 17:0.6,42:0.4 --strength 0.5

      mgen edit song.flac --bars 5 --like other.wav:5-8 --takes 4 -o candidates/

      mgen edit song.flac --bars 20-24 --action 3 --on 1 --plot edit.png

      mgen edit song.flac --list

      mgen edit jazz.zarr --song "So What" --bars 9 --action 17
    """  # fmt: skip
    from mgen.core.editing.files import Target

    words = Words(
        bars=bars, every=every, first=first, append=append, action=action, like=like,
        strength=strength, depth=depth, guidance=guidance, seed=seed, takes=takes, on=on, take=take,
        undo=undo, list_takes=list_takes, source=source, plot=plot, force=force,
    )  # fmt: skip
    words.check()
    models = ModelPaths(
        tokenizer=tokenizer, lam=lam, dynamics=dynamics, palette=palette, device=device.value
    )
    with ExitStack() as stack:
        load = partial(load_writer, models=models)
        session = open_session(resolve_store(song_or_store), song, words, load, stack)
        target = Target(song=session.path, out=out, lossy=lossy)
        if words.list_takes:
            print_list(session, as_json)
        elif words.history:
            _restore(session, target, words, as_json)
        else:
            reports = _edit(session, make_request(session, words, stack), target, words)
            if plot is not None:
                draw(plot, session, reports[0])
            print_reports(session, reports, as_json)


@dataclass(frozen=True, kw_only=True)
class ModelPaths:
    """Which models were named, and where they compute."""

    tokenizer: Path | None
    lam: Path | None
    dynamics: Path | None
    palette: Path | None
    device: str


def load_writer(store: Store | None, models: ModelPaths) -> BarWriter:
    """The models that write bars: those that were named, the store's current ones, or the shipped.

    Raises
    ------
    InputNotFoundError, StoreError, InputError
        If one is missing, or they do not belong together.
    """
    from mgen.core.devices import choose_device
    from mgen.core.editing.writer import load_model_writer

    return load_model_writer(
        store, tokenizer=models.tokenizer, lam=models.lam, dynamics=models.dynamics,
        palette=models.palette, device=str(choose_device(models.device)),
    )  # fmt: skip


def _edit(session: Session, request: EditRequest, target: Target, words: Words) -> list[EditReport]:
    from mgen.core.editing.pipeline import edit_song

    reports: list[EditReport] = []
    with output.progress(None, "edit", "step") as bar:
        for step in edit_song(
            session.store, session.row, request, session.writer, target, source=session.source,
            force=words.force, command=output.command_line(),
        ):  # fmt: skip
            bar.update()
            if isinstance(step, str):
                bar.set_postfix_str(step)
            else:
                reports.append(step)
    for report in reports:
        output.say(line(report))
    return reports


def _restore(session: Session, target: Target, words: Words, as_json: bool) -> None:
    """--undo and --take."""
    from mgen.core.editing.files import EditReport, rewrite_take, undo

    made: EditReport | Path
    if words.undo:
        made = undo(session.store, session.row, target, source=session.source, force=words.force)
    else:
        assert words.take is not None
        made = rewrite_take(
            session.store, session.row, words.take, target, source=session.source,
            force=words.force,
        )  # fmt: skip
    if isinstance(made, EditReport):
        output.say(line(made))
        print_reports(session, [made], as_json)
    else:
        output.say("back at the original")
        output.result([made], {"store": session.store.where, "takes": []}, as_json)
