"""`mgen beatmap`: a song -> a zip that the game loads."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.map_report import report
from mgen.cli.options import ForceOption, JsonOption, SeedOption, place, resolve_stores
from mgen.core.errors import InputError, InputNotFoundError, MgenError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mgen.core.beatmap.chart import Difficulty
    from mgen.core.beatmap.generate import ChartRequest
    from mgen.core.beatmap.mapping import Mapped, Source
    from mgen.core.store import Store

NAMES = ("easy", "normal", "hard", "expert", "expert-plus", "all")
STEPS = 6
AI_NOTICE = (
    "made by a program: on BeatSaver's upload form tick 'Beat Sage or another AI mapping tool'"
)


@dataclass(frozen=True)
class _Job:
    """One song, where its zip goes, and the store that keeps its notes."""

    source: Source
    path: Path
    store: Store | None = None
    song: int = -1


def beatmap(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SONG...|STORE]",
            help="Songs, folders of them, or a store. Else: a pipe, MGEN_STORE, ./mgen.zarr.",
            show_default=False,
        ),
    ] = None,
    difficulty: Annotated[
        list[str] | None,
        typer.Option(
            "--difficulty",
            "-d",
            metavar="NAME",
            show_default="all",
            help="easy, normal, hard, expert, expert-plus or all; repeatable.",
            autocompletion=lambda: list(NAMES),
        ),
    ] = None,
    rating: Annotated[
        float | None, typer.Option(help="How hard within the difficulty, 0-10.", min=0, max=10)
    ] = None,
    nps: Annotated[
        float | None, typer.Option(help="Notes per second to aim at.", min=0.1, max=20)
    ] = None,
    njs: Annotated[float | None, typer.Option(help="Note jump speed.", min=3, max=23)] = None,
    walls: Annotated[bool, typer.Option("--walls/--no-walls", help="Place walls.")] = True,
    bombs: Annotated[bool, typer.Option("--bombs", help="Place bombs.")] = False,
    bpm: Annotated[float | None, typer.Option(help="The tempo, where you know it.")] = None,
    offset: Annotated[
        float | None, typer.Option(help="Second of a downbeat in the song, where you know it.")
    ] = None,
    seed: SeedOption = 0,
    keep: Annotated[
        Path | None,
        typer.Option(help="A map to keep, except for what lies between --from and --to."),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Remap from here, e.g. 0:48.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Remap to here, in the map's time.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The zip; a folder for several songs. [SONG.zip]"),
    ] = None,
    format: Annotated[str, typer.Option(help="Of the difficulty files: v3 or v2.")] = "v3",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Map songs for Beat Saber: charts, lights, cover and padded audio in one zip per song.

    Tempo and offset are fitted to the song and printed with a confidence; where that is low, give
    --bpm and --offset. From a store, its beats are used and the notes are kept in it as well.

    [bold]Examples[/bold]

      mgen beatmap song.ogg

      mgen beatmap song.mp3 --difficulty expert-plus --nps 7 --bombs

      mgen beatmap song.ogg --difficulty hard -d expert --bpm 128 --offset 0.35 -o maps/song.zip

      mgen beatmap --keep song.zip --from 0:48 --to 1:02 --seed 2 -o song2.zip

      mgen filter song.flac -o s.zarr | mgen segment-bars | mgen beatmap
    """
    from mgen.core.beatmap.formats import FORMATS
    from mgen.core.beatmap.generate import ChartRequest
    from mgen.core.beatmap.mapping import check_tempo

    if format not in FORMATS:
        raise UsageError(f"no map format is called '{format}'; choose {' or '.join(FORMATS)}")
    check_tempo(bpm)
    wanted = _difficulties(difficulty)
    request = ChartRequest(
        difficulty=wanted[0], rating=rating, nps=nps, njs=njs, walls=walls, bombs=bombs, seed=seed
    )
    requests = [replace(request, difficulty=d) for d in wanted]
    if keep is not None:
        span = _span(inputs, from_, to, bpm, offset)
        mine = requests if difficulty else None
        _remap(keep, span, request, mine, out, format, force, as_json)
        return
    if from_ is not None or to is not None:
        raise UsageError("--from and --to need --keep MAP: the map whose other parts stay")
    with ExitStack() as stack:
        jobs, refused = _jobs(inputs, out, force, stack)
        made: list[dict[str, Any]] = []
        with output.progress(len(jobs) * STEPS, "beatmap", "step") as bar:
            for job in jobs:
                try:
                    made.append(_map(job, requests, bpm, offset, format, force, bar))
                except (MgenError, OSError) as error:
                    if len(jobs) + len(refused) == 1:
                        raise
                    refused.append({"song": str(job.source.path), "reason": str(error)})
    for entry in refused:
        output.warn(entry["reason"])
    if made:
        output.say(AI_NOTICE)
    output.result([m["path"] for m in made], {"maps": made, "failed": refused}, as_json)
    if refused:
        raise typer.Exit(1)


