"""The corpus on disk: one Zarr v3 folder, a layer per stage.

    with Store.open("s.zarr") as store:
        for song in store.songs():
            second_one = store.song_pcm(song.index)[:16000]

Plain `zarr.open_group` opens it too; the lengths in each layer's attribute `mgen` are what counts.
"""

from mgen.core.store.actions import StoredActions, append_actions, read_actions
from mgen.core.store.check import Finding
from mgen.core.store.check import check_store as check
from mgen.core.store.current import ID_DIGITS, current_model, link_current
from mgen.core.store.layer import Provenance
from mgen.core.store.maps import StoredMap
from mgen.core.store.passes import SongReport, add_layer
from mgen.core.store.schema import (
    ACTIONS,
    FORMAT_VERSION,
    LATENTS,
    LAYERS,
    RATE,
    actions_layer,
    latents_layer,
)
from mgen.core.store.store import Store
from mgen.core.store.tables import BarTable, SongPcm, SongRow
from mgen.core.store.takes import StoredTake, Takes

__all__ = [
    "ACTIONS", "FORMAT_VERSION", "ID_DIGITS", "LATENTS", "LAYERS", "RATE", "BarTable", "Finding",
    "Provenance", "SongPcm", "SongReport", "SongRow", "Store", "StoredActions", "StoredMap",
    "StoredTake", "Takes", "actions_layer", "add_layer", "append_actions",
    "check", "current_model", "latents_layer", "link_current", "read_actions",
]  # fmt: skip
