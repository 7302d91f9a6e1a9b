"""`mgen check`: what is wrong with a store, a map or a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mgen.cli import output
from mgen.cli.info import Kind, kind_of
from mgen.cli.options import JsonOption, resolve_stores

_PathArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]",
        help="A store, a map (zip or folder) or a model's folder; `-` reads stdin. Else: a piped"
        " stdin, MGEN_STORE, ./mgen.zarr.",
        show_default=False,
    ),
]


def check(
    path: _PathArgument = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all data of a store, not only what describes it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a store, a beat map or a model; exit code 1 where something is.

    A store: lengths, offsets, missing chunks, hashes, stale layers; --deep decompresses every
    byte and compares it with the digest of its song. A map: our findings, named as MapCheck does. A
    model: whether its files are those that were written.

    [bold]Examples[/bold]

      mgen check jazz.zarr --deep

      mgen check song.zip

      mgen filter song.flac -o s.zarr | mgen check
    """
    findings: list[dict[str, Any]] = []
    paths = resolve_stores(path)
    for one in paths:
        kind = kind_of(one)
        if kind is Kind.map:
            found = _check_map(one)
        elif kind is Kind.model:
            found = _check_model(Path(one))
        else:
            found = _check_store(one, deep)
        findings += found
        if not found:
            output.say(f"{one}: nothing wrong")
    if as_json:
        print(json.dumps({"paths": [str(p) for p in paths], "findings": findings},
                         ensure_ascii=False))  # fmt: skip
    else:
        for finding in findings:
            print(finding["text"])
    sys.stdout.flush()
    if any(finding["severity"] == "error" for finding in findings):
        raise typer.Exit(1)


def _check_store(path: Path | str, deep: bool) -> list[dict[str, Any]]:
    from mgen.core.store import Store
    from mgen.core.store import check as check_store

    with Store.open(path) as store:
        return [
            {"path": str(path), "layer": f.layer, "severity": "error", "message": f.message,
             "text": f"{path}: {f}"}
            for f in check_store(store, deep=deep)
        ]  # fmt: skip


def _check_model(path: Path) -> list[dict[str, Any]]:
    from mgen.core.checkpoint import summarise
    from mgen.core.errors import InputError

    try:
        for folder in (path, path / "palette"):
            if folder == path or folder.is_dir():
                summarise(folder)
    except InputError as error:
        return [{"path": str(path), "severity": "error", "message": str(error),
                 "text": str(error)}]  # fmt: skip
    return []


def _check_map(path: Path | str) -> list[dict[str, Any]]:
    from mgen.core.beatmap.findings import check_map
    from mgen.core.beatmap.formats import read_map

    found = []
    for f in check_map(read_map(path)):
        place = f.difficulty + ("" if f.beat is None else f" beat {f.beat:g} ({f.time_s:.2f} s)")
        found.append(
            {"path": str(path), "difficulty": f.difficulty, "rule": f.rule,
             "severity": f.severity, "beat": f.beat, "time_s": f.time_s, "message": f.message,
             "text": ": ".join(x for x in (str(path), f.severity, place, f.rule, f.message) if x)}
        )  # fmt: skip
    return found
