"""The corpus on disk: one Zarr v3 folder, a layer per stage.

    with Store.open("s.zarr") as store:
        for song in store.songs():
            second_one = store.song_pcm(song.index)[:16000]

Plain `zarr.open_group` opens it too; the lengths in each layer's attribute `mgen` are what counts.
"""

from mgen.core.store.check import Finding
from mgen.core.store.check import check_store as check
from mgen.core.store.layer import Provenance
from mgen.core.store.maps import StoredMap
from mgen.core.store.schema import FORMAT_VERSION, LATENTS, LAYERS, RATE, latents_layer
from mgen.core.store.store import Store
from mgen.core.store.tables import BarTable, SongPcm, SongRow

__all__ = [
    "FORMAT_VERSION", "LATENTS", "LAYERS", "RATE", "BarTable", "Finding", "Provenance", "SongPcm",
    "SongRow", "Store", "StoredMap", "check", "latents_layer",
]  # fmt: skip
