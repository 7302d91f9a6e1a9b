"""Which model of a stage a command works with: the one named, the store's own, or the shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from mgen.core import weights
from mgen.core.errors import InputNotFoundError, StoreError
from mgen.core.store.store import Store
from mgen.core.weights import shipped

ID_DIGITS = 12
"""Digits of a model's id that names and messages carry."""


class _Model(Protocol):
    @property
    def id(self) -> str: ...


M = TypeVar("M", bound=_Model)


def current_model(
    store: Store | None, stage: str, given: Path | None, load: Callable[[Path], M], *, noun: str
) -> tuple[M, Path]:
    """The model that was named, else the store's current one, else the one that ships.

    Where the current one shipped with an earlier mgen, it is gone: the one that ships now takes its
    place. What the store holds of the other stays beside.

    Parameters
    ----------
    store
        None where there is no store yet.
    stage
        What its models, its option and its folder under the weights are called.
    given
        The folder that a person named.
    load
        Reads a folder.
    noun
        What a person calls such a model.

    Returns
    -------
    tuple
        The model, and its folder.

    Raises
    ------
    InputNotFoundError, InputError
        If a model that was named, or the one that ships, cannot be read.
    StoreError
        If the store's current one is not where it was, or another is there now.
    """
    if given is not None:
        return load(given), given
    wanted = None if store is None else store.models.get(stage)
    if store is None or wanted is None:
        try:
            folder = shipped(stage)
        except InputNotFoundError:
            has = "" if store is None else f"{store.where}: has no {noun}, and "
            raise InputNotFoundError(
                f"{has}no {noun} ships with this mgen; make one with `mgen train-{stage}`, or name"
                f" one: --{stage} MODEL"
            ) from None
        return load(folder), folder
    path = store.model_path(stage)
    cure = f"name its folder: --{stage} MODEL"
    if path is not None and not (path / "config.json").is_file():
        raise StoreError(
            f"{store.where}: its {noun} {wanted[:ID_DIGITS]} is no more at {path}; {cure}"
        )
    folder = path or shipped(stage)
    model = load(folder)
    if path is not None and model.id != wanted:
        raise StoreError(
            f"{store.where}: its {noun} is {wanted[:ID_DIGITS]}, but {path} is"
            f" {model.id[:ID_DIGITS]} now; {cure}"
        )
    return model, folder


def link_current(store: Store, stage: str, model_id: str, folder: Path) -> None:
    """Make a model the store's current one; of one that ships no place is kept, as it moves with
    the package.
    """
    ships = folder.resolve() == (Path(weights.__file__).parent / stage).resolve()
    store.link_model(stage, model_id, None if ships else folder)
