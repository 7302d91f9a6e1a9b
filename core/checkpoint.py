"""Models and the state of a training run on disk: safetensors and JSON, nothing that runs code.

A model is a folder: `config.json` and shards `model-00001-of-0000N.safetensors`. Its id is a
SHA-256 over kind, config and tensors, so it stays what it is when the folder is moved, and tells
when a file is not the one that was written. A state of a run is one safetensors file with the JSON
in its header, written beside, synced and renamed: it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mgen.core.errors import InputError, InputNotFoundError

N = TypeVar("N", bound=nn.Module)

FORMAT = 1
SHARD_BYTES = 16_000_000
RESERVED = ("kind", "format", "id", "shards")
"""Keys of config.json that belong to the folder and not to the model."""

_HEADER_BYTES = 200
"""More than what a tensor takes in a shard's header besides its name."""
_SHARDS = "model-*-of-*.safetensors"
_STATES = re.compile(r"step-(\d{9})\.safetensors")
_PART = ".part"


# ---------------------------------------------------------------- files


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, sync it and rename it."""
    part = path.with_name(path.name + _PART)
    write(part)
    _publish({part: path})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda part: _write_text(part, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    from safetensors.torch import save

    # copies: safetensors refuses tensors that share memory, as tied weights do; bytes: its own
    # files can be read by their owner only
    path.write_bytes(save({k: _on_cpu(v).clone() for k, v in tensors.items()}, metadata))


def _publish(renames: Mapping[Path, Path]) -> None:
    """Sync written files, give them their names in this order, and sync the folder."""
    for part in renames:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
    for part, path in renames.items():
        os.replace(part, path)
    for folder in {path.parent for path in renames.values()}:
        with suppress(OSError):  # Windows cannot open a folder
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _on_cpu(x: Tensor) -> Tensor:
    return x.detach().to("cpu").contiguous()


# ---------------------------------------------------------------- model folders


def save_model(
    folder: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    kind: str,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Write a model's folder; what is there of an older one is replaced, config.json last.

    Parameters
    ----------
    folder
        Made if it is missing.
    state
        Tensors by name. Floating ones are stored as `dtype`, except where a value is beyond its
        range.
    config
        What rebuilds the model, and what is to be known about it: plain JSON.
    kind
        A word for what it is; `load_model` asks for it.
    dtype
        Of the file.
    shard_bytes
        No file becomes larger.

    Returns
    -------
    str
        The model's id.

    Raises
    ------
    ValueError
        If a tensor holds a value that is not finite, or `config` is not plain JSON.
    OSError
        If it cannot be written.
    """
    stored = _as_stored(state, dtype)
    own = json.loads(json.dumps(_own(config), allow_nan=False))
    model_id = _hash(stored, own, kind)
    shards = _shards(stored, shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    renames: dict[Path, Path] = {}
    for name, tensors in zip(_shard_names(len(shards)), shards, strict=True):
        part = folder / (name + _PART)
        _write_tensors(part, tensors)
        renames[part] = folder / name
    about = {"kind": kind, "format": FORMAT, "id": model_id, "shards": len(shards), **own}
    part = folder / ("config.json" + _PART)
    _write_text(part, json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    renames[part] = folder / "config.json"
    _publish(renames)
    for path in folder.glob(_SHARDS):
        if path not in renames.values():
            path.unlink()
    return model_id


def load_model(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of a model's folder, as stored; the config has the model's `id`.

    Raises
    ------
    InputNotFoundError
        If the folder or a file in it is missing.
    InputError
        If it holds another kind of model or a newer format, or is not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / "config.json").is_file():
        raise InputNotFoundError(f"{folder}: no config.json in it; name the folder of a {kind}")
    try:
        about = json.loads((folder / "config.json").read_text("utf-8"))
        _check_kind(folder, about, kind)
        names = _shard_names(int(about["shards"]))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputNotFoundError(f"{folder}: no {missing[0]} in it; copy the model again")
        others = sorted({p.name for p in folder.glob(_SHARDS)} - set(names))
        if others:
            raise InputError(
                f"{folder}: {others[0]} is not one of its {len(names)} shards; two models lie"
                " mixed here, copy the one you want into a folder of its own"
            )
        pieces: dict[str, Tensor] = {}
        for name in names:
            pieces.update(load_file(folder / name))
        state, own = _joined(pieces), _own(about)
        if _hash(state, own, kind) != about["id"]:
            raise InputError(
                f"{folder}: config or tensors are not those that were written; copy the model again"
            )
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        cause = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(f"{folder}: damaged ({cause}); copy the model again") from error
    return {**own, "id": about["id"]}, state


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a model's folder says of itself; `id` is empty where its files do not carry one."""

    kind: str
    id: str
    weights: int
    bytes: int
    config: dict[str, Any]


def summarise(folder: Path) -> Summary:
    """What model lies in a folder; its tensors are read, and checked where they carry an id.

    Raises
    ------
    InputNotFoundError
        If the folder or a file in it is missing.
    InputError
        If it is no model of mgen, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "config.json"
    if not path.is_file():
        raise InputNotFoundError(f"{folder}: no config.json in it; name the folder of a model")
    files = sorted(folder.glob("*.safetensors"))
    try:
        about = json.loads(path.read_text("utf-8"))
        kind = str(about["kind"])
        if "shards" in about:
            config, state = load_model(folder, kind)
        else:
            config, state = _own(about), {}
            for file in files:
                state.update(load_file(file))
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: no model of mgen, or a damaged one; name another") from error
    return Summary(
        kind=kind, id=str(config.pop("id", "")), weights=sum(x.numel() for x in state.values()),
        bytes=sum(file.stat().st_size for file in files), config=config,
    )  # fmt: skip


def content_id(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    kind: str,
    dtype: torch.dtype = torch.float16,
) -> str:
    """The id that `save_model` would give."""
    own = json.loads(json.dumps(_own(config), allow_nan=False))
    return _hash(_as_stored(state, dtype), own, kind)


def fill(module: nn.Module, state: Mapping[str, Tensor], name: Path | str) -> None:
    """Put loaded tensors into a module.

    Raises
    ------
    InputError
        If names or shapes are not the module's own; names `name` and the first that differs.
    """
    wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in state.items()}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            there = f"is {given[key]}" if key in given else "is missing"
            here = f"should be {wanted[key]}" if key in wanted else "is unknown"
            raise InputError(
                f"{name}: made by another version of this model (tensor '{key}' {there},"
                f" {here}); get the model that belongs to this mgen"
            )
    module.load_state_dict(dict(state))


def rebuild(folder: Path, kind: str, make: Callable[[Mapping[str, Any]], N]) -> tuple[N, str]:
    """A model from its folder: its network, on the CPU, and its id.

    Parameters
    ----------
    folder
        Of the model.
    kind
        What it must be; also the key of its config that `make` is given.
    make
        Builds an untrained network.

    Raises
    ------
    InputNotFoundError
        If the folder or a file in it is missing.
    InputError
        If it holds another kind of model, a newer format, or is damaged.
    """
    config, state = load_model(folder, kind)
    try:
        network = make(config[kind])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(f"{folder}: damaged ({cause}); copy the model again") from error
    fill(network, state, folder)
    return network, str(config["id"])


def _check_kind(folder: Path, about: Any, kind: str) -> None:
    found = about.get("kind") if isinstance(about, dict) else None
    if found != kind:
        what = f"holds a '{found}'" if found else "its config.json names no model"
        raise InputError(f"{folder}: {what}, not a {kind}; name the folder of a {kind}")
    if about["format"] > FORMAT:
        raise InputError(
            f"{folder}: format {about['format']} is newer than this mgen reads ({FORMAT});"
            " upgrade mgen"
        )


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in RESERVED}


def _as_stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    stored = {}
    for name in sorted(state):
        x = _on_cpu(state[name])
        if "#" in name:
            raise ValueError(f"tensor name '{name}' has a '#', which marks pieces of a tensor")
        if x.is_floating_point():
            if not torch.isfinite(x).all():
                raise ValueError(f"tensor '{name}' holds values that are not finite")
            small = x.to(dtype)
            x = small if torch.isfinite(small).all() else x
        stored[name] = x
    return stored


def _hash(state: Mapping[str, Tensor], own: Mapping[str, Any], kind: str) -> str:
    text = json.dumps([kind, own], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(text.encode())
    for name in sorted(state):
        x = state[name]
        digest.update(f"\n{name} {x.dtype} {tuple(x.shape)}\n".encode())
        digest.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shard_names(n: int) -> list[str]:
    return [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]


def _shards(state: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Cut a state into files below `limit`; a tensor too large for one is cut along its rows."""
    shards: list[dict[str, Tensor]] = [{}]
    used = _HEADER_BYTES
    for name, x in state.items():
        for key, piece in _pieces(name, x, limit - 2 * _HEADER_BYTES):
            size = piece.nbytes + len(key.encode()) + _HEADER_BYTES
            if used + size > limit and shards[-1]:
                shards.append({})
                used = _HEADER_BYTES
            shards[-1][key] = piece
            used += size
    return shards


def _pieces(name: str, x: Tensor, limit: int) -> list[tuple[str, Tensor]]:
    limit -= len(name.encode()) + 8
    if x.nbytes <= limit or x.ndim == 0:
        return [(name, x)]
    rows = limit * len(x) // x.nbytes
    if rows < 1:
        raise ValueError(f"a row of tensor '{name}' alone does not fit into a shard")
    return [(f"{name}#{i:05d}", piece) for i, piece in enumerate(x.split(rows))]


def _joined(pieces: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gathered: dict[str, list[Tensor]] = {}
    for key in sorted(pieces):
        gathered.setdefault(key.split("#")[0], []).append(pieces[key])
    return {name: x[0] if len(x) == 1 else torch.cat(x) for name, x in gathered.items()}


# ---------------------------------------------------------------- the state of a run


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run needs to go on: the steps done, tensors by name, and the rest as JSON."""

    step: int
    tensors: dict[str, Tensor]
    rest: dict[str, Any]


def save_state(folder: Path, state: RunState, keep: int) -> Path:
    """Write a checkpoint; then all but the last `keep` go.

    Raises
    ------
    OSError
        If it cannot be written; the checkpoints that are there stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state.step:09d}.safetensors"
    # one key only: safetensors writes several in random order
    metadata = {"state": json.dumps({"format": FORMAT, **state.rest}, allow_nan=False)}
    write_atomically(path, lambda part: _write_tensors(part, state.tensors, metadata))
    for old in _states(folder)[:-keep]:
        old.unlink()
    return path


def load_state(folder: Path) -> RunState | None:
    """The last whole checkpoint in a folder, None if there is none; half-written ones are ignored.

    Raises
    ------
    InputError
        If it is of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    for path in reversed(_states(folder)):
        try:
            with safe_open(path, "pt") as file:
                rest = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError, KeyError):
            continue
        if rest.pop("format") > FORMAT:
            raise InputError(f"{path}: written by a newer mgen; upgrade mgen, or start a new run")
        return RunState(int(path.stem.split("-")[1]), tensors, rest)
    return None


def _states(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if _STATES.fullmatch(p.name))
