"""The shipped tracker's network: log-mel in, beat and downbeat logits out.

A small convolutional front-end over time and pitch, then dilated gated convolutions over time (a
TCN, as Davies and Böck, EUSIPCO 2019, and Böck and Davies, ISMIR 2020, use for beats), here with
per-frame LayerNorm, so that every output depends on a bounded stretch of sound and a song gives
the same logits whatever blocks it is computed in.

Shapes: B batch, T mel frames (100 a second), U output frames (50 a second), M mel bands,
C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.checkpoint import rebuild, save_model

KIND = "beat-tracker"
MELS_PER_FRAME = 2
BLOCK_U = 6000
"""Output frames computed at once: two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatNetConfig:
    """Sizes of the network."""

    mels: int = 80
    front: tuple[int, int] = (16, 32)
    width: int = 96
    depth: int = 9
    kernel: int = 5
    dropout: float = 0.1

    @property
    def reach_u(self) -> int:
        """Output frames on either side that an output depends on (the front-end's rounded up)."""
        return (self.kernel // 2) * (2**self.depth - 1) + 2


class GatedBlock(nn.Module):
    """LayerNorm per frame, dilated convolution, gate, projection, residual."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Conv1d(
            width, 2 * width, kernel, padding=dilation * (kernel // 2), dilation=dilation
        )
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BCU: Tensor) -> Tensor:
        """Same shape out."""
        value, gate = self.spread(self.norm(x_BCU.transpose(1, 2)).transpose(1, 2)).chunk(2, dim=1)
        return x_BCU + self.mix(self.dropout(value * torch.sigmoid(gate)))


class BeatNet(nn.Module):
    """Log-mel (B, T, M) as kernels.log_mel's ONSETS gives it -> logits (B, T / 2, 2)."""

    def __init__(self, config: BeatNetConfig) -> None:
        super().__init__()
        self.config = config
        low, high = config.front
        self.level = nn.BatchNorm1d(config.mels)
        self.front1 = nn.Conv2d(1, low, (5, 4), stride=(MELS_PER_FRAME, 2), padding=(2, 1))
        self.norm1 = nn.BatchNorm2d(low)
        self.front2 = nn.Conv2d(low, high, (3, 4), stride=(1, 2), padding=(1, 1))
        self.norm2 = nn.BatchNorm2d(high)
        self.enter = nn.Conv1d(high * (config.mels // 4), config.width, 1)
        self.blocks = nn.ModuleList(
            GatedBlock(config.width, config.kernel, 2**i, config.dropout)
            for i in range(config.depth)
        )
        self.leave = nn.Conv1d(config.width, 2, 1)
        nn.init.constant_(self.leave.bias, -3.0)  # type: ignore[arg-type]  # beats are rare

    def forward(self, mel_BTM: Tensor) -> Tensor:
        """Logits of beat and downbeat (B, U, 2)."""
        x = self.level(mel_BTM.transpose(1, 2)).transpose(1, 2)[:, None]
        x = F.elu(self.norm1(self.front1(x)))
        x = F.elu(self.norm2(self.front2(x)))
        x_BCU = self.enter(x.permute(0, 1, 3, 2).flatten(1, 2))
        for block in self.blocks:
            x_BCU = block(x_BCU)
        logits_BU2: Tensor = self.leave(x_BCU).transpose(1, 2)
        return logits_BU2


def save_beat_net(net: BeatNet, folder: Path, about: Mapping[str, Any]) -> None:
    """Write a model's folder (`checkpoint.save_model`): half-precision tensors, and a config that
    rebuilds it and says what `about` does.
    """
    save_model(folder, net.state_dict(), {KIND: asdict(net.config), **about}, KIND)


@lru_cache(maxsize=2)
def load_beat_net(folder: Path) -> BeatNet:
    """Rebuild a model from its folder, ready to use.

    Raises
    ------
    InputNotFoundError
        If the folder or a file in it is missing.
    InputError
        If it holds something else, a newer format, or not what was written.
    """

    def untrained(sizes: Mapping[str, Any]) -> BeatNet:
        return BeatNet(BeatNetConfig(**{**sizes, "front": tuple(sizes["front"])}))

    return rebuild(folder, KIND, untrained)[0].eval()


class LogitStream:
    """Logits of a whole song from its log-mel, pushed in pieces; memory stays flat.

    Blocks overlap by what an output depends on, so the result is that of one pass (up to the
    rounding of sums).
    """

    def __init__(self, net: BeatNet) -> None:
        self.net = net
        self.step = BLOCK_U * MELS_PER_FRAME
        self.reach = net.config.reach_u * MELS_PER_FRAME
        self.held_TM = np.zeros((0, net.config.mels), np.float32)
        self.before = 0
        """Frames held that are context only: their logits are out already."""
        self.out: list[npt.NDArray[np.float32]] = []

    def push(self, mel_TM: npt.NDArray[np.float32]) -> None:
        """Take the next frames (t, M)."""
        self.held_TM = np.concatenate([self.held_TM, mel_TM])
        while len(self.held_TM) >= self.before + self.step + self.reach:
            self._run(self.step, self.held_TM[: self.before + self.step + self.reach])
            done = self.before + self.step
            kept = max(0, done - self.reach)
            self.held_TM, self.before = self.held_TM[kept:], done - kept

    def finish(self) -> npt.NDArray[np.float32]:
        """All logits (U, 2): beat and downbeat, 50 a second."""
        left = len(self.held_TM) - self.before
        if left > 0:
            self._run(left, self.held_TM)
        return np.concatenate(self.out) if self.out else np.zeros((0, 2), np.float32)

    def _run(self, wanted: int, window_TM: npt.NDArray[np.float32]) -> None:
        with torch.inference_mode():
            logits_U2 = self.net(torch.from_numpy(window_TM)[None])[0].numpy()
        first = self.before // MELS_PER_FRAME
        self.out.append(logits_U2[first : first - (-wanted // MELS_PER_FRAME)])
