"""`LatentActionModel`: bars to actions, ready to use, and the folder that it lives in.

Letters: S sequences, B bars, L tokens, F features, X bars of one song, K numbers of a payload,
A width of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgen.core.checkpoint import rebuild, save_model
from mgen.core.lam.config import LamConfig
from mgen.core.lam.model import ActionNetwork
from mgen.core.lam.usual import Usual, usual_of
from mgen.core.quantizers import Payload

KIND = "lam"

_WINDOWS = 16
"""Windows of a song that are encoded at once."""


class LatentActionModel:
    """A trained latent action model.

    Attributes
    ----------
    config
        Its shape.
    id
        Hash of its config and weights; the same wherever the folder lies.
    network
        The network itself, in eval mode.
    """

    def __init__(self, network: ActionNetwork, model_id: str = "") -> None:
        self.network = network.eval()
        self.config, self.id = network.config, model_id

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @property
    def width(self) -> int:
        """A: numbers of an embedding."""
        return self.config.sizes.embedding

    @property
    def by_bar(self) -> bool:
        """Whether a bar's action depends on that bar alone (and the average bar of its song)."""
        return not self.config.steps and self.config.bars_per_action == 1

    @torch.inference_mode()
    def label(self, features_XLF: Tensor, usual: Usual | None = None) -> Payload:
        """The action of every bar of one song, on the CPU: payloads (X, K).

        A song is read in windows of the length that the model was trained on. Each half overlaps
        the one before, so that a bar is always seen with at least half a window of what leads up
        to it (where there is so much). Bars that share an action get the same one; at the end of a
        song whose number of bars is no multiple, the last unit overlaps the one before.

        Parameters
        ----------
        features_XLF
            Latents of the bars, or their log-mel, as the config's `input` says; X at least 1.
            Relative styles take what is usual from these bars: give them all, or
        usual
            what is usual in the song; some bars are then enough where `by_bar` says so.
        """
        n_bars, per = len(features_XLF), self.config.bars_per_action
        if self.config.relative:
            features_XLF = (usual or usual_of(features_XLF)).left_of(features_XLF)
        rows_UG = torch.tensor(_units(n_bars, per))
        whole_UGLF = features_XLF[rows_UG].float()
        n_units, window = len(rows_UG), self.config.bars // per
        starts = _windows(n_units, window) if self.config.steps else list(range(0, n_units, window))
        index = torch.zeros(n_units, self.config.numbers, dtype=torch.int64)
        weight = torch.zeros(n_units, self.config.numbers)
        # windows of one length go together; only a short song, or its end, has another
        for at in range(0, len(starts), _WINDOWS):
            for same in _of_one_length(starts[at : at + _WINDOWS], n_units, window):
                length = min(window, n_units - same[0])
                x_SBLF = torch.stack(
                    [whole_UGLF[s : s + length].flatten(0, 1) for s in same]
                ).to(self.device)  # fmt: skip
                found = self.network.infer(x_SBLF).payload
                for i, start in enumerate(same):
                    overlaps = self.config.steps and start > 0
                    fresh = length - max(1, length // 2) if overlaps else 0
                    rows = slice(start + fresh, start + length)
                    index[rows] = found.index[i, fresh:].cpu()
                    weight[rows] = found.weight[i, fresh:].float().cpu()
        bar_unit_X = torch.zeros(n_bars, dtype=torch.int64)
        for unit in reversed(range(n_units)):  # where the last overlaps, the one before counts
            bar_unit_X[rows_UG[unit]] = unit
        return Payload(index[bar_unit_X], weight[bar_unit_X])

    @torch.inference_mode()
    def embed(self, payload: Payload) -> Tensor:
        """Embeddings (..., A) of payloads (..., K): set A, that of palettes and mixes."""
        there = Payload(payload.index.to(self.device), payload.weight.to(self.device))
        return self.network.embed(there).float().cpu()

    @torch.inference_mode()
    def inform(self, embedding: Tensor) -> Tensor:
        """Set A -> set B', what the dynamics model is told; the same where there is no mapping."""
        return self.network.inform(embedding.to(self.device)).float().cpu()


def _units(n_bars: int, per: int) -> list[list[int]]:
    """Rows of the bars of each unit: end to end, the last one ending with the song; a song of
    fewer bars than a unit repeats its last.
    """
    if n_bars < per:
        return [[min(i, n_bars - 1) for i in range(per)]]
    starts = [min(at, n_bars - per) for at in range(0, n_bars, per)]
    return [list(range(start, start + per)) for start in starts]


def _windows(n_units: int, window: int) -> list[int]:
    """Starts of windows that overlap by at least half; the last one ends with the song."""
    if n_units <= window:
        return [0]
    starts = list(range(0, n_units - window, max(1, window // 2)))
    return [*starts, n_units - window]


def _of_one_length(starts: list[int], n_units: int, window: int) -> list[list[int]]:
    whole = [s for s in starts if s + window <= n_units]
    return [part for part in (whole, [s for s in starts if s + window > n_units]) if part]


def save_lam(network: ActionNetwork, folder: Path, about: dict[str, Any]) -> str:
    """Write a model's folder; gives its id.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    config = {**about, "lam": network.config.to_json()}
    return save_model(folder, network.state_dict(), config, KIND)


def load_lam(folder: Path, device: str = "cpu") -> LatentActionModel:
    """Read a latent action model from its folder. Raises as `mgen.core.checkpoint.rebuild`."""
    network, model_id = rebuild(folder, KIND, lambda c: ActionNetwork(LamConfig.from_json(c)))
    return LatentActionModel(network.to(device), model_id)
