"""`mgen actions`: the action of every bar, and the palette of what actions there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.edit_session import prepare_song
from mgen.cli.info import Kind, kind_of
from mgen.cli.options import (
    Device,
    DeviceOption,
    DynamicsOption,
    ForceOption,
    JsonOption,
    LamOption,
    ResumeOption,
    StoreArgument,
    resolve_stores,
)

if TYPE_CHECKING:
    from mgen.core.lam.palette import Palette, PaletteRow


def actions(
    store: StoreArgument = None,
    lam: LamOption = None,
    palette: Annotated[
        Path | None,
        typer.Option(help="A palette's folder. [the model's own]", show_default=False),
    ] = None,
    curate: Annotated[
        str | None,
        typer.Option(help="Actions of the palette to keep: 3,17,40-45.", metavar="IDS"),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="Choose so many actions by use and diversity, of all there are.", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the new palette goes.", metavar="PALETTE"),
    ] = None,
    audition: Annotated[
        Path | None,
        typer.Option(help="Write a page to hear every action on the same bars.", metavar="DIR"),
    ] = None,
    contexts: Annotated[
        int, typer.Option(help="Of the page: places in the songs to try them on.", min=1, max=20)
    ] = 3,
    dynamics: DynamicsOption = None,
    device: DeviceOption = Device.auto,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Label every bar with its action, list the palette, and make a page to hear it.

    Each row has its number, a name, how many bars of this store have it, their share, and bars
    that show it best (song:bar). Names are measured, from how bars with the action differ from
    the song's other bars (codes: from the bar before). With --curate or --count a new palette is
    written, numbered from 0; the old one stays as it is. With --audition every action is tried
    on the same few bars, as `mgen edit` would: index.html in DIR plays and shows them. In place of
    a store a song's file can be named; its store is then the one that `mgen edit` keeps beside it.

    [bold]Examples[/bold]

      mgen actions jazz.zarr

      mgen actions jazz.zarr --curate 3,17,40-45 -o my-palette

      mgen actions jazz.zarr --palette my-palette --json

      mgen actions song.flac --audition sheet
    """
    from mgen.core.errors import UsageError

    if (curate is not None or count is not None) != (out is not None):
        raise UsageError("a new palette takes --curate IDS or --count N, and -o PALETTE")
    if curate is not None and count is not None:
        raise UsageError("--curate and --count both choose; give one of them")
    stores = resolve_stores(store)
    if out is not None and len(stores) > 1:
        raise UsageError(f"{len(stores)} stores were named; a new palette is made from one")
    if audition is not None and len(stores) > 1:
        raise UsageError(f"{len(stores)} stores were named; an audition is of one")
    stores = [_prepared(path, lam, device.value) for path in stores]
    every = [
        _actions(path, lam, palette, curate, count, out, device.value, resume, force)
        for path in stores
    ]
    if audition is not None:
        named = (lam, dynamics, out or palette)
        page = _audition(stores[0], audition.expanduser(), named, contexts, device.value, force)
        every[0]["audition"] = str(page)
    output.result(stores, {"stores": every}, as_json)


