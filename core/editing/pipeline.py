"""An edit from beginning to end: bars are written, made to fit the recording, kept as takes.

A take is decided by its request alone: the song, the bars, the action, the models, the seed, the
candidate. One that is there is not made again. A process that is killed at any moment leaves the
store and the files as they were, or with whole takes more.

Letters: B bars, L tokens, D dims, N samples, C channels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.audio import Audio
from mgen.core.bars import bar_samples
from mgen.core.editing.base import Base, patched
from mgen.core.editing.files import EditReport, Target, write_take
from mgen.core.editing.places import Place, place_bars, require_valid, with_appended
from mgen.core.editing.render import RenderedSpan, render_span
from mgen.core.editing.request import BarWriter, EditRequest, WriteRequest, WrittenBars
from mgen.core.editing.source import SourceFile, as_floats, find_source
from mgen.core.editing.spans import describe_bars
from mgen.core.editing.writing import Patch
from mgen.core.errors import InputError, UsageError
from mgen.core.store import BarTable, Provenance, SongRow, Store, StoredTake, Takes

SOUND_VERSION = 3
"""Of all that turns written bars into samples; a higher one makes takes anew."""

_HELD_S = 300.0  # of sound that is in memory at once; where spans are near it is counted twice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """One edit: where it goes, on what, and what is known before any bar is written."""

    store: Store
    song: SongRow
    request: EditRequest
    base: Base
    bars: BarTable
    edited: tuple[int, ...]
    spans: Sequence[tuple[Place, ...]]
    line: Sequence[StoredTake]
    model_ids: Mapping[str, str]


def edit_song(
    store: Store, song: SongRow, request: EditRequest, writer: BarWriter | None, target: Target,
    *, source: Path | None = None, force: bool = False, command: str = "",
) -> Iterator[str | EditReport]:  # fmt: skip
    """Edit bars of a song, and write the file of each candidate.

    Parameters
    ----------
    store
        Open for appending, with the song's bars (and the latents that the writer needs).
    writer
        The models; None is enough where `request.strength` is 0.
    target
        Where the files go.
    source
        The song's file, where it is no more where the store says.
    force
        Edits bars that are not valid, too, and replaces files.

    Yields
    ------
    str or EditReport
        What is being done, before it is; a report for each candidate.

    Raises
    ------
    UsageError
        If bars, actions or takes do not exist, or options exclude each other.
    InputError
        If the song has no bars, or its file is gone or changed.
    OutputExistsError
        If a file is in the way, without `force`.
    """
    request.check(None if writer is None else writer.actions)
    if writer is None and request.strength > 0:
        raise ValueError("bars cannot be written without a writer")
    takes = Takes(store)
    line = takes.line(request.on, song)
    bars, edited = _bars(store, song, request, line)
    if not force:
        require_valid(bars, edited)
    path = find_source(store, song, source)
    with SourceFile(path) as opened:
        target.check(opened, request.takes, force=force)
        job = _Job(
            store=store, song=song, request=request, base=Base(opened, line), bars=bars,
            edited=edited, line=line, spans=place_bars(bars, song, edited, opened.encoding.rate),
            model_ids={} if writer is None or request.strength == 0 else dict(writer.model_ids),
        )  # fmt: skip
        for candidate in range(1, request.takes + 1):
            yield from _candidate(job, takes, writer, target, candidate, force, command)


def preview(
    store: Store, song: SongRow, request: EditRequest, writer: BarWriter, *, around_s: float = 2.0,
    source: Path | None = None,
) -> Audio:  # fmt: skip
    """An edit of the original that is heard and not kept: its bars, and seconds around them.

    Parameters
    ----------
    store, song, request, writer, source
        As for `edit_song`; the first candidate is made, of bars that follow one another.
    around_s
        How much of the song is heard before and after them.

    Raises
    ------
    UsageError, InputError
        As `edit_song`.
    """
    request.check(writer.actions)
    bars, edited = _bars(store, song, request, ())
    require_valid(bars, edited)
    with SourceFile(find_source(store, song, source)) as opened:
        rate = opened.encoding.rate
        job = _Job(
            store=store, song=song, request=request, base=Base(opened), bars=bars, edited=edited,
            line=(), spans=place_bars(bars, song, edited, rate), model_ids={},
        )  # fmt: skip
        if request.strength == 0:
            rendered = _unchanged(job)
        else:
            written = writer.write(_write_request(job, 1))
            written.check(len(edited))
            rendered = _rendered(job, written)
        patches = [r.patch for r in rendered]
        context = round(around_s * rate)
        heard = Base(opened)
        heard.patches = patched((), patches)
        (native_NC,) = heard.read(
            [(max(0, patches[0].first - context), patches[-1].last + context)]
        )
        return Audio(as_floats(native_NC, opened.encoding).astype(np.float32).T, rate)


def _candidate(
    job: _Job, takes: Takes, writer: BarWriter | None, target: Target, candidate: int, force: bool,
    command: str,
) -> Iterator[str | EditReport]:  # fmt: skip
    asked = _settings(job, candidate)
    known = takes.with_request(_digest(asked), job.song)
    if known is not None:
        line = takes.line(known.number, job.song)
        report = write_take(Base(job.base.source, line), job.store, known, target, force=force)
        takes.move_head(job.song, known.number)
        yield report
        return
    target.refuse_to_replace(force=force)
    number = target.free_number(takes.free_number(), job.base.source)
    take, rendered = yield from _made(job, writer, candidate, number, asked)
    provenance = Provenance(command=command)
    report = write_take(
        Base(job.base.source, [*job.line, take]), job.store, take, target, force=force,
        keep=lambda: takes.add(take, provenance), seams_LU=[r.seams_LU for r in rendered],
    )  # fmt: skip
    takes.move_head(job.song, number)
    yield report


def _made(
    job: _Job, writer: BarWriter | None, candidate: int, number: int, asked: dict[str, Any]
) -> Generator[str, None, tuple[StoredTake, list[RenderedSpan]]]:
    """Write and render the bars of one candidate; returns the take and its spans."""
    request = job.request
    if request.strength == 0 or writer is None:
        rendered = _unchanged(job)
        z_BLD: npt.NDArray[np.float16] = np.zeros((len(job.edited), 0, 0), np.float16)
    else:
        what = describe_bars(job.edited)
        yield f"bars {what}" if request.takes == 1 else f"bars {what}, take {candidate}"
        written = writer.write(_write_request(job, candidate))
        written.check(len(job.edited))
        z_BLD = np.asarray(written.z_BLD, np.float16)
        yield "sound"
        rendered = _rendered(job, written)
    encoding = job.base.source.encoding
    take = StoredTake(
        number=number, parent=request.on, song=job.song.id, song_sha256=job.song.sha256,
        rate=encoding.rate, channels=encoding.channels, subtype=encoding.subtype,
        spans=tuple((r.patch.first, r.patch.last) for r in rendered),
        crossfade=max(r.crossfade for r in rendered), bars=job.edited,
        action=tuple((share.action, share.weight) for share in request.action), settings=asked,
        palette=job.model_ids.get("palette", ""), strength=request.strength, seed=request.seed,
        candidate=candidate, models=job.model_ids, request=_digest(asked), z=z_BLD,
        pcm=np.concatenate([r.patch.pcm_NC for r in rendered]),
    )  # fmt: skip
    return take, rendered


def _bars(
    store: Store, song: SongRow, request: EditRequest, line: Sequence[StoredTake]
) -> tuple[BarTable, tuple[int, ...]]:
    """The song's bars with all that are or will be appended, and those that are edited."""
    own = store.bars(song.index)
    if not len(own):
        reason = store.segment_reason(song.index)
        raise InputError(f"{song.name}: has no bars{': ' + reason if reason else ''}")
    longest = max((bar + 1 for take in line for bar in take.bars), default=0)
    count = max(len(own), longest)
    if request.bars and request.bars[-1] >= count:
        raise UsageError(f"there is no bar {request.bars[-1] + 1}; the song has bars 1-{count}")
    total = count + request.append
    return with_appended(own, total - len(own)), (*request.bars, *range(count, total))


