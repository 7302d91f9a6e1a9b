"""The pass over a store that finds the action of every bar; a generator of reports.

Letters: X bars, L tokens, F features, K numbers of a bar's action.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mgen.core.errors import InputError
from mgen.core.lam.data import bar_latents, bar_mel
from mgen.core.lam.folder import LatentActionModel, load_lam
from mgen.core.lam.palette import Palette, load_palette
from mgen.core.store import (
    ID_DIGITS,
    BarTable,
    Provenance,
    SongReport,
    SongRow,
    Store,
    StoredActions,
    actions_layer,
    add_layer,
    append_actions,
    current_model,
)
from mgen.core.store.schema import LayerSpec

STAGE = "lam"
PALETTE = "palette"
"""Where in a model's folder its own palette lies."""

_BARS_AT_ONCE = 64


def actions_id(lam: LatentActionModel) -> str:
    """What a model's layer of actions is called."""
    return lam.id[:ID_DIGITS]


def current_lam(
    store: Store | None, given: Path | None = None, device: str = "cpu"
) -> tuple[LatentActionModel, Path]:
    """The model that was named, else the store's current one, else the one that ships; and its
    folder. Raises as `mgen.core.store.current_model`.
    """
    load = partial(load_lam, device=device)
    return current_model(store, STAGE, given, load, noun="latent action model")


def current_palette(lam: LatentActionModel, folder: Path, given: Path | None = None) -> Palette:
    """The palette that was named, else the model's own.

    Raises
    ------
    InputNotFoundError, InputError
        If it is not there, is damaged, or is of another model.
    """
    place = given or folder / PALETTE
    palette = load_palette(place)
    if palette.lam != lam.id:
        raise InputError(
            f"{place}: a palette of the model {palette.lam[:ID_DIGITS]}, not of"
            f" {actions_id(lam)}; name the one of this model, or the model: --lam"
        )
    return palette


def lam_layer(lam: LatentActionModel) -> LayerSpec:
    """The layer that a model labels."""
    config = lam.config
    return actions_layer(
        actions_id(lam), bottleneck=config.bottleneck, actions=config.actions,
        numbers=config.numbers, bars_per_action=config.bars_per_action, input=config.input,
        tokenizer=config.tokenizer,
    )  # fmt: skip


# bars -> actions


def label_songs(
    store: Store,
    lam: LatentActionModel,
    *,
    resume: bool = True,
    force: bool = False,
    command: str = "",
) -> Generator[SongReport]:
    """Find the action of every bar of a store, jittered copies and invalid bars too.

    Parameters
    ----------
    store
        Open for appending.
    lam
        Its id names the layer; those of other models stay.
    resume, force
        Either way (`resume` off, `force` on) the layer is made again from the first song.

    Raises
    ------
    StaleError
        If its bars or latents, or the actions themselves, are stale (the actions: without
        `force`).
    StoreError
        If songs have no latents by the model's tokenizer yet, or none of bars.
    """
    made = Provenance(command=command, model=lam.id)

    def add(song: SongRow) -> int:
        found = label_song(store, song.index, lam)
        append_actions(store, actions_id(lam), found, made)
        return len(found.index)

    yield from add_layer(store, lam_layer(lam), made, add, anew=force or not resume)


def label_song(store: Store, song: int, lam: LatentActionModel) -> StoredActions:
    """The actions of a song's bars, each jittered copy by itself; nothing is written."""
    table = store.bars(song, jittered=True)
    features_XLF = _features(store, song, table, lam)
    index_XK = np.zeros((len(table), lam.config.numbers), np.int32)
    weight_XK = np.zeros(index_XK.shape, np.float32)
    for copy in np.unique(table.jitter):
        rows = np.flatnonzero(table.jitter == copy)
        found = lam.label(torch.from_numpy(features_XLF[rows]))
        index_XK[rows], weight_XK[rows] = found.index.numpy(), found.weight.numpy()
    return StoredActions(index_XK, weight_XK)


def _features(
    store: Store, song: int, table: BarTable, lam: LatentActionModel
) -> npt.NDArray[np.float16]:
    """What the model reads of a song's bars (X, L, F)."""
    if lam.config.input == "latents":
        return bar_latents(store, lam.config.tokenizer, song)
    parts = [np.zeros((0, lam.config.tokens, lam.config.features), np.float16)]
    for at in range(0, len(table), _BARS_AT_ONCE):
        rows = table.row[at : at + _BARS_AT_ONCE]
        pcm_XN = store.bar_pcm(slice(int(rows[0]), int(rows[-1]) + 1))
        parts.append(bar_mel(pcm_XN, lam.config.tokens))
    return np.concatenate(parts)
