"""`mgen tokenize`: bars (or plain sound) -> latents."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgen.cli import output
from mgen.cli.options import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    ResumeOption,
    StoreArgument,
    TokenizerOption,
    resolve_stores,
)

if TYPE_CHECKING:
    from mgen.core.store import SongReport


def tokenize(
    store: StoreArgument = None,
    tokenizer: TokenizerOption = None,
    device: DeviceOption = Device.auto,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn every bar of a store into latents, one array row per bar.

    Jittered copies and bars not fit to learn from get theirs too, so that row i of the latents is
    bar i. Tokenizers of plain seconds cut the songs end to end. Songs that have their latents are
    not done again; those of other tokenizers stay. The tokenizer becomes the store's current one.

    [bold]Examples[/bold]

      mgen tokenize jazz.zarr

      mgen tokenize jazz.zarr --tokenizer my-tokenizer

      mgen filter song.flac -o s.zarr | mgen segment-bars | mgen tokenize | mgen decode -o out
    """
    done: list[Path | str] = []
    every: list[dict[str, Any]] = []
    for path in resolve_stores(store):
        every.append(_tokenize(path, tokenizer, device.value, resume, force))
        done.append(path)
    output.result(done, {"stores": every}, as_json)


def _tokenize(
    path: Path | str, given: Path | None, device: str, resume: bool, force: bool
) -> dict[str, Any]:
    from mgen.core.devices import choose_device
    from mgen.core.store import Store, link_current
    from mgen.core.tokenizer.passes import (
        STAGE,
        current_tokenizer,
        latents_id,
        model_facts,
        tokenize_songs,
    )

    reports: list[SongReport] = []
    with Store.open(path, "a") as store:
        model, folder = current_tokenizer(store, given, str(choose_device(device)))
        with output.progress(len(store.songs()), "tokenize", "song") as bar:
            for report in tokenize_songs(
                store, model, resume=resume, force=force, command=output.command_line()
            ):
                bar.update()
                reports.append(report)
        link_current(store, STAGE, model.id, folder)
    counts, items = Counter(r.status for r in reports), sum(r.items for r in reports)
    unit = "bars" if model.config.unit == "bar" else "items"
    output.say(
        f"{path}: {counts['done']} songs tokenized, {counts['known']} known; {items} {unit} of"
        f" {model.config.tokens} x {model.config.dims} by {latents_id(model)}"
    )
    return {
        "path": str(path), "tokenizer": model.id, **model_facts(model.config),
        "done": counts["done"], "known": counts["known"], "items": items,
        "songs": [
            {"song": r.song, "name": r.name, "status": r.status, "items": r.items} for r in reports
        ],
    }  # fmt: skip
