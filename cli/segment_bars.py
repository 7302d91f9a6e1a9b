"""`mgen segment-bars`: songs -> beats, downbeats, tempo, bars."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.options import (
    Compile,
    CompileOption,
    Device,
    DeviceOption,
    ForceOption,
    JobsOption,
    JsonOption,
    ResumeOption,
    SeedOption,
    StoreArgument,
    resolve_stores,
)
from mgen.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mgen.core.corpus import BarReport, ExportReport, Segmentation


class Tracker(StrEnum):
    """Who finds the beats."""

    mgen = "mgen"
    beat_this = "beat-this"
    librosa = "librosa"


class Export(StrEnum):
    """What a person checks beats with."""

    beats = "beats"
    audacity = "audacity"
    click = "click"


class Stretcher(StrEnum):
    """Who warps the bars."""

    signalsmith = "signalsmith"
    rubberband = "rubberband"


# what says how beats and bars are made; without any of them --export takes those that are there
_MAKING = (
    "tracker", "beat_model", "beats", "bpm", "offset", "jitter", "stretcher", "seed", "resume",
)  # fmt: skip


def segment_bars(
    ctx: typer.Context,
    store: StoreArgument = None,
    tracker: Annotated[Tracker, typer.Option(help="Finds the beats; `mgen` ships.")] = Tracker.mgen,
    beat_model: Annotated[
        Path | None, typer.Option(help="A Beat This! checkpoint, for --tracker beat-this.")
    ] = None,
    beats: Annotated[
        Path | None,
        typer.Option(
            help="Your own beats: .beats/TSV, CSV, JSON or Audacity labels; for several songs a"
            " folder with a file per song."
        ),
    ] = None,
    bpm: Annotated[float | None, typer.Option(help="A fixed grid of this tempo, in 4/4.")] = None,
    offset: Annotated[
        float, typer.Option(help="The fixed grid's first downbeat, in seconds.")
    ] = 0.0,
    jitter: Annotated[
        int, typer.Option(help="Copies of each bar with moved edges, for training.", min=0, max=127)
    ] = 0,
    stretcher: Annotated[
        Stretcher, typer.Option(help="Warps the bars; rubberband is an extra.")
    ] = Stretcher.signalsmith,
    export: Annotated[
        list[Export] | None,
        typer.Option(
            help="Write each song's beats to check and correct: `beats` (NAME.beats: seconds, place"
            " in the bar), `audacity` (NAME.txt: labels `bar.beat`), `click` (NAME.click.wav: the"
            " song, 16 kHz, with clicks; downbeats higher). Give it once per kind."
        ),
    ] = None,
    export_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where exports go. Else: STORE-beats beside the store.", show_default=False
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    compile: CompileOption = Compile.auto,
    jobs: JobsOption = 0,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find beats and bars of every song in a store, and warp each bar to 2.048 s.

    Songs that have their bars are not done again. Bars made with other settings, or of songs that
    have changed since, are only replaced with --force. With --export and no word on how beats are
    to be made, songs that have theirs stay as they are, and --force replaces exported files only.

    [bold]Examples[/bold]

      mgen segment-bars jazz.zarr

      mgen filter song.flac -o s.zarr | mgen segment-bars --bpm 128 --offset 0.35

      mgen segment-bars jazz.zarr --tracker librosa --force

      mgen segment-bars jazz.zarr --export audacity --export click

      mgen segment-bars jazz.zarr --beats jazz-beats --force   (takes corrections back)
    """
    from mgen.core.corpus import Segmentation

    how = Segmentation(
        tracker=tracker.value, beat_model=beat_model, beats_path=beats, bpm=bpm, offset_s=offset,
        jitter=jitter, stretcher=stretcher.value, seed=seed, device=device.value,
        compile=compile.value,
    )  # fmt: skip
    how.check()
    done: list[Path | str] = []
    reports: list[BarReport] = []
    exported: list[ExportReport] = []
    stores = resolve_stores(store)
    folders = _export_folders(stores, export, export_dir)
    told = any(_is_typed(ctx, name) for name in _MAKING)
    for path, folder in zip(stores, folders, strict=True):
        if export and _plan(path, export, folder, force) and not told:
            reports += _known(path)
        else:
            reports += _segment(path, how, jobs, resume, force)
        if export:
            exported += _export(path, export, folder, force)
        done.append(path)
    counts = Counter(report.status for report in reports)
    failed = [r for r in reports if r.status == "failed"]
    figures: dict[str, Any] = {
        "done": counts["done"], "known": counts["known"],
        "failed": [{"song": r.name, "reason": r.reason} for r in failed],
        "bars": sum(r.bars for r in reports), "valid": sum(r.valid for r in reports),
        "songs": [
            {"song": r.song, "name": r.name, "status": r.status, "beats": r.beats, "bars": r.bars,
             "valid": r.valid, "bpm": round(r.bpm, 3), "confidence": round(r.confidence, 3)}
            for r in reports
        ],
    }  # fmt: skip
    if export:
        figures["exports"] = [
            {"song": r.song, "name": r.name, "kind": r.kind, "path": str(r.path)} for r in exported
        ]
    output.result(done, figures, as_json)
    if failed:
        raise typer.Exit(1)


