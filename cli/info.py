"""`mgen info`: what is in a store, a map, or a song."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgen.cli.options import ForceOption, JsonOption, resolve_stores
from mgen.cli.output import say
from mgen.core.errors import (
    InputError,
    InputNotFoundError,
    MapError,
    OutputExistsError,
    StoreError,
    UsageError,
)

if TYPE_CHECKING:
    from mgen.core.store import Store


class Kind(enum.Enum):
    """What a path holds."""

    store = "store"
    map = "map"
    song = "song"
    model = "model"


def kind_of(place: Path | str) -> Kind:
    """Tell a store, a map (zip, or folder with Info.dat), a song and a model's folder apart.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if isinstance(place, str):  # a URL
        return Kind.store
    path = place
    if path.suffix == ".zarr" or (path / "zarr.json").exists():
        return Kind.store
    if path.is_dir():
        if any(p.name.lower() == "info.dat" for p in path.iterdir()):
            return Kind.map
        if (path / "config.json").is_file():
            return Kind.model
        raise InputError(
            f"{path}: neither a store (*.zarr) nor a map (Info.dat in it) nor a model (config.json)"
        )
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return Kind.map
    from mgen.core.audio import AUDIO_SUFFIXES

    if path.suffix.lower() in AUDIO_SUFFIXES:
        return Kind.song
    raise InputError(f"{path}: neither a store (*.zarr), a map (zip) nor a song; name another")


