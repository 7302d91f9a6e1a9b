"""`Store`: typed access to everything in it, and the only way in for what a stage makes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mgen.core.bars import BAR_SAMPLES
from mgen.core.beats import Beats
from mgen.core.errors import OutputExistsError, StaleError, StoreError
from mgen.core.store import files, schema
from mgen.core.store.layer import Layer, Provenance, create_layer, rows_digest
from mgen.core.store.maps import StoredMap, read_map, read_maps, write_map
from mgen.core.store.schema import FAMILIES, LATENTS, LAYERS, LayerSpec, is_layer, spec_of
from mgen.core.store.tables import BAR_COLUMNS, BarTable, SongPcm, SongRow, pick_song

if TYPE_CHECKING:
    import zarr

    from mgen.core.store.files import Location

_SONG_FIELDS = (
    "id", "name", "source", "sha256", "source_rate", "source_channels", "start_s", "n_samples",
    "quality", "kept", "reason",
)  # fmt: skip
_EDGES = "song_offset"


class Store:
    """A corpus on disk: songs, their beats, their bars, the maps made of them.

    Make one with `Store.create`, open one with `Store.open`; both are context managers. Readers see
    what was published when they opened a layer, whatever a writer does meanwhile.
    """

    def __init__(self, location: Location, *, writable: bool, create: bool = False) -> None:
        self.location = location
        self.where = files.name_of(location)
        self.writable = writable
        self._path = files.local_path(location)
        self._lock: int | None = None
        self._layers: dict[str, Layer] = {}
        self._spool: Path | None = None
        self._songs: list[SongRow] | None = None
        try:
            if writable and self._path is not None and self._path.is_dir():
                self._lock = files.lock(self._path)
            if create and not (self._path and (self._path / "zarr.json").exists()):
                with files.writing(self.where):
                    files.create_root(location)
            self._root, self._about = files.open_root(location, writable=writable)
            if writable and self._path is not None:
                files.sweep(self._path)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, location: Location) -> Self:
        """Make an empty store and open it for writing.

        Raises
        ------
        OutputExistsError
            If something is at that place already.
        """
        if not files.is_free(location):
            raise OutputExistsError(f"{files.name_of(location)}: exists; choose another name")
        path = files.local_path(location)
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
        return cls(location, writable=True, create=True)

    @classmethod
    def open(cls, location: Location, mode: Literal["r", "a"] = "r") -> Self:
        """Open a store to read (`r`) or to append (`a`: one process at a time).

        Raises
        ------
        InputNotFoundError
            If nothing is there.
        StoreError
            If it is no store, damaged, newer than this version, or being written by another.
        """
        return cls(location, writable=mode == "a")

    @classmethod
    def open_or_create(cls, location: Location) -> Self:
        """Open for appending, or make it where there is nothing yet."""
        if files.is_free(location):
            return cls.create(location)
        return cls.open(location, "a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next writer in. What was not published is gone."""
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)
            self._spool = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def spool(self) -> Path:
        """A folder for sound on its way into the store; emptied when the store is closed."""
        if self._spool is None:
            self._spool = files.make_spool(self._path)
        return self._spool

    @property
    def root(self) -> zarr.Group:
        """The zarr group itself."""
        return self._root

    # layers

    def layers(self) -> list[str]:
        """Names of the layers that a store may hold, and of those of families that it does."""
        plain = [name for name, spec in LAYERS.items() if not spec.published_by]
        return plain + [f"{family}/{one}" for family in FAMILIES for one in self.family(family)]

    def family(self, family: str) -> list[str]:
        """Ids of the published layers `family/<id>`, sorted."""
        with files.damage(self.where, family):
            if family not in self._root:
                return []
            groups = dict(self._root[family].groups())  # type: ignore[union-attr]
        return sorted(
            one for one, group in groups.items()
            if is_layer(f"{family}/{one}") and "mgen" in group.attrs
        )  # fmt: skip

    def layer(self, name: str) -> Layer | None:
        """A published layer, or None where the store has none of that name."""
        if name not in self._layers:
            if not self._is_published(name):
                return None
            spec = self._spec(name)
            self._layers[name] = Layer(self._root, spec, self.where, writable=self.writable)
        return self._layers[name]

    def _spec(self, name: str) -> LayerSpec:
        with files.damage(self.where, f"{name}/zarr.json"):
            return spec_of(name, self._root[name].attrs["mgen"])  # type: ignore[arg-type]

    def _is_published(self, name: str) -> bool:
        with files.damage(self.where, f"{name}/zarr.json"):
            return name in self._root and "mgen" in self._root[name].attrs

    def need(self, name: str) -> Layer:
        """A published layer; StoreError with the command that makes it where there is none."""
        layer = self.layer(name)
        if layer is None:
            raise StoreError(
                f"{self.where}: holds no {name} yet; run `{schema.made_by(name)}` first"
            )
        return layer

    def _need_or_create(self, what: str | LayerSpec, provenance: Provenance) -> Layer:
        spec = LAYERS[what] if isinstance(what, str) else what
        layer = self.layer(spec.name)
        if layer is None:
            with files.damage(self.where, spec.name), files.writing(self.where):
                self._refuse_to_overwrite(spec)
                create_layer(self._root, spec, provenance)
            layer = self.need(spec.name)
        if layer.spec != spec:
            raise StoreError(
                f"{self.where}: damaged at {spec.name}/zarr.json (says {dict(layer.spec.facts)},"
                f" not {dict(spec.facts)}); restore it from a copy"
            )
        return layer

    def _refuse_to_overwrite(self, spec: LayerSpec) -> None:
        """A layer whose metadata is lost but whose rows are there is damage, not a free place."""
        for array in spec.arrays:
            path = f"{spec.name}/{array.name}"
            if path in self._root and self._root[path].shape[0] > array.rows(0):  # type: ignore[union-attr]
                raise StoreError(
                    f"{self.where}: damaged at {spec.name}/zarr.json (its rows are there, its"
                    " metadata is not); restore it from a copy"
                )

    def begin(self, what: str | LayerSpec, provenance: Provenance, *, anew: bool = False) -> Layer:
        """Get a layer ready for appending by these settings; with `anew` from the first song.

        `what` is a layer's name; for one of a family, its entry of the table.

        Raises
        ------
        StaleError
            If its parents have changed since it was made, and `anew` is not given.
        StoreError
            If it was made with other settings, and `anew` is not given.
        """
        layer = self._need_or_create(what, provenance)
        name, made = layer.spec.name, layer.state.provenance
        if anew or (layer.length() == 0 and not made.same_work(provenance)):
            with files.writing(self.where):
                layer.clear(provenance)
            self._songs = None
            return layer
        reason = self.stale(name)
        if reason:
            raise StaleError(f"{self.where}: {name} are stale: {reason}; --force makes them again")
        if not made.same_work(provenance):
            how = made.command or f"{dict(made.settings)}"
            raise StoreError(
                f"{self.where}: its {name} were made with other settings (`{how}`);"
                " --force makes them again"
            )
        return layer

    def stale(self, name: str) -> str:
        """Why a layer is stale, in words; empty where it is not."""
        layer = self.layer(name)
        if layer is None or not layer.length():
            return ""
        for parent_name in layer.spec.parents:
            parent, made_of = self.layer(parent_name), layer.state.parents.get(parent_name)
            if parent is None or made_of is None:
                return f"the {parent_name} that they were made of are gone"
            if parent.length() < made_of["length"] or (
                parent.hash_at(made_of["length"]) != made_of["hash"]
            ):
                return f"the {parent_name} have changed since"
            upstream = self.stale(parent_name)
            if upstream:
                return f"the {parent_name} are stale themselves"
        return ""

    # models

    @property
    def models(self) -> Mapping[str, str]:
        """The current model of each stage: stage -> model id."""
        return dict(self._about.get("models", {}))

    def model_path(self, stage: str) -> Path | None:
        """Where the current model of a stage was when it was linked; None for a shipped one."""
        path = self._about.get("model_paths", {}).get(stage)
        return None if path is None else Path(path)

    def link_model(self, stage: str, model_id: str, path: Path | None = None) -> None:
        """Make a model the current one of its stage; `path` is its folder, None if it ships."""
        if not self.writable:
            raise StoreError(f"{self.where}: opened for reading; open it with mode 'a'")
        about = {**self._about, "models": {**self.models, stage: model_id}}
        paths = {k: v for k, v in about.pop("model_paths", {}).items() if k != stage}
        if path is not None:
            paths[stage] = str(path.absolute())
        if paths:
            about["model_paths"] = paths
        if about != self._about:
            with files.writing(self.where):
                self._root.update_attributes({"mgen": about})
        self._about = about

    # songs

    def songs(self) -> list[SongRow]:
        """All songs, in the order of the store, the rejected ones too."""
        if self._songs is None:
            layer = self.layer("songs")
            if layer is None:
                return []
            columns = [layer.read(name).tolist() for name in _SONG_FIELDS]
            self._songs = [
                SongRow(index=i, **dict(zip(_SONG_FIELDS, row, strict=True)))
                for i, row in enumerate(zip(*columns, strict=True))
            ]
        return self._songs

    def song(self, wanted: int | str) -> SongRow:
        """A song by row, id, beginning of an id, or name."""
        songs = self.songs()
        if isinstance(wanted, str):
            return pick_song(songs, wanted, self.where)
        if not 0 <= wanted < len(songs):
            raise StoreError(f"{self.where}: no song {wanted}; it holds {len(songs)}")
        return songs[wanted]

    def song_pcm(self, song: int) -> SongPcm:
        """A song's samples, int16 mono at 16 kHz; slicing reads only what is asked for."""
        layer = self.need("songs")
        start, stop = self._span(layer, "offset", self.song(song).index)
        return SongPcm(layer, start, stop)

    def quality_curve(self, song: int) -> npt.NDArray[np.float32]:
        """A song's smoothed probabilities, one per window of 4.96 s; empty until judged."""
        layer = self.need("songs")
        start, stop = self._span(layer, "quality_offset", self.song(song).index)
        return layer.read("quality_curve", start, stop)

    def append_song(
        self, row: SongRow, pcm_blocks: Iterable[npt.NDArray[np.int16]], provenance: Provenance,
        curve_W: npt.ArrayLike = (),
    ) -> int:  # fmt: skip
        """Append one song, its samples block by block, and publish it; returns its row.

        A rejected song (`kept` false) has no blocks. `row.n_samples` is counted here. `curve_W`
        is its quality over time.
        """
        return self.append_songs([(row, pcm_blocks, curve_W)], provenance)[0]

    def append_songs(
        self,
        songs: Iterable[tuple[SongRow, Iterable[npt.NDArray[np.int16]], npt.ArrayLike]],
        provenance: Provenance,
    ) -> list[int]:
        """Append rows that belong together (clips of one source), and publish them at once.

        Each is a row, its blocks and its curve, as `append_song` takes them; returns the rows.
        """
        layer = self._need_or_create("songs", provenance)
        first = layer.length()
        with self._appending(layer):
            for row, pcm_blocks, curve_W in songs:
                digest = rows_digest(layer.spec, {"start_s": np.array([row.start_s])})
                n_samples = layer.append_blocks("pcm", pcm_blocks, digest)
                for name in _SONG_FIELDS:
                    value = n_samples if name == "n_samples" else getattr(row, name)
                    layer.append(name, [value])
                layer.append("quality_curve", curve_W)
                layer.append("offset", [layer.last_edge("samples")])
                layer.append("quality_offset", [layer.last_edge("windows")])
                layer.append("digest", np.frombuffer(digest.digest(), np.uint8)[None])
            layer.publish(provenance, {})
        self._songs = None
        return list(range(first, layer.length()))

    # beats and bars

    def beats(self, song: int) -> Beats:
        """A song's beats; times in seconds of the song's own source."""
        layer = self.need("beats")
        start, stop = self._span(layer, "song_offset", song)
        names = ("time_s", "beat_in_bar", "confidence")
        with files.damage(self.where, f"beats of song {song}"):
            return Beats(*(layer.read(name, start, stop) for name in names))

    def append_beats(self, beats: Beats, provenance: Provenance) -> int:
        """Append and publish the beats of the next song (none for a rejected one)."""
        layer = self._need_or_create("beats", provenance)
        columns: dict[str, npt.NDArray[Any]] = {
            "time_s": beats.time_s, "beat_in_bar": beats.beat_in_bar,
            "confidence": beats.confidence,
        }  # fmt: skip
        with self._appending(layer):
            for name, column in columns.items():
                layer.append(name, column)
            layer.append("song_offset", [layer.last_edge("beats")])
            self._publish(layer, rows_digest(layer.spec, columns).digest(), provenance)
        return layer.length() - 1

    def bars(self, song: int | None = None, *, jittered: bool = False) -> BarTable:
        """The bars of a song, or of all; without the jittered copies unless they are asked for."""
        layer = self.need("bars")
        start, stop = 0, layer.length("bars")
        if song is not None:
            start, stop = self._span(layer, "song_offset", song)
        columns = {name: layer.read(name, start, stop) for name in BAR_COLUMNS}
        table = BarTable(**columns, row=np.arange(start, stop))
        return table if jittered else table.where(table.jitter == 0)

    def bar_pcm(self, row: int | slice) -> npt.NDArray[np.int16]:
        """Warped bars by their rows in the store: (32768,), or (rows, 32768) for a slice."""
        layer = self.need("bars")
        if isinstance(row, slice):
            start, stop, step = row.indices(layer.length("bars"))
            return layer.read("pcm", start, max(start, stop))[::step]
        if not 0 <= row < layer.length("bars"):
            raise StoreError(f"{self.where}: no bar {row}; it holds {layer.length('bars')}")
        return layer.read("pcm", row, row + 1)[0]

    def append_bars(
        self, table: BarTable, pcm_blocks: Iterable[npt.NDArray[np.int16]],
        provenance: Provenance, reason: str = "",
    ) -> int:  # fmt: skip
        """Append and publish the bars of the next song; blocks of (rows, 32768), in order."""
        layer = self._need_or_create("bars", provenance)
        columns: dict[str, npt.NDArray[Any]] = {n: getattr(table, n) for n in BAR_COLUMNS}
        with self._appending(layer):
            for name, column in columns.items():
                layer.append(name, column)
            columns["reason"] = np.array([reason])
            layer.append("reason", [reason])
            digest = rows_digest(layer.spec, columns)
            rows = layer.append_blocks("pcm", pcm_blocks, digest)
            if rows != len(table):
                raise ValueError(f"{len(table)} bars, but {rows} rows of {BAR_SAMPLES} samples")
            layer.append("song_offset", [layer.last_edge("bars")])
            self._publish(layer, digest.digest(), provenance)
        return layer.length() - 1

    def segment_reason(self, song: int) -> str:
        """Why a kept song has no bars; empty where it has."""
        layer = self.need("bars")
        return str(layer.read("reason", song, song + 1)[0])

    # latents, actions

    def song_rows(self, name: str, column: str, song: int | None = None) -> npt.NDArray[Any]:
        """A column of a layer of a family: a song's rows, or all."""
        layer = self.need(name)
        return layer.read(column, *(() if song is None else self._span(layer, _EDGES, song)))

    def append_rows(
        self, name: str, columns: Mapping[str, npt.NDArray[Any]], provenance: Provenance
    ) -> int:
        """Append and publish the next song's rows of a layer of a family; `begin` comes first."""
        layer = self.need(name)
        with self._appending(layer):
            for column, rows in columns.items():
                layer.append(column, rows)
            layer.append(_EDGES, [layer.last_edge(layer.array(_EDGES).edges)])
            self._publish(layer, rows_digest(layer.spec, columns).digest(), provenance)
        return layer.length() - 1

    def latents(self, tokenizer: str, song: int | None = None) -> npt.NDArray[np.float16]:
        """A song's latents by one tokenizer, or all: (items, tokens, dims); see `latents_layer`."""
        return self.song_rows(f"{LATENTS}/{tokenizer}", "z", song)

    def append_latents(
        self, tokenizer: str, z_BLD: npt.ArrayLike, n_samples: int, provenance: Provenance
    ) -> int:
        """The latents of the next song (none for a rejected one), which has `n_samples` samples at
        the tokenizer's rate.
        """
        name, z_BLD = f"{LATENTS}/{tokenizer}", np.asarray(z_BLD, np.float16)
        if z_BLD.shape[1:] != (shape := self.need(name).array("z").tail):
            raise ValueError(f"latents {z_BLD.shape} are not items of {shape}")
        return self.append_rows(name, {"z": z_BLD, "n_samples": np.array([n_samples])}, provenance)

    # maps

    def maps(self) -> list[int]:
        """Numbers of the maps that are complete, in order."""
        return read_maps(self._root, self.where)

    def map(self, number: int) -> StoredMap:
        """A map that was written from this store."""
        return read_map(self._root, self.where, number)

    def add_map(
        self, song: int, difficulty: str, seed: int, model: str, notes: npt.ArrayLike,
        provenance: Provenance | None = None,
    ) -> int:  # fmt: skip
        """Keep a map's notes, float32 (notes, 5): beat, column, row, colour, direction.

        Returns the number under `maps/`.
        """
        row = self.song(song)
        entry = StoredMap(
            song=row.index, song_sha256=row.sha256, difficulty=difficulty, seed=seed, model=model,
            notes=np.asarray(notes, np.float32).reshape(-1, 5),
        )  # fmt: skip
        return write_map(self._root, entry, provenance or Provenance())

    # inside

    def _span(self, layer: Layer, edges: str, song: int) -> tuple[int, int]:
        if not 0 <= song < layer.length():
            raise StoreError(
                f"{self.where}: {layer.spec.name} reach {layer.length()} songs, not song {song};"
                " run the command that makes them again"
            )
        pair = layer.read(edges, song, song + 2).tolist()
        if not 0 <= pair[0] <= pair[1] <= layer.length(layer.array(edges).edges):
            raise StoreError(f"{self.where}: damaged at {layer.path(edges)}; see `mgen check`")
        return int(pair[0]), int(pair[1])

    def _publish(self, layer: Layer, digest: bytes, provenance: Provenance) -> None:
        layer.append("digest", np.frombuffer(digest, np.uint8)[None])
        layer.publish(provenance, {name: self.need(name) for name in layer.spec.parents})

    @contextmanager
    def _appending(self, layer: Layer) -> Iterator[None]:
        """Cut back what was appended when it fails, so that the next append starts clean."""
        if not self.writable:
            raise StoreError(f"{self.where}: opened for reading; open it with mode 'a'")
        try:
            with files.writing(self.where):
                yield
        except BaseException:
            # not cut back here (the disk may be full): opening the layer again does it
            self._layers.pop(layer.spec.name, None)
            raise