def _segment(
    path: Path | str, how: Segmentation, jobs: int, resume: bool, force: bool
) -> list[BarReport]:
    from mgen.core.corpus import segment_songs
    from mgen.core.parallel import cores, make_executor
    from mgen.core.store import Store

    reports: list[BarReport] = []
    with Store.open(path, "a") as store:
        kept = sum(song.kept for song in store.songs())
        with (
            make_executor(max(1, min(jobs or cores(), kept))) as executor,
            output.progress(len(store.songs()), "segment-bars", "song") as bar,
        ):
            for report in segment_songs(
                store, how, executor=executor, resume=resume, force=force,
                command=output.command_line(),
            ):  # fmt: skip
                bar.update()
                reports.append(report)
                if report.status == "failed":
                    output.warn(f"{path}: {report.name}: {report.reason}")
    counts = Counter(report.status for report in reports)
    bars, valid = sum(r.bars for r in reports), sum(r.valid for r in reports)
    output.say(
        f"{path}: {counts['done']} songs segmented, {counts['known']} known;"
        f" {bars} bars, {valid} fit to learn from"
    )
    return reports


# exports


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _export_folders(
    stores: Sequence[Path | str], kinds: Sequence[Export] | None, given: Path | None
) -> list[Path]:
    """Where the exports of each store go; two never share a folder."""
    from mgen.core.corpus import exports_folder

    if given is not None and not kinds:
        raise UsageError("--export-dir says where exports go; say with --export what to write")
    folders = [given.expanduser() if given else exports_folder(store) for store in stores]
    if kinds and len(set(folders)) < len(folders):
        raise UsageError(
            f"{len(stores)} stores would be exported to {folders[0]}; export one after the other"
        )
    return folders


def _plan(path: Path | str, kinds: Sequence[Export], folder: Path, force: bool) -> bool:
    """Refuse what is in the way before hours of work; says whether the store has its bars."""
    from mgen.core.corpus import is_segmented, plan_exports
    from mgen.core.store import Store

    with Store.open(path) as store:
        plan_exports(store, [kind.value for kind in kinds], folder, force=force)
        return is_segmented(store)


def _known(path: Path | str) -> list[BarReport]:
    from mgen.core.corpus import known_songs
    from mgen.core.store import Store

    with Store.open(path) as store:
        made = store.need("beats").state.provenance
        output.say(f"{path}: beats as they are (made by `{made.command or 'the library'}`)")
        return list(known_songs(store))


def _export(
    path: Path | str, kinds: Sequence[Export], folder: Path, force: bool
) -> list[ExportReport]:
    from mgen.core.corpus import export_songs
    from mgen.core.store import Store

    reports: list[ExportReport] = []
    with Store.open(path) as store:
        total = len(kinds) * sum(song.kept for song in store.songs())
        with output.progress(total, "export", "file") as bar:
            for report in export_songs(store, [k.value for k in kinds], folder, force=force):
                bar.update()
                output.say(f"wrote {report.path}")
                reports.append(report)
    return reports