def info(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]",
            help="A store, a map (zip or folder), a song or a model's folder; `-` reads stdin."
            " Else: a piped stdin, MGEN_STORE, ./mgen.zarr.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Songs of a store to list; 0 lists all.", min=0)] = 100,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw a PNG: bars over a spectrogram, or a map's notes over the sound."),
    ] = None,
    song: Annotated[
        str | None, typer.Option(help="The song of a store to draw: row, id or name. [the first]")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is in a store, a beat map, a song (its tempo and bars), or a model.

    [bold]Examples[/bold]

      mgen info jazz.zarr

      mgen info song.zip --json

      mgen info song.flac --plot bars.png

      mgen info my-lam

      mgen filter song.flac -o s.zarr | mgen segment-bars | mgen info
    """
    paths = resolve_stores(path)
    if plot is not None:
        _check_plot(plot, paths, force)
    for one in paths:
        kind = kind_of(one)
        describe = {
            Kind.store: _store, Kind.map: _map, Kind.song: _song, Kind.model: _model,
        }[kind]  # fmt: skip
        about = {"path": str(one), "kind": kind.value, **describe(one, limit)}
        if as_json:
            print(json.dumps(about, ensure_ascii=False, allow_nan=False))
        else:
            _print(about)
        if plot is not None:
            if kind not in _DRAW:
                raise UsageError(f"{one}: a model, and --plot draws stores, songs and maps")
            _DRAW[kind](one, plot, song)
            say(f"drew {plot}")
    sys.stdout.flush()


def _check_plot(plot: Path, paths: Sequence[Path | str], force: bool) -> None:
    if len(paths) > 1:
        raise UsageError(f"--plot draws one picture, but {len(paths)} paths were given; name one")
    if plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: pictures are PNG files; name one that ends in .png")
    if plot.exists() and not force:
        raise OutputExistsError(f"{plot}: exists; give --force to replace it")
    if not plot.absolute().parent.is_dir():
        raise InputNotFoundError(f"{plot.parent}: no such folder; make it first")


def _store(path: Path | str, limit: int) -> dict[str, Any]:
    from mgen.core.store import FORMAT_VERSION, Store

    with Store.open(path) as store:
        songs = store.songs()
        layers: dict[str, Any] = {}
        for name in store.layers():
            layer = store.layer(name)
            if layer is not None:
                layers[name] = {
                    **layer.state.length, "facts": dict(layer.spec.facts),
                    "settings": dict(layer.state.provenance.settings),
                    "model": layer.state.provenance.model,
                    "command": layer.state.provenance.command,
                    "hash": layer.state.hash, "stale": store.stale(name),
                }  # fmt: skip
        rows = songs[:limit] if limit else songs
        return {
            "format": FORMAT_VERSION,
            "songs": len(songs), "kept": sum(s.kept for s in songs),
            "minutes": round(sum(s.duration_s for s in songs) / 60, 3),
            "models": dict(store.models),
            "model_paths": {
                stage: str(store.model_path(stage) or "") for stage in store.models
            },
            "layers": layers,
            "maps": [
                {"map": n, "song": m.song, "difficulty": m.difficulty, "seed": m.seed,
                 "notes": len(m.notes)}
                for n, m in ((n, store.map(n)) for n in store.maps())
            ],
            "rows": _song_rows(store, [s.index for s in rows]),
        }  # fmt: skip


def _song_rows(store: Store, indices: Iterable[int]) -> list[dict[str, Any]]:
    import numpy as np

    beats, bars = store.layer("beats"), store.layer("bars")
    rows = []
    for song in (store.song(i) for i in indices):
        row: dict[str, Any] = {
            "song": song.index, "id": song.id, "name": song.name, "source": song.source,
            "seconds": round(song.duration_s, 3), "kept": song.kept, "reason": song.reason,
            "quality": None if math.isnan(song.quality) else round(song.quality, 4),
        }  # fmt: skip
        if song.kept and beats is not None and song.index < beats.length():
            row["beats"] = len(store.beats(song.index))
        if song.kept and bars is not None and song.index < bars.length():
            table = store.bars(song.index)
            row |= {"bars": len(table), "valid": int(table.valid.sum())}
            if len(table):
                row["bpm"] = round(float(np.median(table.bpm)), 2)
                row["confidence"] = round(float(table.confidence.mean()), 3)
            row["reason"] = store.segment_reason(song.index)
        rows.append(row)
    return rows


def _map(path: Path | str, limit: int) -> dict[str, Any]:
    from mgen.core.beatmap.formats import read_map

    beat_map = read_map(path)
    seconds = beat_map.song_samples / beat_map.song_rate if beat_map.song_samples else 0.0
    rows = []
    for chart in beat_map.charts:
        to_seconds = chart.time_map(beat_map.bpm).to_seconds
        times = sorted(to_seconds(n.beat) for n in chart.notes)
        span = times[-1] - times[0] if times else 0.0
        rows.append({
            "difficulty": chart.difficulty.value, "characteristic": chart.characteristic,
            "notes": len(chart.notes), "bombs": len(chart.bombs), "walls": len(chart.walls),
            "lights": len(chart.lights), "njs": chart.njs, "offset": round(chart.njs_offset, 3),
            "nps": round(len(times) / span, 2) if span > 0 else 0.0,
        })  # fmt: skip
    return {
        "title": beat_map.title, "artist": beat_map.artist, "mapper": beat_map.mapper,
        "bpm": round(beat_map.bpm, 3), "seconds": round(seconds, 3), "version": beat_map.version,
        "rows": rows,
    }  # fmt: skip


def _song(path: Path | str, limit: int) -> dict[str, Any]:
    from mgen.core.audio import probe, read_tags
    from mgen.core.corpus import segment_file

    header, tags = probe(path), read_tags(path)
    song = segment_file(path)
    return {
        "title": tags.title, "artist": tags.artist, "format": header.format,
        "rate": header.rate, "channels": header.channels, "seconds": round(song.duration_s, 3),
        "bpm": round(song.bpm, 3), "confidence": round(song.confidence, 3),
        "beats": len(song.beats),
        "rows": [
            {"bar": i + 1, "start_s": round(float(g.start_s[i]), 3),
             "end_s": round(float(g.end_s[i]), 3), "beats": int(g.beats[i]),
             "bpm": round(float(g.bpm[i]), 2), "valid": bool(g.valid[i])}
            for g in (song.grid,) for i in range(len(g))
        ],
    }  # fmt: skip


def _model(path: Path | str, limit: int) -> dict[str, Any]:
    from mgen.core.checkpoint import summarise

    found = summarise(Path(path))
    palette = Path(path) / "palette"
    about: dict[str, Any] = {
        "model": found.kind, "id": found.id, "weights": found.weights,
        "megabytes": round(found.bytes / 1e6, 2), "config": found.config, "rows": [],
    }  # fmt: skip
    actions = found.config.get("rows", []) if found.kind == "palette" else []
    if palette.is_dir():
        inside = summarise(palette)
        about["palette"], actions = inside.id, inside.config["rows"]
    if actions:
        about["actions"] = len(actions)
    shown = actions[:limit] if limit else actions
    about["rows"] = [
        {"action": i, "name": row["name"], "uses": row["uses"], "share": row["share"]}
        for i, row in enumerate(shown)
    ]
    return about


# pictures


def _draw_store(path: Path | str, plot: Path, song: str | None) -> None:
    from mgen.core.pictures import draw_bars
    from mgen.core.store import RATE, Store

    with Store.open(path) as store:
        wanted: int | str = 0 if song is None else int(song) if song.isdecimal() else song
        row = store.song(wanted)
        if not row.kept:
            raise StoreError(f"{path}: song '{row.name}' has no sound: {row.reason}")
        pcm = store.song_pcm(row.index)
        draw_bars(plot, pcm.floats(), RATE, store.bars(row.index), title=row.name)


def _draw_song(path: Path | str, plot: Path, song: str | None) -> None:
    from mgen.core.audio import read_mono
    from mgen.core.corpus import segment_file
    from mgen.core.pictures import draw_bars
    from mgen.core.store import RATE

    draw_bars(plot, read_mono(path, RATE), RATE, segment_file(path).grid, title=Path(path).stem)


def _draw_map(path: Path | str, plot: Path, song: str | None) -> None:
    import io

    import soundfile

    from mgen.core.beatmap.formats import read_map
    from mgen.core.pictures import draw_map

    beat_map = read_map(path)
    if not beat_map.song:
        raise MapError(f"{path}: holds no song, so there is no sound to draw the notes over")
    try:
        samples, rate = soundfile.read(io.BytesIO(beat_map.song), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MapError(f"{path}: {beat_map.song_filename} cannot be read as audio") from error
    draw_map(plot, samples.mean(axis=1), rate, beat_map)


_DRAW = {Kind.store: _draw_store, Kind.song: _draw_song, Kind.map: _draw_map}


# what a person reads

_HIDDEN = {
    "path", "rows", "layers", "source", "reason", "maps", "models", "model_paths", "config",
}  # fmt: skip


def _print(about: dict[str, Any]) -> None:
    """Tables on stdout: they are the result. Plain text where it is not a terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=True, width=None if terminal else 400)
    facts = ", ".join(
        f"{name} {value}"
        for name, value in about.items()
        if name not in _HIDDEN | {"kind"} and value not in ("", {}, None)
    )
    console.print(f"{about['path']}: {about['kind']}; {facts}", markup=False)
    for stage, model in about.get("models", {}).items():
        place = about["model_paths"][stage] or "shipped with mgen"
        console.print(f"current {stage}: {model[:12]} ({place})", markup=False)
    for name, value in about.get("config", {}).get(about.get("model"), {}).items():
        console.print(f"{name}: {_flat(value)}", markup=False)
    if about.get("layers"):
        rows = [
            {"layer": name, "length": _lengths(layer), "settings": _settings(layer),
             "state": (layer["stale"] and f"STALE: {layer['stale']}") or "current"}
            for name, layer in about["layers"].items()
        ]  # fmt: skip
        console.print(_table(rows, terminal))
    if about.get("maps"):
        console.print(_table(about["maps"], terminal))
    if about["rows"]:
        shown = [{**row, "remark": row.get("reason", "")} for row in about["rows"]]
        if not any(row["remark"] for row in shown):
            shown = about["rows"]
        console.print(_table(shown, terminal))
    left = about.get("songs", 0) - len(about["rows"])
    if about["kind"] == Kind.store.value and left > 0:
        console.print(f"and {left} songs more; --limit 0 lists all")


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _lengths(layer: dict[str, Any]) -> str:
    return ", ".join(f"{n} {axis}" for axis, n in layer.items() if isinstance(n, int) and n)


def _settings(layer: dict[str, Any]) -> str:
    said = {**layer["facts"], **layer["settings"]}
    return ", ".join(f"{name} {value}" for name, value in said.items())


def _table(rows: Sequence[dict[str, Any]], terminal: bool) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(n for row in rows for n in row if n not in _HIDDEN))
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for name in names:
        number = all(isinstance(row.get(name, 0), (int, float)) for row in rows)
        table.add_column(
            name, justify="right" if number else "left", no_wrap=not terminal, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in names))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and value >= 1000 else str(value)
