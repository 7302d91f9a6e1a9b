"""`actions/<lam id>`: what a latent action model says of every bar of a store.

Letters: B bars, K numbers of a bar's action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mgen.core.store.layer import Provenance
from mgen.core.store.schema import ACTIONS

if TYPE_CHECKING:
    from mgen.core.store.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class StoredActions:
    """The actions of bars (B, K): which, and how much each counts (codes: 1).

    Row i belongs to row i of the layer `bars`, jittered copies and bars not fit to learn from too.
    """

    index: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]


def read_actions(store: Store, lam: str, song: int | None = None) -> StoredActions:
    """The actions of a song's bars by one model (12 digits of its id), or of all.

    Raises
    ------
    StoreError
        If there are none by that model, or the store is damaged.
    """
    name = f"{ACTIONS}/{lam}"
    if store.need(name).spec.facts["bottleneck"] == "style":
        index_BK = store.song_rows(name, "index", song)
        return StoredActions(index_BK, store.song_rows(name, "weight", song))
    codes_BK = store.song_rows(name, "codes", song)
    return StoredActions(codes_BK, np.ones(codes_BK.shape, np.float32))


def append_actions(store: Store, lam: str, actions: StoredActions, provenance: Provenance) -> int:
    """Append and publish the actions of the next song (none for a rejected one).

    `begin(actions_layer(...))` comes first.

    Raises
    ------
    ValueError
        If they are not as many numbers a bar as the layer has.
    """
    name = f"{ACTIONS}/{lam}"
    facts = store.need(name).spec.facts
    index_BK, weight_BK = np.asarray(actions.index), np.asarray(actions.weight)
    if index_BK.shape != weight_BK.shape or index_BK.shape[1:] != (facts["numbers"],):
        raise ValueError(f"actions {index_BK.shape} are not bars of {facts['numbers']}")
    if facts["bottleneck"] == "style":
        columns = {"index": index_BK.astype(np.int32), "weight": weight_BK.astype(np.float32)}
        return store.append_rows(name, columns, provenance)
    return store.append_rows(name, {"codes": index_BK.astype(np.int32)}, provenance)