def _difficulties(names: list[str] | None) -> list[Difficulty]:
    from mgen.core.beatmap.chart import Difficulty

    if not names or any(n.strip().lower() == "all" for n in names):
        return list(Difficulty)
    asked = {Difficulty.parse(name) for name in names}
    return [d for d in Difficulty if d in asked]


def _jobs(
    inputs: list[str] | None, out: Path | None, force: bool, stack: ExitStack
) -> tuple[list[_Job], list[dict[str, str]]]:
    """All songs with the place of their zip; every place is checked before any work is done."""
    from mgen.core.beatmap.formats import check_output

    if not inputs or inputs == ["-"]:
        paths = resolve_stores(inputs[0] if inputs else None)
    else:
        paths = [place(text) for text in inputs]
    jobs: list[_Job] = []
    refused: list[dict[str, str]] = []
    several = len(paths) > 1
    for path in paths:
        try:
            jobs += _expand(path, stack)
        except MgenError as error:
            if not several:
                raise
            refused.append({"song": str(path), "reason": str(error)})
    if not jobs:
        reason = refused[0]["reason"] if refused else "there is no song to map; name some"
        raise InputError(reason)
    jobs = _placed(jobs, out)
    for job in jobs:
        check_output(job.path, force=force)
    return jobs, refused


def _expand(path: Path | str, stack: ExitStack) -> Iterator[_Job]:
    from mgen.core.audio import find_audio
    from mgen.core.beatmap.mapping import Source

    if isinstance(path, str) or path.suffix == ".zarr" or (path / "zarr.json").is_file():
        yield from _stored(path, stack)
        return
    if not path.exists():
        raise InputNotFoundError(f"{path}: not found; check the path")
    found = find_audio([path])
    if not found:
        raise InputError(f"{path}: no audio file in this folder; name a song or another folder")
    for song in found:
        yield _Job(Source(song), Path())


def _stored(path: Path | str, stack: ExitStack) -> Iterator[_Job]:
    from mgen.core.beatmap.mapping import Source
    from mgen.core.store import Store

    store = stack.enter_context(Store.open(path, "a"))
    if store.layer("beats") is not None and (why := store.stale("beats")):
        output.warn(f"{path}: {why}: the tempo is fitted anew")
    for row in store.songs():
        if row.kept:
            source = Source(Path(row.source), start_s=row.start_s)
            yield _Job(source, Path(), store, row.index)


def _loaded(job: _Job) -> Source:
    """The job's source; a stored song with its samples and beats, if its file is still the same."""
    from mgen.core.audio import probe, sha256_file
    from mgen.core.beats import Beats
    from mgen.core.store import RATE

    if job.store is None:
        return job.source
    store, row = job.store, job.store.song(job.song)
    source = job.source.path
    if not source.is_file() or sha256_file(source) != row.sha256:
        raise InputError(
            f"{source}: gone, or changed since {store.where} was made; restore it,"
            " or name the song's file instead of the store"
        )
    layer = store.layer("beats")
    beats = None
    if layer is not None and row.index < layer.length() and not store.stale("beats"):
        kept = store.beats(row.index)
        if len(kept) > 1:
            beats = Beats(kept.time_s - row.start_s, kept.beat_in_bar, kept.confidence)
    length_s = probe(source).duration_s
    whole = row.start_s == 0 and (length_s is None or length_s - row.duration_s < 0.1)
    return replace(
        job.source, samples_N=store.song_pcm(row.index).floats(), rate=RATE, beats=beats,
        duration_s=None if whole else row.duration_s,
    )  # fmt: skip


