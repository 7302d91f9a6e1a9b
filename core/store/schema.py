"""What a store holds: one table of layers, with their arrays, types and axes.

The names are the contract. A name of `FAMILIES` stands for any number of layers, `latents/<id>`,
whose arrays follow from the facts in each one's own metadata.
An array's first axis is counted by one of the layer's *published lengths* (attribute
`mgen.length`); an `edges` array holds one number more (CSR: row i is `edges[i]:edges[i + 1]`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mgen.core.bars import BAR_SAMPLES

FORMAT_VERSION = 1
"""Stores of a higher version are refused; lower ones are read by this code."""

KIND = "store"
RATE = 16000
"""Sample rate of the store's audio, mono."""

DIGEST_BYTES = 32
"""SHA-256."""

_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 1 << 14
_SHARD_CHUNKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One array of a layer: its type, the axis that counts its rows, and the shape of a row."""

    name: str
    dtype: str
    axis: str
    tail: tuple[int, ...] = ()
    tail_names: tuple[str, ...] = ()
    edges: str = ""
    """The axis that an array of offsets cuts into rows; empty for other arrays."""

    @property
    def numpy_dtype(self) -> np.dtype:
        """The type in memory (`str` is NumPy's variable-width string)."""
        return np.dtypes.StringDType() if self.dtype == "str" else np.dtype(self.dtype)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes, as xarray wants them."""
        first = f"{self.axis}_edge" if self.edges else self.axis
        return (first, *self.tail_names)

    def rows(self, length: int) -> int:
        """Rows of the array where its axis counts `length`."""
        return length + 1 if self.edges else length

    @property
    def sharded(self) -> bool:
        """Whether the array is sound, long enough to be cut into shards.

        The small columns are plain chunks: each published song rewrites the last shard of every
        array, and a shard of 16 MB for a few numbers would make that slow.
        """
        return self.axis == "samples" or math.prod(self.tail) >= BAR_SAMPLES

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk: 1 MB, or 16 Ki rows of a small column."""
        rows = _CHUNK_BYTES // (self.numpy_dtype.itemsize * math.prod(self.tail))
        return rows if self.sharded else max(1, min(rows, _CHUNK_ROWS))

    @property
    def write_rows(self) -> int:
        """Rows that are written at once, never across: a shard of sound (16 MB), or a chunk."""
        return self.chunk_rows * (_SHARD_CHUNKS if self.sharded else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One layer: its arrays, the layers it is made from, and who publishes its lengths."""

    name: str
    arrays: tuple[ArraySpec, ...]
    parents: tuple[str, ...] = ()
    published_by: str = ""
    """The layer whose metadata publishes this one's lengths too; itself where empty."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the metadata of a layer of a family says of it, beside what every layer says."""

    @property
    def publisher(self) -> str:
        """The layer whose metadata is the truth about this one's lengths."""
        return self.published_by or self.name

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes, in the order of first use."""
        return tuple(dict.fromkeys(a.axis for a in self.arrays))

    def array(self, name: str) -> ArraySpec:
        """The array of that name."""
        return next(a for a in self.arrays if a.name == name)


def _a(name: str, dtype: str, axis: str, edges: str = "", **tail: int) -> ArraySpec:
    return ArraySpec(
        name=name, dtype=dtype, axis=axis, edges=edges, tail=tuple(tail.values()),
        tail_names=tuple(tail),
    )  # fmt: skip


_DIGEST = _a("digest", "uint8", "songs", byte=DIGEST_BYTES)  # SHA-256 of the song's rows

LAYERS = {
    layer.name: layer
    for layer in (
        LayerSpec(
            name="songs",
            arrays=(
                _a("id", "str", "songs"),
                _a("name", "str", "songs"),
                _a("source", "str", "songs"),  # absolute path, or URI
                _a("sha256", "str", "songs"),  # of the source file
                _a("source_rate", "int32", "songs"),
                _a("source_channels", "int32", "songs"),
                _a("start_s", "float64", "songs"),  # of a clip in its source
                _a("n_samples", "int64", "songs"),
                _a("offset", "int64", "songs", edges="samples"),
                _a("quality", "float32", "songs"),  # NaN until judged
                _a("kept", "bool", "songs"),
                _a("reason", "str", "songs"),  # why not kept
                _a("quality_curve", "float32", "windows"),
                _a("quality_offset", "int64", "songs", edges="windows"),
                _DIGEST,
            ),
        ),
        # songs and audio are one fact: the metadata of `songs` publishes both at once
        LayerSpec(
            name="audio", published_by="songs", arrays=(_a("pcm", "int16", "samples"),)
        ),
        LayerSpec(
            name="beats",
            parents=("songs",),
            arrays=(
                _a("time_s", "float64", "beats"),
                _a("beat_in_bar", "int8", "beats"),
                _a("confidence", "float32", "beats"),
                _a("song_offset", "int64", "songs", edges="beats"),
                _DIGEST,
            ),
        ),
        LayerSpec(
            name="bars",
            parents=("songs", "beats"),
            arrays=(
                _a("song", "int32", "bars"),
                _a("index", "int32", "bars"),
                _a("start_s", "float64", "bars"),
                _a("end_s", "float64", "bars"),
                _a("beats", "int8", "bars"),
                _a("bpm", "float32", "bars"),
                _a("stretch", "float32", "bars"),
                _a("jitter", "int8", "bars"),
                _a("valid", "bool", "bars"),
                _a("confidence", "float32", "bars"),
                _a("pcm", "int16", "bars", sample=BAR_SAMPLES),
                _a("song_offset", "int64", "songs", edges="bars"),
                _a("reason", "str", "songs"),  # why a kept song has no bars
                _DIGEST,
            ),
        ),
    )
}  # fmt: skip


def latents_layer(
    tokenizer: str, *, unit: str, tokens: int, dims: int, samples: int, rate: int, channels: int
) -> LayerSpec:
    """The layer of one tokenizer's latents: an item is a bar, or a stretch of `samples` samples.

    Where the unit is a bar, row i belongs to row i of the layer `bars`, whatever that is: jittered
    copies and bars not fit to learn from too. Where it is a second, a song is cut into items end to
    end, the last one padded; `n_samples` counts the song at the tokenizer's rate.
    """
    name = f"{LATENTS}/{tokenizer}"
    if not is_layer(name):
        raise ValueError(f"'{tokenizer}' is no tokenizer's id of 12 hex digits")
    if unit not in ("bar", "second") or min(tokens, dims, samples, rate, channels) < 1:
        raise ValueError(f"unit '{unit}', {tokens} tokens, {dims} dims, {samples} samples")
    return LayerSpec(
        name=name,
        parents=("bars",) if unit == "bar" else ("songs",),
        arrays=(
            _a("z", "float16", "items", token=tokens, dim=dims),
            _a("n_samples", "int64", "songs"),
            _a("song_offset", "int64", "songs", edges="items"),
            _DIGEST,
        ),
        facts={"unit": unit, "tokens": tokens, "dims": dims, "samples": samples, "rate": rate,
               "channels": channels},
    )  # fmt: skip


def actions_layer(
    lam: str, *, bottleneck: str, actions: int, numbers: int, bars_per_action: int, input: str,
    tokenizer: str,
) -> LayerSpec:  # fmt: skip
    """The layer of what one latent action model says of every bar: row i belongs to bar i.

    Styles are the `numbers` largest of weights over `actions` embeddings, by index; everything else
    has as many `codes` of 0 to `actions` - 1. `input` is what the model reads: latents by
    `tokenizer`, or the log-mel of the bars.
    """
    name = f"{ACTIONS}/{lam}"
    if not is_layer(name):
        raise ValueError(f"'{lam}' is no latent action model's id of 12 hex digits")
    if input not in ("latents", "mel") or min(actions, numbers, bars_per_action) < 1:
        raise ValueError(f"input '{input}', {actions} actions, {numbers} numbers")
    arrays: tuple[ArraySpec, ...]
    if bottleneck == "style":
        arrays = (_a("index", "int32", "bars", choice=numbers),
                  _a("weight", "float32", "bars", choice=numbers))  # fmt: skip
    else:
        arrays = (_a("codes", "int32", "bars", quantizer=numbers),)
    return LayerSpec(
        name=name,
        parents=("bars", *([f"{LATENTS}/{tokenizer}"] if input == "latents" else [])),
        arrays=(*arrays, _a("song_offset", "int64", "songs", edges="bars"), _DIGEST),
        facts={"bottleneck": bottleneck, "actions": actions, "numbers": numbers,
               "bars_per_action": bars_per_action, "input": input, "tokenizer": tokenizer},
    )  # fmt: skip


LATENTS, ACTIONS = "latents", "actions"

FAMILIES: Mapping[str, Callable[..., LayerSpec]] = {LATENTS: latents_layer, ACTIONS: actions_layer}
"""Groups of layers: name -> `layer(id, **facts)`."""

_FACTS = {
    LATENTS: ("unit", "tokens", "dims", "samples", "rate", "channels"),
    ACTIONS: ("bottleneck", "actions", "numbers", "bars_per_action", "input", "tokenizer"),
}


def is_layer(name: str) -> bool:
    """Whether a store may hold a layer of that name."""
    family, _, one = name.partition("/")
    return name in LAYERS or (family in FAMILIES and bool(re.fullmatch("[0-9a-f]{12}", one)))


def spec_of(name: str, about: Mapping[str, Any]) -> LayerSpec:
    """The table's entry of a layer; for one of a family, from the metadata that it has.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no such layer, or the metadata lacks what its arrays depend on.
    """
    if name in LAYERS:
        return LAYERS[name]
    family, _, one = name.partition("/")
    return FAMILIES[family](one, **{fact: about[fact] for fact in _FACTS[family]})


def made_by(name: str) -> str:
    """The command that makes a layer."""
    commands = {"songs": "filter", LATENTS: "tokenize", ACTIONS: "actions"}
    return f"mgen {commands.get(name.split('/')[0], 'segment-bars')}"


NOTE_COLUMNS = ("beat", "column", "row", "colour", "direction")
"""Columns of `maps/<n>/notes`, float32 (notes, 5)."""
