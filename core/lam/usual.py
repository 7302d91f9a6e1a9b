"""What is usual in a song, and what is left of its bars without it.

Relative styles are made of what is left: the difference from the average bar of the song, token by
token, turned and scaled so that its numbers have variance 1 and are uncorrelated over the song
(zero-phase whitening: Bell and Sejnowski 1997; Kessy et al. 2018, section 2.1). Without the second
part, the directions in which a song varies, and how much, still tell which song it is.

Letters: X bars of a song, L tokens, F numbers of a token, S sequences, B bars of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_FLOOR = 0.02
"""Variance that is added to that of each number: what hardly varies says little."""


class Usual(NamedTuple):
    """Of one song (L, F) and (F, F), or of each sequence, with S in front.

    Attributes
    ----------
    mean_LF
        The average bar.
    whiten_FF
        What differences from it are multiplied by.
    """

    mean_LF: Tensor
    whiten_FF: Tensor

    def left_of(self, features_BLF: Tensor) -> Tensor:
        """What is left of bars: same shape, float32."""
        return (features_BLF.float() - self.mean_LF) @ self.whiten_FF


def usual_of(features_XLF: Tensor) -> Usual:
    """What is usual in a song, from its bars."""
    x_XLF = features_XLF.double()
    mean_LF = x_XLF.mean(0)
    flat_NF = (x_XLF - mean_LF).flatten(0, 1)
    covariance_FF = flat_NF.T @ flat_NF / max(1, len(flat_NF))
    value_F, vector_FF = torch.linalg.eigh(covariance_FF)
    whiten_FF = (vector_FF * (value_F.clamp(min=0.0) + _FLOOR).rsqrt()) @ vector_FF.T
    return Usual(mean_LF.float(), whiten_FF.float())
