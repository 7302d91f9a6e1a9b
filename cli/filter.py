"""`mgen filter`: audio files and folders -> a store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

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
from mgen.core.errors import InputError


def filter_songs(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Audio files, and folders of them.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="The store to write or to add to.", metavar="PATH")
    ] = str(DEFAULT_STORE),
    threshold: Annotated[
        float,
        typer.Option(
            help="Least quality to keep. This version has no judge yet: only 0, which keeps all."
        ),
    ] = 0.0,
    jobs: JobsOption = 0,
    resume: ResumeOption = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read songs into a store: 16 kHz mono, with the reason for each that is refused.

    Songs are added to a store that exists; content that it holds is skipped, whatever the file is
    called. What is unreadable, silent, shorter than a second or cut short is refused, and does
    not stop the others (exit code 1).

    [bold]Examples[/bold]

      mgen filter song.flac

      mgen filter ~/music -o jazz.zarr

      mgen filter ~/music -o jazz.zarr --jobs 4 | mgen segment-bars
    """
    from mgen.core.corpus import filter_songs as run
    from mgen.core.corpus import list_songs
    from mgen.core.parallel import cores, make_executor
    from mgen.core.store import Store

    paths, reports = list_songs(inputs)
    for report in reports:
        output.warn(f"{report.source}: {report.reason}")
    if not paths:
        raise InputError(
            f"nothing to read in {' '.join(str(p) for p in inputs)}; name audio files or folders"
        )
    with (
        Store.open_or_create(place(out)) as store,
        make_executor(min(jobs or cores(), len(paths))) as executor,
        output.progress(len(paths), "filter", "song") as bar,
    ):
        for report in run(
            store, paths, executor=executor, threshold=threshold, resume=resume, force=force,
            command=output.command_line(),
        ):  # fmt: skip
            bar.update()
            reports.append(report)
            if report.reason:
                output.warn(f"{report.source}: {report.reason}")
        kept = sum(song.kept for song in store.songs())
    counts = Counter(report.status for report in reports)
    refused = [r for r in reports if r.status in ("rejected", "failed")]
    output.say(
        f"{out}: {counts['added']} songs added, {counts['known']} known,"
        f" {len(refused)} refused; {kept} in all"
    )
    if not kept:
        raise InputError(f"{out}: none of the inputs could be kept; the reasons are above")
    figures = {
        "added": counts["added"], "known": counts["known"], "kept": kept,
        "minutes": round(sum(r.duration_s for r in reports if r.status == "added") / 60, 3),
        "refused": [{"path": r.source, "reason": r.reason} for r in refused],
        "songs": [
            {"song": r.song, "path": r.source, "status": r.status, "name": r.name,
             "seconds": round(r.duration_s, 3)}
            for r in reports if r.song is not None
        ],
    }  # fmt: skip
    output.result([out], figures, as_json)
    if refused:
        raise typer.Exit(1)
