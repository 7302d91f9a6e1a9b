"""A sheet to choose actions by ear: every action of a palette on the same few bars.

A folder with a page and its sounds (MP3, which browsers play); nothing is fetched from elsewhere.
A sound's name holds a hash of all that decides it, so that the same call goes on where it was
interrupted, and one with another model makes its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from mgen.core.audio import Audio, read_audio, write_audio
from mgen.core.checkpoint import write_atomically
from mgen.core.corpus.files import check_output_folder
from mgen.core.corpus.report import thumbnail
from mgen.core.editing.pipeline import SOUND_VERSION, preview
from mgen.core.editing.request import BarWriter, EditRequest
from mgen.core.editing.spans import Share, describe_bars
from mgen.core.errors import OutputExistsError, UsageError
from mgen.core.store import RATE, SongRow, Store

PAGE, SOUNDS = "index.html", "sounds"
BARS = 2
"""That are edited of each context."""
AROUND_S = 2.0

_MOST_RATE = 48_000
_WIDTH, _FRAME = 240, 512
_MARK = "<!-- mgen audition -->"

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
h1 { font-size: 1.3rem } td, th { padding: .35rem .6rem; text-align: left; vertical-align: top;
 border-top: 1px solid #ddd } th.id { font-size: 1.2rem; text-align: right }
p, small { color: #555 } img { display: block; height: 60px; width: 240px }
audio { width: 240px; height: 32px; display: block } tr.original { background: #f4f6f8 }
thead th { position: sticky; top: 0; background: #fff }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Bars of a song that actions are tried on, from 0."""

    song: SongRow
    bars: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What stands beside an action: its name, and figures worth a line."""

    name: str
    detail: str = ""


def contexts_of(store: Store, count: int) -> list[Context]:
    """Bars to try actions on: spread over the songs that have some, and over each song.

    Raises
    ------
    UsageError
        If the store has no two valid bars that follow one another.
    """
    able = []
    for song in store.songs():
        table = store.bars(song.index)
        pairs = [
            i for i in range(len(table) - BARS + 1)
            if table.valid[i : i + BARS].all() and (np.diff(table.index[i : i + BARS]) == 1).all()
        ]  # fmt: skip
        if song.kept and pairs:
            able.append((song, pairs))
    if not able:
        raise UsageError(f"{store.where}: no song has {BARS} bars on end that can be edited")
    chosen = np.linspace(0, len(able) - 1, min(count, len(able))).round().astype(int).tolist()
    turns = [chosen.count(i) for i in range(len(able))]
    for extra in range(count - sum(turns)):
        turns[chosen[extra % len(chosen)]] += 1
    found = []
    for (song, pairs), n in zip(able, turns, strict=True):
        for k in range(n):
            first = pairs[round((k + 1) / (n + 1) * (len(pairs) - 1))]
            found.append(Context(song=song, bars=tuple(range(first, first + BARS))))
    return found


def write_sheet(
    store: Store, writer: BarWriter, contexts: Sequence[Context],
    actions: Sequence[Described], folder: Path, *, force: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Write the sheet; yields what is there after each sound.

    Parameters
    ----------
    store
        With the songs of the contexts, their bars and latents.
    writer
        The models.
    contexts
        What actions are tried on.
    actions
        The palette, row by row.
    folder
        Made if it is missing. Sounds of other sheets in it go.
    force
        Replaces a page that is no sheet.

    Raises
    ------
    OutputExistsError
        If another page is there, without `force`.
    UsageError
        If the folder is a file, or part of a store.
    """
    check_output_folder(folder, "--audition")
    page = folder / PAGE
    if page.is_file() and not force and _MARK not in page.read_text("utf-8", errors="replace"):
        raise OutputExistsError(f"{page}: exists and is no audition sheet; name another folder")
    sounds = folder / SOUNDS
    sounds.mkdir(parents=True, exist_ok=True)
    rows, kept = [], set()
    for action in (None, *range(len(actions))):
        cells = []
        for context in contexts:
            path = sounds / f"{_digest(store, writer, context, action)}.mp3"
            if not path.is_file():
                write_audio(path, _heard(store, writer, context, action))
            kept.add(path.name)
            cells.append(_cell(path))
            yield f"{'original' if action is None else action}, {context.song.name}"
        rows.append(_row(action, None if action is None else actions[action], cells))
    for old in sounds.glob("*.mp3"):
        if old.name not in kept:
            old.unlink()
    text = _page(contexts, rows, writer.model_ids)
    write_atomically(page, lambda part: _put(part, text))


def _put(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _digest(store: Store, writer: BarWriter, context: Context, action: int | None) -> str:
    table = store.bars(context.song.index)
    edges = [[float(table.start_s[b]), float(table.end_s[b])] for b in context.bars]
    asked = {
        "sound": SOUND_VERSION, "song": context.song.sha256, "edges": edges, "action": action,
        "models": {} if action is None else dict(writer.model_ids),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _heard(store: Store, writer: BarWriter, context: Context, action: int | None) -> Audio:
    request = EditRequest(
        bars=context.bars, action=() if action is None else (Share(action, 1.0),),
        strength=0.0 if action is None else 1.0,
    )  # fmt: skip
    sound = preview(store, context.song, request, writer, around_s=AROUND_S)
    samples_CN, rate = sound.samples_CN[:2], sound.rate
    if len(sound.samples_CN) > 2:
        samples_CN = sound.samples_CN.mean(0, keepdims=True)
    if rate > _MOST_RATE:
        samples_CN, rate = soxr.resample(samples_CN.T, rate, _MOST_RATE).T, _MOST_RATE
    return Audio(np.ascontiguousarray(samples_CN, np.float32), rate)


def _cell(path: Path) -> str:
    sound = read_audio(path)
    mono_N = soxr.resample(sound.mono(), sound.rate, RATE).astype(np.float32)
    picture = base64.b64encode(thumbnail([mono_N], frame=_FRAME, width=_WIDTH)).decode()
    return (
        f'<td><img src="data:image/png;base64,{picture}" alt="spectrogram">'
        f'<audio controls preload="none" src="{SOUNDS}/{path.name}"></audio></td>'
    )


def _row(action: int | None, about: Described | None, cells: Sequence[str]) -> str:
    if about is None:
        head = '<tr class="original"><th class="id"></th><th>as it is</th>'
    else:
        detail = f"<br><small>{html.escape(about.detail)}</small>" if about.detail else ""
        head = f'<tr><th class="id">{action}</th><th>{html.escape(about.name)}{detail}</th>'
    return f"{head}{''.join(cells)}</tr>\n"


def _page(contexts: Sequence[Context], rows: Sequence[str], models: Mapping[str, str]) -> str:
    heads = "".join(
        f"<th>{html.escape(c.song.name)}<br><small>bars {describe_bars(c.bars)}</small></th>"
        for c in contexts
    )
    made = ", ".join(f"{stage} {model[:12]}" for stage, model in models.items())
    return (
        f'<!doctype html>\n{_MARK}\n<html lang="en"><meta charset="utf-8">'
        f"<title>actions</title><style>{_STYLE}</style>\n<h1>{len(rows) - 1} actions</h1>\n"
        f"<p>Each on the same bars, with {AROUND_S:g} s of the song before and after them. Use one"
        " with <code>mgen edit SONG --bars 5-8 --action ID</code>. Made by"
        f" {html.escape(made)}.</p>\n<table><thead><tr><th></th><th></th>{heads}</tr></thead>\n"
        f"{''.join(rows)}</table></html>\n"
    )
