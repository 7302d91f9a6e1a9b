"""From stores to rows of bars: latents, tempo, and what the dynamics model is told of each action;
and the dynamics model that a store names.

Letters: X bars, K numbers of a payload, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgen.core.dynamics.data import BarRows
from mgen.core.dynamics.model import Dynamics, load_dynamics
from mgen.core.errors import StaleError, StoreError
from mgen.core.lam.data import read_bars
from mgen.core.lam.folder import LatentActionModel
from mgen.core.lam.passes import actions_id
from mgen.core.quantizers import Payload
from mgen.core.store import ACTIONS, Store, current_model, read_actions

STAGE = "dynamics"

_AT_ONCE = 1 << 14


def read_rows(stores: Sequence[Store], lam: LatentActionModel) -> BarRows:
    """The bars of stores, jittered copies too, with their actions by one model.

    Parameters
    ----------
    stores
        Open.
    lam
        Made the actions; its config names the tokenizer whose latents are read.

    Raises
    ------
    StaleError, StoreError
        If latents or actions are missing, incomplete or stale.
    """
    bars = read_bars(stores, replace(lam.config, input="latents"))
    bpm, told, single = [], [], []
    for store in stores:
        table, payload = store.bars(jittered=True), stored_payload(store, lam)
        if len(payload.index) != len(table):
            raise StoreError(f"{store.where}: some songs have no actions; run `mgen actions`")
        bpm.append(table.bpm.astype(np.float32))
        told.append(told_of(lam, payload))
        single.append(told_of(lam, single_of(payload)))
    return BarRows(
        z_XLD=bars.z_XLD, bpm_X=np.concatenate(bpm), action_XA=torch.cat(told).numpy(),
        single_XA=torch.cat(single).numpy(), runs=bars.runs, owners=bars.owners,
        copies=bars.copies,
    )  # fmt: skip


def stored_payload(store: Store, lam: LatentActionModel, song: int | None = None) -> Payload:
    """What a store holds of the actions of a song's bars, or of all, by a model (X, K).

    Raises
    ------
    StaleError, StoreError
        If there are none, or the bars have changed since.
    """
    name = f"{ACTIONS}/{actions_id(lam)}"
    if reason := store.stale(name):
        raise StaleError(f"{store.where}: {name} is stale: {reason}; run `mgen actions --force`")
    actions = read_actions(store, actions_id(lam), song)
    return Payload(torch.from_numpy(actions.index).long(), torch.from_numpy(actions.weight))


def told_of(lam: LatentActionModel, payload: Payload) -> Tensor:
    """What the dynamics model is told of actions: embedded, and mapped where the model maps them.

    Payloads (X, K) -> (X, A).
    """
    parts = [
        lam.inform(lam.embed(Payload(index, weight)))
        for index, weight in zip(
            payload.index.split(_AT_ONCE), payload.weight.split(_AT_ONCE), strict=True
        )
    ]
    return torch.cat(parts) if parts else torch.zeros(0, lam.width)


def single_of(payload: Payload) -> Payload:
    """The largest of an action's weights alone, with all the weight; the first among equals."""
    first_X = (payload.weight == payload.weight.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)
    one_XK = torch.zeros_like(payload.weight).scatter(-1, first_X[..., None], 1.0)
    return Payload(payload.index, one_XK)


def current_dynamics(
    store: Store | None, given: Path | None = None, device: str = "cpu"
) -> tuple[Dynamics, Path]:
    """The model that was named, else the store's current one, else the one that ships; and its
    folder. Raises as `mgen.core.store.current_model`.
    """
    load = partial(load_dynamics, device=device)
    return current_model(store, STAGE, given, load, noun="dynamics model")
