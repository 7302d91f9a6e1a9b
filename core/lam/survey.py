"""Which actions a corpus has: the palette of a model, with what each of its actions does.

Letters: X bars, K numbers of a bar's action, E figures, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mgen.core.errors import StoreError
from mgen.core.lam.effects import FIGURES, bar_figures, differences, effects_of, shared_information
from mgen.core.lam.folder import LatentActionModel
from mgen.core.lam.palette import (
    ROWS,
    Exemplar,
    Palette,
    PaletteRow,
    candidates_of,
    choose,
    exemplars_of,
    make_palette,
)
from mgen.core.lam.passes import actions_id
from mgen.core.quantizers import Payload, use_figures, use_of
from mgen.core.store import BarTable, Store, read_actions

MEASURED = 6000
"""Bars whose sound is measured, if there are more: whole songs, spread over the corpus."""

_BARS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """The real bars of a corpus that are fit to learn from, with their actions.

    Attributes
    ----------
    labels
        Their actions (X, K).
    song_X, bar_X
        Id of each bar's song, and its number there from 1.
    differences_XE
        What sets it apart (`core.lam.effects`); NaN where it was not measured.
    """

    labels: Payload
    song_X: npt.NDArray[Any]
    bar_X: npt.NDArray[np.int64]
    differences_XE: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.bar_X)


def survey(stores: Sequence[Store], lam: LatentActionModel, *, measure: int = MEASURED) -> Survey:
    """Gather the bars of stores that the model has labelled, and measure their sound.

    Parameters
    ----------
    stores
        Labelled by `label_songs`.
    lam
        The model.
    measure
        How many bars are measured at most; 0 for none.

    Raises
    ------
    StoreError
        If a store has no actions by this model, or there is no bar at all.
    """
    tables, index, weight = [], [], []
    for store in stores:
        found, table = read_actions(store, actions_id(lam)), store.bars(jittered=True)
        real = (table.jitter == 0) & table.valid & (np.arange(len(table)) < len(found.index))
        tables.append(table.where(real))
        index.append(found.index[real[: len(found.index)]])
        weight.append(found.weight[real[: len(found.weight)]])
    total = sum(map(len, tables))
    if not total:
        names = ", ".join(store.where for store in stores)
        raise StoreError(f"{names}: holds no bars with actions; `mgen info` shows what there is")
    every = max(1, -(-total // measure)) if measure else 0
    parts = [
        _differences(store, table, every, steps=lam.config.steps)
        for store, table in zip(stores, tables, strict=True)
    ]
    songs = [
        np.array([store.song(int(song)).id for song in table.song], dtype=object)
        for store, table in zip(stores, tables, strict=True)
    ]
    return Survey(
        labels=Payload(
            torch.from_numpy(np.concatenate(index).astype(np.int64)),
            torch.from_numpy(np.concatenate(weight)),
        ),
        song_X=np.concatenate(songs),
        bar_X=np.concatenate([t.index for t in tables]).astype(np.int64) + 1,
        differences_XE=np.concatenate(parts),
    )


def _differences(
    store: Store, table: BarTable, every: int, *, steps: bool
) -> npt.NDArray[np.float64]:
    """Of the bars of every so many songs; of none where `every` is 0."""
    out_XE = np.full((len(table), len(FIGURES)), np.nan)
    for song in np.unique(table.song)[:: every or None] if every else ():
        rows = np.flatnonzero(table.song == song)
        part = table.where(table.song == song)
        figures = [np.zeros((0, len(FIGURES)))]
        for at in range(0, len(rows), _BARS_AT_ONCE):
            stored = part.row[at : at + _BARS_AT_ONCE]
            first, last = int(stored[0]), int(stored[-1])
            pcm_XN = store.bar_pcm(slice(first, last + 1))[stored - first]
            figures.append(bar_figures(pcm_XN, part.beats[at : at + _BARS_AT_ONCE]))
        out_XE[rows] = differences(np.concatenate(figures), part, steps=steps)
    return out_XE


def find_palette(lam: LatentActionModel, found: Survey, count: int = ROWS) -> Palette:
    """The palette of a model: its used and diverse actions, named by what they do."""
    payload, carriers = candidates_of(lam, found.labels)
    chosen = choose(lam.embed(payload), [len(rows) for rows in carriers], count)
    at = torch.tensor(chosen)
    kept = Payload(payload.index[at], payload.weight[at])
    mine = [carriers[c] for c in chosen]
    return make_palette(lam, kept, _rows(kept, mine, found, steps=lam.config.steps))


def row_facts(lam: LatentActionModel, palette: Palette, found: Survey) -> list[PaletteRow]:
    """What is known of a palette's rows from other bars than it was made of: uses, exemplars and
    effects are these bars', the names stay.
    """
    carriers = [
        _carriers(palette.payload_of(row), found.labels, steps=lam.config.steps)
        for row in range(len(palette))
    ]
    fresh = _rows(palette.payload, carriers, found, steps=lam.config.steps)
    return [
        PaletteRow(name=old.name, uses=new.uses, share=new.share, effect=new.effect,
                   effect_size=new.effect_size, exemplars=new.exemplars)
        for old, new in zip(palette.rows, fresh, strict=True)
    ]  # fmt: skip


def health(lam: LatentActionModel, found: Survey) -> dict[str, float]:
    """How healthy a model's actions are: figures of all its actions, not of the palette alone.

    `utilisation` and `perplexity` (of several quantizers the mean), and `song_information`, the
    normalised mutual information of a bar's first action with its song: low where actions are of
    music in general.
    """
    by_quantizer = lam.network.bottleneck.by_quantizer
    use_QN = use_of(found.labels, lam.config.actions, by_quantizer=by_quantizer)
    figures = {name: float(value) for name, value in use_figures(use_QN).items()}
    first_X = found.labels.index[:, 0].numpy()
    return {**figures, "song_information": shared_information(first_X, found.song_X.astype(str))}


def _carriers(payload: Payload, labels: Payload, *, steps: bool) -> npt.NDArray[np.int64]:
    """Bars that carry one action of a palette: codes at all its depth, styles anywhere."""
    index_XK, wanted_K = labels.index.numpy(), payload.index.numpy()
    if steps:
        depth_K = payload.weight.numpy() > 0
        return np.flatnonzero((index_XK == wanted_K)[:, depth_K].all(axis=1))
    has_XK = labels.weight.numpy() > 0
    return np.flatnonzero(((index_XK == wanted_K[0]) & has_XK).any(axis=1))


def _rows(
    payload: Payload, carriers: Sequence[npt.NDArray[np.int64]], found: Survey, *, steps: bool
) -> list[PaletteRow]:
    rows = []
    effects = effects_of(found.differences_XE, carriers)
    for c, (mine, effect) in enumerate(zip(carriers, effects, strict=True)):
        weight_X = _weight_of(int(payload.index[c, 0]), found.labels)
        shown = exemplars_of(mine, weight_X, found.song_X)
        share = float(weight_X[mine].sum() / len(found)) if not steps else len(mine) / len(found)
        rows.append(
            PaletteRow(
                name=effect.name, uses=len(mine), share=round(share, 6), effect=effect.mean,
                effect_size=effect.size,
                exemplars=tuple(
                    Exemplar(song=str(found.song_X[x]), bar=int(found.bar_X[x])) for x in shown
                ),
            )
        )  # fmt: skip
    return rows


def _weight_of(action: int, labels: Payload) -> npt.NDArray[np.float64]:
    """How much an action counts in each bar (X,)."""
    weight_XK = np.where(labels.index.numpy() == action, labels.weight.numpy(), 0.0)
    weight_X: npt.NDArray[np.float64] = weight_XK.max(axis=1).astype(np.float64)
    return weight_X
