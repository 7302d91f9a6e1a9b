"""A judge on disk: `config.json` and `forest.safetensors` in one folder, numbers and text only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mgen.core.errors import InputError, InputNotFoundError, OutputExistsError
from mgen.core.quality.features import FEATURE_SPEC, N_FEATURES
from mgen.core.quality.forest import Forest
from mgen.core.weights import shipped

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "forest.safetensors"
_MOST_BYTES = {CONFIG: 1 << 20, WEIGHTS: 1 << 26}
_ARRAYS = {
    "root_T": np.dtype(np.int32), "feature_K": np.dtype(np.int16),
    "value_K": np.dtype(np.float32), "right_K": np.dtype(np.uint16),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A forest, its id (from its content), and what its maker says of it."""

    forest: Forest
    id: str
    about: Mapping[str, Any]

    def probabilities(self, features_WF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Probability that each window is good, (W,)."""
        return self.forest.predict(features_WF)


def shipped_judge() -> Path:
    """The folder of the judge that the package ships."""
    return shipped("judge")


def save_judge(
    folder: Path, forest: Forest, about: Mapping[str, Any] | None = None, *, force: bool = False
) -> Judge:
    """Write a judge; the folder appears whole or not at all, and equal judges are equal bytes.

    Raises
    ------
    OutputExistsError
        If something is there, and `force` is not given; or what is there is no judge.
    """
    from safetensors.numpy import save

    require_free(folder, force=force)
    weights = save({name: getattr(forest, name) for name in _ARRAYS})
    config: dict[str, Any] = {
        "kind": "judge", "format": FORMAT_VERSION, "features": FEATURE_SPEC,
        "trees": len(forest.root_T), "nodes": len(forest.feature_K), "about": dict(about or {}),
    }  # fmt: skip
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir()
        (temporary / WEIGHTS).write_bytes(weights)
        (temporary / CONFIG).write_text(text, "utf-8")
        if folder.exists():
            for name in (WEIGHTS, CONFIG):  # a model card beside them stays
                (temporary / name).replace(folder / name)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Judge(forest, _id(weights), config["about"])


def require_free(folder: Path, *, force: bool) -> None:
    """Refuse a place that holds something which is not to be replaced. Raises as `save_judge`."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / CONFIG).is_file()):
        raise OutputExistsError(f"{folder}: exists and is no judge; choose another name")
    if not force and any(folder.iterdir()):
        raise OutputExistsError(f"{folder}: exists; give --force to replace it")


@lru_cache(maxsize=4)
def load_judge(folder: Path) -> Judge:
    """Read a judge, also one from a stranger: nothing in the files is ever run.

    Raises
    ------
    InputNotFoundError
        If the folder, or one of its two files, is not there.
    InputError
        If it is no judge, is damaged, or was made for other features than this version computes.
    """
    config = _read_config(folder)
    content = _bytes(folder, WEIGHTS)
    forest = _read_forest(folder / WEIGHTS, content)
    fault = forest.fault(N_FEATURES)
    if fault:
        raise InputError(f"{folder / WEIGHTS}: damaged ({fault}); get the model again")
    about = config.get("about")
    return Judge(forest, _id(content), about if isinstance(about, dict) else {})


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(_bytes(folder, CONFIG))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is not valid JSON; get the model again") from None
    if not isinstance(config, dict) or config.get("kind") != "judge":
        kind = config.get("kind", "nothing known") if isinstance(config, dict) else "no object"
        raise InputError(f"{path}: describes {kind!s:.40}, not a quality judge; name another model")
    if config.get("format") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format {config.get('format')!s:.20}, but this version reads {FORMAT_VERSION};"
            " update mgen or train the judge again"
        )
    theirs = config.get("features")
    if theirs != FEATURE_SPEC:
        raise InputError(
            f"{path}: judges other features ({_difference(theirs)}); train it again with"
            " `mgen train-filter`"
        )
    return config


def _difference(theirs: object) -> str:
    if not isinstance(theirs, dict):
        return "none are stated"
    for name in [*FEATURE_SPEC, *theirs]:
        if theirs.get(name) != FEATURE_SPEC.get(name):
            there = json.dumps(theirs.get(name))
            return f"{name!s:.20} {there:.60}, here {json.dumps(FEATURE_SPEC.get(name)):.60}"
    return "another order"


def _bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise InputNotFoundError(
            f"{path}: not found; a judge is a folder with {CONFIG} and {WEIGHTS}"
        )
    if path.stat().st_size > _MOST_BYTES[name]:
        raise InputError(f"{path}: {path.stat().st_size} bytes are no quality judge; name another")
    return path.read_bytes()


def _read_forest(path: Path, content: bytes) -> Forest:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        why = (str(error).splitlines() or [""])[0][:60]
        raise InputError(f"{path}: damaged ({why}); get the model again") from None
    found = {name: array.dtype for name, array in arrays.items() if array.ndim == 1}
    if found != _ARRAYS or len(found) != len(arrays):
        raise InputError(f"{path}: does not hold a judge's arrays; get the model again")
    return Forest(**arrays)


def _id(content: bytes) -> str:
    return f"judge-{hashlib.sha256(content).hexdigest()[:12]}"
