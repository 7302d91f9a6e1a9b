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

if TYPE_CHECKING:
    from mgen.core.corpus import BarReport, Segmentation


class Tracker(StrEnum):
    """Who finds the beats."""

    mgen = "mgen"
    beat_this = "beat-this"
    librosa = "librosa"


class Stretcher(StrEnum):
    """Who warps the bars."""

    signalsmith = "signalsmith"
    rubberband = "rubberband"


def segment_bars(
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
    have changed since, are only replaced with --force.

    [bold]Examples[/bold]

      mgen segment-bars jazz.zarr

      mgen filter song.flac -o s.zarr | mgen segment-bars --bpm 128 --offset 0.35

      mgen segment-bars jazz.zarr --tracker librosa --force
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
    for path in resolve_stores(store):
        reports += _segment(path, how, jobs, resume, force)
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