def _placed(jobs: list[_Job], out: Path | None) -> list[_Job]:
    if out is not None and len(jobs) > 1:
        if out.suffix.lower() == ".zip":
            raise UsageError(f"{len(jobs)} songs do not fit one zip: name a folder with -o")
        out.mkdir(parents=True, exist_ok=True)
    placed: list[_Job] = []
    taken: dict[Path, Path] = {}
    for job in jobs:
        source = job.source.path
        name = f"{source.stem}.zip" if job.source.start_s == 0 else f"{source.stem}-{job.song}.zip"
        if out is None:
            path = source.with_name(name)
        else:
            path = out / name if out.is_dir() else out
        if path in taken:
            raise UsageError(f"{taken[path]} and {source} would both become {path}; rename one")
        taken[path] = source
        placed.append(replace(job, path=path))
    return placed


def _map(
    job: _Job, requests: list[ChartRequest], bpm: float | None, offset: float | None,
    format: str, force: bool, bar: Any,
) -> dict[str, Any]:  # fmt: skip
    from mgen.core.beatmap.formats import write_map
    from mgen.core.beatmap.mapping import map_song

    steps = map_song(_loaded(job), requests, bpm=bpm, offset_s=offset, seed=requests[0].seed)
    mapped = _run(steps, bar)
    write_map(job.path, mapped.beat_map, version=format, force=force)
    if job.store is not None:
        _keep_notes(job.store, job.song, mapped, requests)
    return report(job.path, mapped, str(job.source.path))


def _run(steps: Iterator[str | Mapped], bar: Any) -> Mapped:
    for step in steps:
        if not isinstance(step, str):
            return step
        bar.set_postfix_str(step)
        bar.update()
    raise AssertionError("the last step is the map")


def _keep_notes(store: Store, song: int, mapped: Mapped, requests: list[ChartRequest]) -> None:
    from mgen.core.store import Provenance

    settings = {
        "bpm": mapped.timing.bpm, "offset_s": mapped.timing.offset_s,
        "lead_beats": mapped.lead.beats, "rating": requests[0].rating, "nps": requests[0].nps,
        "njs": requests[0].njs, "walls": requests[0].walls, "bombs": requests[0].bombs,
    }  # fmt: skip
    provenance = Provenance(command=output.command_line(), settings=settings)
    for chart in mapped.beat_map.charts:
        notes = [(n.beat, n.column, n.row, n.colour, n.direction) for n in chart.notes]
        store.add_map(
            song, chart.difficulty.value, requests[0].seed, "rules", notes, provenance
        )  # fmt: skip


def _remap(
    keep: Path, span: tuple[float, float], request: ChartRequest,
    requests: list[ChartRequest] | None, out: Path | None, format: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    from mgen.core.beatmap.formats import check_output, read_map, write_map
    from mgen.core.beatmap.mapping import Remap, map_part

    path = keep if out is None else out / keep.name if out.is_dir() else out
    old = read_map(keep)
    check_output(path, force=force)
    if requests is None:
        standard = [c for c in old.charts if c.characteristic == "Standard"]
        requests = [replace(request, difficulty=c.difficulty) for c in standard]
    if not requests:
        raise UsageError(f"{keep}: holds no standard difficulty to remap")
    with output.progress(STEPS, "beatmap", "step") as bar:
        mapped = _run(map_part(Remap(old, *span), requests, seed=request.seed), bar)
    write_map(path, mapped.beat_map, version=format, force=force)
    made = report(path, mapped, str(keep))
    output.say(AI_NOTICE)
    output.result([path], {"maps": [made], "failed": []}, as_json)


def _span(
    inputs: list[str] | None, from_: str | None, to: str | None, bpm: float | None,
    offset: float | None,
) -> tuple[float, float]:  # fmt: skip
    if from_ is None or to is None:
        raise UsageError("--keep needs --from and --to: the part to map again, e.g. 0:48 and 1:02")
    if bpm is not None or offset is not None:
        raise UsageError("--keep keeps the map's tempo: leave --bpm and --offset out")
    if inputs and len(inputs) > 1:
        raise UsageError("--keep remaps one map: name one song, or none")
    return _seconds(from_), _seconds(to)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text.strip())
    if match is None:
        raise UsageError(f"'{text}' is no time; write 48, 0:48 or 1:02.5")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds
