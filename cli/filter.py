"""`mgen filter`: audio files and folders -> a store."""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.options import (
    DEFAULT_STORE,
    ForceOption,
    JobsOption,
    JsonOption,
    ResumeOption,
    place,
)
from mgen.core.errors import InputError, InputNotFoundError, OutputExistsError

if TYPE_CHECKING:
    from mgen.core.corpus import SongReport


class Keep(StrEnum):
    """What is kept of a song that is good in parts."""

    songs = "songs"
    clips = "clips"


def filter_songs(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Audio files, and folders of them.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="The store to write or to add to.", metavar="PATH")
    ] = str(DEFAULT_STORE),
    threshold: Annotated[
        float, typer.Option(help="Least quality to keep, 0 to 1; 0 keeps all and still judges.")
    ] = 0.55,
    keep: Annotated[
        Keep, typer.Option(help="Whole songs, by their mean; or their stretches that are good.")
    ] = Keep.songs,
    min_clip: Annotated[float, typer.Option(help="Shortest clip to keep, in seconds.")] = 30.0,
    model: Annotated[
        Path | None,
        typer.Option(help="A judge made by train-filter. [the shipped one]", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page: songs best to worst, curves, spectrograms (HTML)."),
    ] = None,
    jobs: JobsOption = 0,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read songs into a store: 16 kHz mono, those that are fit to learn from.

    A judge gives every five seconds a probability of good quality; it is smoothed over time, and a
    song is kept where the mean reaches the threshold. Every song's score stays in the store.
    Songs are added to a store that exists; content that it holds is skipped, whatever the file is
    called. What is unreadable, silent, shorter than a second or cut short is refused with its
    reason, and does not stop the others (exit code 1).

    [bold]Examples[/bold]

      mgen filter song.flac

      mgen filter ~/music -o jazz.zarr --report jazz.html

      mgen filter ~/old-tapes -o tapes.zarr --keep clips --min-clip 20

      mgen filter ~/music -o jazz.zarr --jobs 4 | mgen segment-bars
    """
    from mgen.core.corpus import filter_songs as run
    from mgen.core.corpus import list_songs, write_report
    from mgen.core.parallel import cores, make_executor
    from mgen.core.quality import Screening, shipped_judge
    from mgen.core.store import Store

    how = Screening(
        model=(model or shipped_judge()).expanduser().absolute(), threshold=threshold,
        keep=keep.value, min_clip_s=min_clip,
    )  # fmt: skip
    _check_report(report, force)
    paths, reports = list_songs(inputs)
    for one in reports:
        output.warn(f"{one.source}: {one.reason}")
    if not paths:
        raise InputError(
            f"nothing to read in {' '.join(str(p) for p in inputs)}; name audio files or folders"
        )
    with (
        Store.open_or_create(place(out)) as store,
        make_executor(min(jobs or cores(), len(paths))) as executor,
        output.progress(len(paths), "filter", "song") as bar,
    ):
        for one in run(
            store, paths, how=how, executor=executor, resume=resume, force=force,
            command=output.command_line(),
        ):  # fmt: skip
            bar.update()
            reports.append(one)
            if one.status == "poor":
                output.say(f"{one.source}: {one.reason}")
            elif one.reason:
                output.warn(f"{one.source}: {one.reason}")
        kept = sum(song.kept for song in store.songs())
        if report is not None:
            write_report(store, report, threshold=threshold)
            output.say(f"wrote {report}")
    figures = _figures(reports, kept)
    output.say(
        f"{out}: {figures['added']} songs added, {figures['known']} known,"
        f" {figures['poor']} not good enough, {figures['failed']} refused; {kept} in all"
    )
    if not kept:
        cure = "; --threshold 0 keeps all that can be read" if figures["poor"] else ""
        raise InputError(f"{out}: none of the inputs could be kept; the reasons are above{cure}")
    output.result([out], figures, as_json)
    if figures["failed"]:
        raise typer.Exit(1)


def _check_report(report: Path | None, force: bool) -> None:
    if report is None:
        return
    if report.exists() and not force:
        raise OutputExistsError(f"{report}: exists; give another name, or remove it first")
    if not report.absolute().parent.is_dir():
        raise InputNotFoundError(f"{report.parent}: no such folder; make it first")


def _figures(reports: list[SongReport], kept: int) -> dict[str, Any]:
    counts = Counter(one.status for one in reports)
    return {
        "added": counts["added"], "known": counts["known"], "poor": counts["poor"],
        "failed": counts["rejected"] + counts["failed"], "kept": kept,
        "minutes": round(sum(r.duration_s for r in reports if r.status == "added") / 60, 3),
        "refused": [
            {"path": r.source, "reason": r.reason}
            for r in reports if r.status in ("poor", "rejected", "failed")
        ],
        "songs": [
            {"song": r.song, "path": r.source, "status": r.status, "name": r.name,
             "seconds": round(r.duration_s, 3), "clips": r.clips,
             "quality": None if math.isnan(r.quality) else round(r.quality, 4)}
            for r in reports if r.song is not None
        ],
    }  # fmt: skip
