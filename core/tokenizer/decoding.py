"""Latents of a store -> sound: every item decoded, bars back at their own lengths, joined.

Letters: B items, C channels, N samples, L tokens, D dims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mgen.core.audio import Audio, write_audio
from mgen.core.bars import unwarp_bar
from mgen.core.corpus import file_stems
from mgen.core.corpus.files import check_output_folder, check_outputs
from mgen.core.errors import StaleError, StoreError
from mgen.core.store import LATENTS, RATE, SongRow, Store
from mgen.core.tokenizer.data import bar_edges, own_lengths
from mgen.core.tokenizer.model import Tokenizer
from mgen.core.tokenizer.passes import BATCH, latents_id, padded

_RAMP_S = 0.004  # over which a step between two items is evened out


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeReport:
    """What became of one song in `decode_songs`; `reason` says why there is no file."""

    song: int
    name: str
    path: Path
    items: int = 0
    seconds: float = 0.0
    reason: str = ""


def plan_decoding(
    store: Store, songs: Sequence[SongRow], folder: Path, *, force: bool = False
) -> list[DecodeReport]:
    """Which files `decode_songs` would write, before any work is done.

    Raises
    ------
    OutputExistsError
        If some of them exist, without `force`.
    UsageError
        If the folder is a file, or part of a store.
    """
    check_output_folder(folder, "-o")
    stems = file_stems(song for song in store.songs() if song.kept)
    plan = [
        DecodeReport(song=song.index, name=song.name, path=folder / f"{stems[song.index]}.wav")
        for song in songs if song.kept
    ]  # fmt: skip
    check_outputs([report.path for report in plan], "-o", force=force)
    return plan


def decode_songs(
    store: Store,
    tokenizer: Tokenizer,
    plan: Sequence[DecodeReport],
    *,
    steps: int | None = None,
    seed: int = 0,
    fill: bool = False,
) -> Generator[DecodeReport]:
    """Write the sound of songs' latents: every bar back at its own length, joined.

    Parameters
    ----------
    store
        With latents by this tokenizer.
    tokenizer
        That made them.
    plan
        As `plan_decoding` gives it.
    steps, seed
        Of the sampler. A bar sounds the same whatever else is decoded.
    fill
        Whether the song's own sound stands before its first bar and after its last one; without it
        the file begins with the first bar and ends with the last.

    Raises
    ------
    StoreError, StaleError
        If there are no such latents, not of all songs, or of other bars or songs.
    OSError
        If a file cannot be written.
    """
    require_latents(store, tokenizer)
    for report in plan:
        song = store.song(report.song)
        if tokenizer.config.unit == "bar":
            sound_CN, items = _decode_bars(store, song, tokenizer, steps, seed, fill=fill)
        else:
            sound_CN, items = _decode_stretches(store, song, tokenizer, steps, seed)
        rate = tokenizer.config.rate
        if items:
            report.path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(report.path, Audio(sound_CN, rate), subtype="PCM_16")
        yield DecodeReport(
            song=song.index, name=song.name, path=report.path, items=items,
            seconds=sound_CN.shape[1] / rate, reason="" if items else "it has no bars",
        )  # fmt: skip


def require_latents(store: Store, tokenizer: Tokenizer) -> None:
    """Refuse a store without up-to-date latents of this tokenizer. Raises as `decode_songs`."""
    name = f"{LATENTS}/{latents_id(tokenizer)}"
    layer = store.layer(name)
    if layer is None:
        others = store.family(LATENTS)
        there = f" (it has {', '.join(others)})" if others else ""
        raise StoreError(
            f"{store.where}: holds no latents by the tokenizer {latents_id(tokenizer)}{there}; run"
            " `mgen tokenize` with it first"
        )
    if reason := store.stale(name):
        raise StaleError(
            f"{store.where}: {name} are stale: {reason}; `mgen tokenize --force` makes them again"
        )
    if layer.length() < len(store.songs()):
        raise StoreError(
            f"{store.where}: only {layer.length()} of {len(store.songs())} songs have latents; run"
            " `mgen tokenize` first"
        )


def _decode_bars(
    store: Store, song: SongRow, tokenizer: Tokenizer, steps: int | None, seed: int, *, fill: bool
) -> tuple[np.ndarray, int]:
    is_real = store.bars(song.index, jittered=True).jitter == 0
    every = bar_edges(store, song.index)
    rows = [i for i, (first, last) in enumerate(every) if is_real[i] and last > first]
    if not rows:
        return np.zeros((1, 0), np.float32), 0
    edges = [every[i] for i in rows]
    lengths = [last - first for first, last in edges]
    z_BLD = store.latents(latents_id(tokenizer), song.index)[rows]
    sounds = _decoded(tokenizer, z_BLD, song.id, steps, seed, lengths)
    if not own_lengths(tokenizer.config):
        how = store.need("bars").state.provenance.settings
        sounds = _unwarped(sounds, edges, str(how.get("stretcher", "signalsmith")))
    begin, end = edges[0][0], edges[-1][1]
    out_N = np.concatenate(sounds)
    for first, _ in edges[1:]:
        _even_out(out_N, first - begin, RATE)
    if fill:
        own_N = store.song_pcm(song.index).floats()
        out_N = np.concatenate([own_N[:begin], out_N, own_N[end:]])
        _even_out(out_N, begin, RATE, before=False)
        _even_out(out_N, end, RATE, after=False)
    return out_N[None], len(edges)


def _decode_stretches(
    store: Store, song: SongRow, tokenizer: Tokenizer, steps: int | None, seed: int
) -> tuple[np.ndarray, int]:
    layer = store.need(f"{LATENTS}/{latents_id(tokenizer)}")
    n_samples = int(layer.read("n_samples", song.index, song.index + 1)[0])
    z_BLD = store.latents(latents_id(tokenizer), song.index)
    parts = _decoded(tokenizer, z_BLD, song.id, steps, seed)
    out_CN = np.concatenate([np.zeros((tokenizer.config.channels, 0), np.float32), *parts], axis=1)
    for at in range(tokenizer.config.samples, out_CN.shape[1], tokenizer.config.samples):
        for channel_N in out_CN:
            _even_out(channel_N, at, tokenizer.config.rate)
    return out_CN[:, :n_samples], len(z_BLD)


def _decoded(
    tokenizer: Tokenizer, z_BLD: np.ndarray, song_id: str, steps: int | None, seed: int,
    lengths: Sequence[int] = (),
) -> list[np.ndarray]:  # fmt: skip
    """The sound of items: of bars (N,), of plain seconds (C, N)."""
    own = own_lengths(tokenizer.config)
    keys = [_key(song_id, i) for i in range(len(z_BLD))]
    sounds: list[np.ndarray] = []
    size = 1 if own else BATCH
    for start in range(0, len(z_BLD), size):
        chosen = slice(start, start + size)
        given = torch.tensor(lengths[chosen]) if own else None
        made_BCN = tokenizer.decode(
            torch.from_numpy(z_BLD[chosen].astype(np.float32)), keys=keys[chosen], seed=seed,
            steps=steps, n_samples=padded(lengths[start]) if own else None, lengths_B=given,
        )  # fmt: skip
        made = list(made_BCN.float().cpu().numpy())
        if own:
            made = [made[0][:, : lengths[start]]]
        sounds += [one[0] for one in made] if tokenizer.config.unit == "bar" else made
    return sounds


def _unwarped(
    sounds: list[np.ndarray], edges: list[tuple[int, int]], stretcher: str
) -> list[np.ndarray]:
    """Bars at their own lengths, each heard between its neighbours."""
    back = []
    for i, ((first, last), sound) in enumerate(zip(edges, sounds, strict=True)):
        before = sounds[i - 1] if i else None
        after = sounds[i + 1] if i + 1 < len(sounds) else None
        back.append(
            unwarp_bar(sound, last - first, stretcher=stretcher, before=before, after=after)
        )
    return back


def _even_out(
    samples_N: np.ndarray, at: int, rate: int, *, before: bool = True, after: bool = True
) -> None:
    """Take the step out of a joint, in place, on either or both sides of it: no click."""
    if not 0 < at < len(samples_N):
        return
    ramp = round(_RAMP_S * rate)
    step = (samples_N[at] - samples_N[at - 1]) / (before + after)
    if before:
        n = min(ramp, at)
        samples_N[at - n : at] += step * np.linspace(0, 1, n, dtype=np.float32)
    if after:
        n = min(ramp, len(samples_N) - at)
        samples_N[at : at + n] -= step * np.linspace(1, 0, n, dtype=np.float32)


def _key(song_id: str, item: int) -> int:
    """A number for the noise of one item, the same in every store that holds the song."""
    return int.from_bytes(hashlib.sha256(f"{song_id} {item}".encode()).digest()[:8], "big")