def _actions(
    path: Path | str, given: Path | None, named: Path | None, curate: str | None,
    count: int | None, out: Path | None, device: str, resume: bool, force: bool,
) -> dict[str, Any]:  # fmt: skip
    from mgen.core.devices import choose_device
    from mgen.core.lam.palette import curate as curated
    from mgen.core.lam.palette import save_palette
    from mgen.core.lam.passes import STAGE, current_lam, current_palette, label_songs
    from mgen.core.lam.survey import find_palette, health, row_facts, survey
    from mgen.core.store import Store

    with Store.open(path, "a") as store:
        model, folder = current_lam(store, given, str(choose_device(device)))
        done = 0
        with output.progress(len(store.songs()), "actions", "song") as bar:
            for report in label_songs(
                store, model, resume=resume, force=force, command=output.command_line()
            ):
                bar.update()
                done += report.status == "done"
        store.link_model(STAGE, model.id, given or store.model_path(STAGE))
        found = survey([store], model)
        palette = current_palette(model, folder, named)
        if count is not None:
            palette = find_palette(model, found, count)
        elif curate is not None:
            palette = curated(palette, _ids(curate))
        if out is not None:
            save_palette(palette, out.expanduser(), force=force)
        rows = row_facts(model, palette, found)
        names = {song.id: song.name for song in store.songs()}
    figures = health(model, found)
    _show(palette, rows, names)
    output.say(
        f"{path}: {done} songs labelled by {model.id[:12]}, {len(found)} bars; palette"
        f" {palette.id[:12]} of {len(palette)} actions{f', written to {out}' if out else ''};"
        f" utilisation {figures['utilisation']:.2f}, perplexity {figures['perplexity']:.1f}, song"
        f" information {figures['song_information']:.2f}"
    )
    return {
        "path": str(path), "lam": model.id, "palette": palette.id, "done": done,
        "bars": len(found), **figures,
        "actions": [{"action": i, **row.to_json()} for i, row in enumerate(rows)],
    }  # fmt: skip


def _prepared(path: Path | str, lam: Path | None, device: str) -> Path | str:
    """The store itself, or that of a song's file, with its bars and latents."""
    if kind_of(path) is not Kind.song:
        return path
    from mgen.core.audio import sha256_file
    from mgen.core.devices import choose_device
    from mgen.core.editing.cache import add_song, cache_path, open_cache
    from mgen.core.lam.passes import current_lam
    from mgen.core.tokenizer.passes import current_tokenizer

    song = Path(path)
    sha256 = sha256_file(song)
    device = str(choose_device(device))
    tokenizer, _ = current_tokenizer(None, None, device)
    current_lam(None, lam, device)  # where there is none, nothing is made
    with open_cache(song, sha256) as store:
        row = add_song(store, song, sha256, output.command_line())
        prepare_song(store, row, tokenizer)
    return cache_path(song, sha256)


def _audition(
    path: Path | str, folder: Path, named: tuple[Path | None, Path | None, Path | None],
    contexts: int, device: str, force: bool,
) -> Path:  # fmt: skip
    from mgen.core.devices import choose_device
    from mgen.core.editing.audition import PAGE, Described, contexts_of, write_sheet
    from mgen.core.editing.writer import load_model_writer
    from mgen.core.store import Store

    lam, dynamics, palette = named
    with Store.open(path) as store:
        writer = load_model_writer(
            store, lam=lam, dynamics=dynamics, palette=palette, device=str(choose_device(device))
        )
        chosen = contexts_of(store, contexts)
        described = [Described(name=row.name) for row in writer.palette.rows]
        total = len(chosen) * (len(described) + 1)
        with output.progress(total, "audition", "sound") as bar:
            for step in write_sheet(store, writer, chosen, described, folder, force=force):
                bar.set_postfix_str(step)
                bar.update()
    output.say(f"open {folder / PAGE} in a browser")
    return folder / PAGE


def _ids(text: str) -> list[int]:
    """`3,17,40-45` -> the numbers."""
    from mgen.core.errors import UsageError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--curate '{text}': '{part}' is no number or range; as in 3,17,40-45")
        found += range(int(first), int(last or first) + 1)
    return found


def _show(palette: Palette, rows: list[PaletteRow], names: Mapping[str, str]) -> None:
    from rich.table import Table

    kind = "a bar" if palette.bottleneck == "style" else "the step to a bar"
    table = Table(title=f"actions of {kind}", title_justify="left", box=None)
    for name in ("id", "name", "uses", "share", "bars that show it"):
        table.add_column(name, justify="right" if name in ("id", "uses", "share") else "left")
    for i, row in enumerate(rows):
        shown = "  ".join(f"{names.get(e.song, e.song)}:{e.bar}" for e in row.exemplars)
        table.add_row(str(i), row.name, str(row.uses), f"{row.share:.1%}", shown)
    output.console().print(table, markup=False)
