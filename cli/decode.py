"""`mgen decode`: latents -> sound, a file per song."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.options import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    SeedOption,
    StoreArgument,
    TokenizerOption,
    resolve_stores,
)
from mgen.core.errors import StoreError, UsageError

if TYPE_CHECKING:
    from mgen.core.store import SongRow, Store
    from mgen.core.tokenizer.decoding import DecodeReport


def decode(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write songs to.", metavar="DIR")
    ],
    store: StoreArgument = None,
    song: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this song: row, id or name. Give it once per song.", show_default=False
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Sampler steps. [the model's own]", show_default=False, min=1, max=1000),
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill", help="Put the song's own sound before its first and after its last bar."
        ),
    ] = False,
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn latents back into sound: DIR/NAME.wav for every song, every bar at its own length.

    What lies before a song's first bar and after its last one is not in the latents: it is left
    out, or filled with the song's own sound (--fill). The same seed gives the same sound, whichever
    other songs are decoded.

    [bold]Examples[/bold]

      mgen decode jazz.zarr -o out

      mgen decode jazz.zarr -o out --song waltz --steps 16 --fill

      mgen filter song.flac -o s.zarr | mgen segment-bars | mgen tokenize | mgen decode -o out
    """  # fmt: skip
    stores = resolve_stores(store)
    if len(stores) > 1:
        raise UsageError(
            f"{len(stores)} stores would be decoded to {out}; decode one after the other"
        )
    reports, model_id = _decode(stores[0], out.expanduser(), song or [], tokenizer, device.value,
                                {"steps": steps, "seed": seed, "fill": fill}, force)  # fmt: skip
    written = [r for r in reports if not r.reason]
    figures: dict[str, Any] = {
        "store": str(stores[0]), "tokenizer": model_id,
        "songs": [
            {"song": r.song, "name": r.name, "path": None if r.reason else str(r.path),
             "items": r.items, "seconds": round(r.seconds, 3), "reason": r.reason}
            for r in reports
        ],
    }  # fmt: skip
    output.result([r.path for r in written], figures, as_json)
    if len(written) < len(reports):
        raise typer.Exit(1)


def _decode(
    path: Path | str, out: Path, wanted: list[str], given: Path | None, device: str,
    how: dict[str, Any], force: bool,
) -> tuple[list[DecodeReport], str]:  # fmt: skip
    from mgen.core.devices import choose_device
    from mgen.core.store import Store
    from mgen.core.tokenizer.decoding import decode_songs, plan_decoding, require_latents
    from mgen.core.tokenizer.passes import current_tokenizer

    reports = []
    with Store.open(path) as store:
        plan = plan_decoding(store, _songs(store, wanted), out, force=force)
        model, _ = current_tokenizer(store, given, str(choose_device(device)))
        require_latents(store, model)
        with output.progress(len(plan), "decode", "song") as bar:
            for report in decode_songs(store, model, plan, **how):
                bar.update()
                reports.append(report)
                if report.reason:
                    output.warn(f"{path}: {report.name}: not decoded: {report.reason}")
                else:
                    output.say(
                        f"wrote {report.path} ({report.items} items, {report.seconds:.1f} s)"
                    )
    return reports, model.id


def _songs(store: Store, wanted: list[str]) -> list[SongRow]:
    if not wanted:
        kept = [song for song in store.songs() if song.kept]
        if not kept:
            raise StoreError(f"{store.where}: holds no songs that were kept; nothing to decode")
        return kept
    chosen = {song.index: song for song in (store.song(_row_or_name(w)) for w in wanted)}
    for song in chosen.values():
        if not song.kept:
            raise StoreError(f"{store.where}: song '{song.name}' has no sound: {song.reason}")
    return list(chosen.values())


def _row_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