def song_bars(store: Store, song: SongRow, on: int = 0) -> int:
    """How many bars there are to edit: the song's own, and those that takes have appended."""
    line = Takes(store).line(on, song)
    own = len(store.bars(song.index))
    return max(own, max((bar + 1 for take in line for bar in take.bars), default=0))


# what decides a take


def _settings(job: _Job, candidate: int) -> dict[str, Any]:
    """Everything that decides the samples of a take, as JSON will give it back."""
    request = job.request
    asked: dict[str, Any] = {
        "sound": SOUND_VERSION, "song": job.song.sha256, "on": request.on,
        "bars": list(job.edited), "spans": [[s[0].first, s[-1].last] for s in job.spans],
        "strength": request.strength,
    }  # fmt: skip
    if request.strength > 0:
        asked |= {
            "append": request.append, "seed": request.seed, "candidate": candidate,
            "action": [[share.action, share.weight] for share in request.action],
            "depth": request.depth, "guidance": request.guidance, "models": dict(job.model_ids),
            "edges": [round(p.last) for span in job.spans for p in span],
        }  # fmt: skip
        if request.like is not None:
            clip = request.like
            edges_s = np.stack([clip.bars.start_s, clip.bars.end_s], axis=1).tolist()
            asked["like"] = {"song": clip.song.sha256, "bars_s": edges_s}
    found: dict[str, Any] = json.loads(json.dumps(asked))
    return found


