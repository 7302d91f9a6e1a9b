"""What latents tell of a sound without any sampling: the levels of its bands, frame by frame.

Letters: N samples, T frames, M bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgen.core.tokenizer.bands import Bands

RANGE_DB, PITCH_RANGE_DB = 80.0, 50.0
"""Below the loudest band by more than this nothing is told apart: of mel bands, of semitones."""
MATCH_DB = 20.0
"""By how much at most one round of `match_levels` moves the level of a band."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandLevels:
    """Levels of one mono sound, in units of 10 dB.

    Attributes
    ----------
    mel, pitch
        The bands: mel bands over short frames, semitones over long ones, of one hop.
    mel_TM, pitch_TM
        Their levels; frame t is centred on the middle of its hop.
    """

    mel: Bands
    pitch: Bands
    mel_TM: Tensor
    pitch_TM: Tensor

    def __len__(self) -> int:
        return len(self.mel_TM)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.mel.hop

    def at(self, frames_T: npt.NDArray[np.float64]) -> Self:
        """Levels between the frames, linear in decibels; those at the ends go on beyond them.

        Parameters
        ----------
        frames_T
            Places counted in frames of these levels; 0 is the middle of the first.
        """
        place_T = torch.from_numpy(frames_T).to(self.mel_TM.device).clamp(0, len(self) - 1)
        low_T = place_T.floor().long()
        high_T = (low_T + 1).clamp(max=len(self) - 1)
        share_T1 = (place_T - low_T).float()[:, None]
        mel, pitch = (
            x_TM[low_T] * (1 - share_T1) + x_TM[high_T] * share_T1
            for x_TM in (self.mel_TM, self.pitch_TM)
        )
        return replace(self, mel_TM=mel, pitch_TM=pitch)

    def moved(self, by: float | npt.NDArray[np.float64]) -> Self:
        """All levels moved, in units of 10 dB: by one number, or by one for each frame (T,)."""
        by_T1 = torch.as_tensor(by, dtype=torch.float32, device=self.mel_TM.device).reshape(-1, 1)
        return replace(self, mel_TM=self.mel_TM + by_T1, pitch_TM=self.pitch_TM + by_T1)

    def part(self, first: int, last: int) -> Self:
        """Frames `first` to `last`, that one not included."""
        return replace(self, mel_TM=self.mel_TM[first:last], pitch_TM=self.pitch_TM[first:last])

    def mel_of(self, samples_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Levels (T, M) of the mel bands alone of a sound (whole hops)."""
        levels_TM: npt.NDArray[np.float32] = (
            self.mel.levels(self._tensor(samples_N))[0, 0].cpu().numpy()
        )
        return levels_TM

    def of(self, samples_N: npt.NDArray[np.float32]) -> Self:
        """Levels of a sound (whole hops) in the same bands."""
        sound_11N = self._tensor(samples_N)
        return replace(
            self, mel_TM=self.mel.levels(sound_11N)[0, 0],
            pitch_TM=self.pitch.levels(sound_11N)[0, 0],
        )  # fmt: skip

    def bring(
        self, samples_N: npt.NDArray[np.float32], rounds: int, over: int = 1
    ) -> npt.NDArray[np.float32]:
        """A sound of as many frames, brought to these levels as `match_levels` does it."""
        made_11N = match_levels(
            self._tensor(samples_N), self.mel, self.mel_TM[None, None], self.pitch,
            self.pitch_TM[None, None], rounds, over,
        )  # fmt: skip
        out_N: npt.NDArray[np.float32] = made_11N[0, 0].cpu().numpy()
        return out_N

    def _tensor(self, samples_N: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(samples_N).to(self.mel_TM.device)[None, None]


def joined(parts: Sequence[BandLevels]) -> BandLevels:
    """Levels of sounds that follow each other."""
    return replace(
        parts[0], mel_TM=torch.cat([p.mel_TM for p in parts]),
        pitch_TM=torch.cat([p.pitch_TM for p in parts]),
    )  # fmt: skip


def match_levels(
    samples_BCN: Tensor, mel: Bands, mel_BCTM: Tensor, pitch: Bands, pitch_BCTM: Tensor,
    rounds: int, over: int = 1,
) -> Tensor:  # fmt: skip
    """Bring semitones and mel bands of sounds (B, C, N) to given levels, phases as they are.

    Parameters
    ----------
    rounds
        How often: the bands overlap, so levels come near step by step.
    over
        Odd number of frames whose mean amplitude is brought to that of the levels.
    """
    for _ in range(rounds):
        samples_BCN = pitch.bring_to(
            samples_BCN, pitch_BCTM, range_db=PITCH_RANGE_DB, most_db=MATCH_DB, over=over
        )
        samples_BCN = mel.bring_to(
            samples_BCN, mel_BCTM, range_db=RANGE_DB, most_db=MATCH_DB, over=over
        )
    return samples_BCN
