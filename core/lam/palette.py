"""Palettes: the actions that people name by number, 0 to N - 1, whatever the bottleneck.

A palette is a folder of safetensors and JSON; its id is a hash of all that is in it. Numbers never
change inside a palette: curating one makes another, with another id.

Letters: R rows of a palette, C candidates, K numbers of a payload, A width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgen.core.checkpoint import content_id, load_model, save_model
from mgen.core.errors import InputError, OutputExistsError, UsageError
from mgen.core.lam.folder import LatentActionModel
from mgen.core.quantizers import Payload

KIND = "palette"
ROWS = 64

_EXEMPLARS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """A bar that shows an action: the song's id, and the bar's number from 1."""

    song: str
    bar: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteRow:
    """What is known of one action.

    Attributes
    ----------
    name
        What it does, as measured.
    uses, share
        Bars that have it, and what part of all bars' weight it is.
    effect, effect_size
        Mean difference of each figure, and in standard deviations (`core.lam.effects`).
    exemplars
        Bars that show it best.
    """

    name: str
    uses: int
    share: float
    effect: Mapping[str, float] = field(default_factory=dict)
    effect_size: Mapping[str, float] = field(default_factory=dict)
    exemplars: tuple[Exemplar, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return {
            "name": self.name, "uses": self.uses, "share": self.share, "effect": dict(self.effect),
            "effect_size": dict(self.effect_size),
            "exemplars": [{"song": e.song, "bar": e.bar} for e in self.exemplars],
        }  # fmt: skip

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> PaletteRow:
        """Rebuild what `to_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a field is missing, unknown or no number.
        """
        return cls(
            name=str(given["name"]), uses=int(given["uses"]), share=float(given["share"]),
            effect={str(k): float(v) for k, v in given["effect"].items()},
            effect_size={str(k): float(v) for k, v in given["effect_size"].items()},
            exemplars=tuple(
                Exemplar(song=str(e["song"]), bar=int(e["bar"])) for e in given["exemplars"]
            ),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Palette:
    """Actions by number.

    Attributes
    ----------
    lam
        Id of the latent action model that they are of.
    bottleneck
        Its kind of action.
    payload
        (R, K): what a row is to the model.
    embedding_RA
        The same after the bottleneck, float32.
    rows
        What is known of each.
    parent
        Id of the palette that this was chosen from; empty for a model's own.
    id
        Hash of all of it.
    """

    lam: str
    bottleneck: str
    payload: Payload
    embedding_RA: Tensor
    rows: tuple[PaletteRow, ...]
    parent: str = ""
    id: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def embed(self, mix: Mapping[int, float]) -> Tensor:
        """The embedding (A,) of a mix: the weighted sum of its rows'.

        Parameters
        ----------
        mix
            Weights by number of the row, taken as they are; `{17: 1.0}` is action 17.

        Raises
        ------
        UsageError
            If a number is not of this palette, a weight is not finite, or there is none.
        """
        if not mix:
            raise UsageError("a mix of no actions is none; name one: --action 17")
        for row, weight in mix.items():
            self._check(row)
            if not np.isfinite(weight):
                raise UsageError(f"action {row} counts {weight}; give a number")
        rows = torch.tensor(list(mix))
        weights = torch.tensor(list(mix.values()), dtype=torch.float32)
        return (weights[:, None] * self.embedding_RA[rows]).sum(0)

    def payload_of(self, row: int) -> Payload:
        """What one action is to the model: payload (K,)."""
        self._check(row)
        return Payload(self.payload.index[row], self.payload.weight[row])

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self):
            raise UsageError(f"there is no action {row}; the palette has 0 to {len(self) - 1}")


def make_palette(
    lam: LatentActionModel, payload: Payload, rows: Sequence[PaletteRow], parent: str = ""
) -> Palette:
    """A palette of a model's payloads (R, K)."""
    made = Palette(
        lam=lam.id, bottleneck=lam.config.bottleneck, payload=payload,
        embedding_RA=lam.embed(payload), rows=tuple(rows), parent=parent,
    )  # fmt: skip
    return replace(made, id=_id(made))


def curate(palette: Palette, wanted: Sequence[int]) -> Palette:
    """A new palette of some rows of one, in this order, numbered from 0.

    Raises
    ------
    UsageError
        If a row is not there, or is named twice, or none is.
    """
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError("name the actions to keep, each once: --curate 3,17,40")
    for row in wanted:
        palette.payload_of(row)
    at = torch.tensor(list(wanted))
    payload = Payload(palette.payload.index[at], palette.payload.weight[at])
    made = replace(
        palette, payload=payload, embedding_RA=palette.embedding_RA[at],
        rows=tuple(palette.rows[row] for row in wanted), parent=palette.id, id="",
    )  # fmt: skip
    return replace(made, id=_id(made))


def save_palette(palette: Palette, folder: Path, *, force: bool = False) -> str:
    """Write a palette's folder; gives its id.

    Raises
    ------
    OutputExistsError
        If something else is there, or a palette and not `force`.
    """
    if folder.exists():
        if not force:
            raise OutputExistsError(f"{folder}: exists; --force replaces a palette")
        if not folder.is_dir() or (any(folder.iterdir()) and not _is_palette(folder)):
            raise OutputExistsError(f"{folder}: exists and is no palette; choose another name")
    return save_model(folder, _tensors(palette), _about(palette), KIND, torch.float32)


def load_palette(folder: Path) -> Palette:
    """Read a palette.

    Raises
    ------
    InputNotFoundError, InputError
        If there is none, or it is damaged.
    """
    about, state = load_model(folder, KIND)
    try:
        rows = tuple(PaletteRow.from_json(row) for row in about["rows"])
        index, weight = state["index"], state["weight"].float()
        embedding_RA = state["embedding"].float()
        if not (index.shape == weight.shape and index.ndim == 2 and embedding_RA.ndim == 2):
            raise ValueError("shapes")
        if not len(rows) == len(index) == len(embedding_RA) or not rows:
            raise ValueError("rows")
        return Palette(
            lam=str(about["lam"]), bottleneck=str(about["bottleneck"]),
            payload=Payload(index.long(), weight), embedding_RA=embedding_RA, rows=rows,
            parent=str(about["parent"]), id=str(about["id"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: damaged ({error}); copy the palette again") from error


def candidates_of(
    lam: LatentActionModel, labels: Payload
) -> tuple[Payload, list[np.ndarray[Any, np.dtype[np.int64]]]]:
    """Every action that a palette could have, and the bars that carry it.

    Codes: each by itself. Styles: each embedding alone, carried by the bars among whose largest
    weights it is. Residual codes: each beginning of a tuple that occurs, at its depth.

    Parameters
    ----------
    lam
        The model.
    labels
        The actions of all bars (X, K).
    """
    config = lam.config
    index_XK, width = labels.index.numpy(), config.numbers
    if config.bottleneck == "residual-fsq":
        return _beginnings(index_XK)
    alone_CK = np.zeros((config.actions, width), np.int64)
    alone_CK[:, 0] = np.arange(config.actions)
    weight_CK = np.zeros((config.actions, width), np.float32)
    weight_CK[:, 0] = 1.0
    has_XK = labels.weight.numpy() > 0
    carriers = [
        np.flatnonzero(((index_XK == n) & has_XK).any(axis=1)) for n in range(config.actions)
    ]
    return Payload(torch.from_numpy(alone_CK), torch.from_numpy(weight_CK)), carriers


def choose(embedding_CA: Tensor, uses_C: Sequence[int], count: int = ROWS) -> list[int]:
    """Which candidates make a palette: all where they are few, else the used and diverse ones.

    Greedy: the most used first, then always the one whose log use times distance to the nearest
    that is chosen is largest. Unused ones are never chosen.
    """
    if len(uses_C) <= count:
        return list(range(len(uses_C)))
    use_C = torch.log1p(torch.tensor(list(uses_C), dtype=torch.float64))
    place_CA = embedding_CA.double()
    chosen: list[int] = []
    near_C = torch.full_like(use_C, torch.inf)
    while len(chosen) < count:
        score_C = use_C if not chosen else use_C * near_C
        best = int(score_C.argmax())
        if score_C[best] <= 0:
            break
        chosen.append(best)
        near_C = torch.minimum(near_C, (place_CA - place_CA[best]).norm(dim=-1))
    return chosen


def _beginnings(
    index_XK: np.ndarray[Any, np.dtype[np.int64]],
) -> tuple[Payload, list[np.ndarray[Any, np.dtype[np.int64]]]]:
    n_numbers = index_XK.shape[1]
    found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    weights: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    carriers: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    for depth in range(1, n_numbers + 1):
        tuples, which = np.unique(index_XK[:, :depth], axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1])
        for one, rows in zip(tuples, groups, strict=True):
            found.append(np.pad(one, (0, n_numbers - depth)))
            weights.append((np.arange(n_numbers) < depth).astype(np.float32))
            carriers.append(rows)
    payload = Payload(torch.from_numpy(np.stack(found)), torch.from_numpy(np.stack(weights)))
    return payload, carriers


def exemplars_of(
    rows: np.ndarray[Any, np.dtype[np.int64]],
    weight_X: np.ndarray[Any, np.dtype[np.float64]],
    song_X: np.ndarray[Any, np.dtype[Any]],
) -> list[int]:
    """Up to three bars that show an action: the largest weights, each of another song if it can."""
    order = rows[np.argsort(-weight_X[rows], kind="stable")].tolist()
    first_of_song: dict[Any, int] = {}
    for row in order:
        first_of_song.setdefault(song_X[row], row)
    firsts = list(first_of_song.values())
    taken = set(firsts)
    return [*firsts, *(row for row in order if row not in taken)][:_EXEMPLARS]


def _tensors(palette: Palette) -> dict[str, Tensor]:
    return {
        "index": palette.payload.index, "weight": palette.payload.weight,
        "embedding": palette.embedding_RA,
    }  # fmt: skip


def _about(palette: Palette) -> dict[str, Any]:
    return {
        "lam": palette.lam, "bottleneck": palette.bottleneck, "parent": palette.parent,
        "rows": [row.to_json() for row in palette.rows],
    }  # fmt: skip


def _id(palette: Palette) -> str:
    return content_id(_tensors(palette), _about(palette), KIND, torch.float32)


def _is_palette(folder: Path) -> bool:
    try:
        load_model(folder, KIND)
    except (InputError, OSError):
        return False
    return True