def _digest(asked: Mapping[str, Any]) -> str:
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# bars -> spans


def _unchanged(job: _Job) -> list[RenderedSpan]:
    """The spans as they are, bit for bit."""
    wanted = [(span[0].first, span[-1].last) for span in job.spans]
    return [
        RenderedSpan(patch=Patch(first, pcm_NC), crossfade=0, seams_LU=(None, None))
        for (first, _), pcm_NC in zip(wanted, job.base.read(wanted), strict=True)
    ]


def _write_request(job: _Job, candidate: int) -> WriteRequest:
    request = job.request
    return WriteRequest(
        store=job.store, song=job.song, bars=job.bars, edited=np.array(job.edited, np.int64),
        written=_earlier(job), action=request.action, like=request.like, depth=request.depth,
        strength=request.strength, guidance=request.guidance, seed=request.seed, take=candidate,
    )  # fmt: skip


def _earlier(job: _Job) -> dict[int, npt.NDArray[np.float16]]:
    """Latents that earlier takes gave bars; of those that still lie where they lay."""
    rate = job.base.source.encoding.rate
    found: dict[int, npt.NDArray[np.float16]] = {}
    for take in job.line:
        for bar, z_LD in zip(take.bars, take.z, strict=True):
            start_s, end_s = float(job.bars.start_s[bar]), float(job.bars.end_s[bar])
            first, last = bar_samples(start_s, end_s, rate)
            inside = any(a <= first + 2 and last - 2 <= b for a, b in take.spans)
            if z_LD.size and inside:
                found[bar] = z_LD
    return found


def _rendered(job: _Job, written: WrittenBars) -> list[RenderedSpan]:
    """The written bars at their own lengths, span by span."""
    from mgen.core.editing.voice import heard_span  # torch: not for listing takes

    order = {bar: i for i, bar in enumerate(job.edited)}
    rendered = []
    rate = job.base.source.encoding.rate
    heard = [heard_span(span, rate) for span in job.spans]
    for first, last in _read_together(heard, round(_HELD_S * rate)):
        with job.base.holding(heard[first:last]):
            rendered += [
                _rendered_span(job, span, written, order) for span in job.spans[first:last]
            ]
    return rendered


def _read_together(heard: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Which spans (first, past the last) have the sound around in memory at once: of at most so
    many samples, or one span.
    """
    groups: list[tuple[int, int]] = []
    room = 0
    for number, (first, last) in enumerate(heard):
        if groups and last - first <= room:
            groups[-1] = (groups[-1][0], number + 1)
        else:
            groups.append((number, number + 1))
            room = most
        room -= last - first
    return groups


def _rendered_span(
    job: _Job, span: tuple[Place, ...], written: WrittenBars, order: Mapping[int, int]
) -> RenderedSpan:
    from mgen.core.editing.voice import composed_span, decoded_span

    at = [order[p.bar] for p in span]
    change = [float(written.change_LU[i]) for i in at]
    if written.levels is not None:
        levels = [written.levels[i] for i in at]
        sound = composed_span(job.base, span, levels, change)
    else:
        sound = decoded_span(span, _warped(job, written, span), _stretcher(job.store))
    return render_span(job.base, span, sound, change)


def _stretcher(store: Store) -> str:
    how = store.need("bars").state.provenance.settings
    return str(how.get("stretcher", "signalsmith"))


def _warped(
    job: _Job, written: WrittenBars, span: Sequence[Place]
) -> dict[int, npt.NDArray[np.float32]]:
    """Bars of a span as they were written, and those next to it as the store has them.

    A neighbour that an earlier take changed is left out.
    """
    sounds = written.pcm_BN
    if sounds is None:
        raise ValueError("a writer gave neither sound nor levels")
    found = dict(zip(job.edited, sounds, strict=True))
    changed = {bar for take in job.line for bar in take.bars}
    for bar in (span[0].bar - 1, span[-1].bar + 1):
        known = 0 <= bar < len(job.bars) and bar not in changed and job.bars.row[bar] >= 0
        if known and bar not in found:
            pcm_N = job.store.bar_pcm(int(job.bars.row[bar]))
            found[bar] = pcm_N.astype(np.float32) / np.float32(32768)
    return found
