"""How strongly new sound begins in each frame of a log-mel spectrogram.

Shapes: B batch, T frames, M mel bands, K groups of bands.

After SuperFlux (Böck and Widmer, DAFx 2013): every band is compared with the loudest of its
neighbours `lag` frames earlier, so that vibrato does not count as onsets, and only rises count.
Where the lag is half a window or more, the frame before holds nothing of the new sound yet, and the
envelope peaks in the frame whose centre is nearest to the attack, however strong the compression.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mgen.kernels.log_mel import LogMelSpec, band_edges_hz


def onset_lag(spec: LogMelSpec) -> int:
    """Frames in half a window, rounded up: the lag that keeps the envelope on time."""
    return math.ceil(spec.n_fft / 2 / spec.hop)


def bands_below(spec: LogMelSpec, *limits_hz: float) -> tuple[int, ...]:
    """Band indices that split the mel axis at the given frequencies, as `onset_strength_bands`
    takes them: (0, ..., n_mels). A band belongs to the side on which its centre lies.
    """
    centres_M = band_edges_hz(spec)[1:-1]
    inner = (int((centres_M < limit).sum()) for limit in sorted(limits_hz))
    return (0, *inner, spec.n_mels)


def onset_strength(
    mel_BTM: torch.Tensor, lag: int = 2, max_width: int = 3, silence: float = 0.0
) -> torch.Tensor:
    """Mean rise over all bands, against the max-filtered frame `lag` earlier.

    Parameters
    ----------
    mel_BTM
        Log-mel spectrogram (B, T, M).
    lag
        Frames to look back; `onset_lag(spec)` keeps the envelope on time.
    max_width
        Bands over which the earlier frame is max-filtered, odd.
    silence
        What the bands hold before the first frame; `spec.silence`.

    Returns
    -------
    torch.Tensor
        env_BT (B, T), never negative. A sound that is there from the start rises at frame 0.

    Raises
    ------
    ValueError
        If the shape, the lag or the width makes no sense.
    """
    return _rise(mel_BTM, lag, max_width, silence).mean(-1)


def onset_strength_bands(
    mel_BTM: torch.Tensor,
    edges: Sequence[int],
    lag: int = 2,
    max_width: int = 3,
    silence: float = 0.0,
) -> torch.Tensor:
    """Like `onset_strength`, once per group of bands: `edges` (0, a, b, M) gives three groups.

    Returns
    -------
    torch.Tensor
        env_BTK (B, T, K), K = len(edges) - 1.
    """
    _check_edges(edges, mel_BTM.shape[-1])
    rise_BTM = _rise(mel_BTM, lag, max_width, silence)
    groups = [rise_BTM[..., lo:hi].mean(-1) for lo, hi in itertools.pairwise(edges)]
    return torch.stack(groups, dim=-1)


def onset_strength_reference(
    mel_BTM: torch.Tensor, lag: int = 2, max_width: int = 3, silence: float = 0.0
) -> torch.Tensor:
    """Slow twin of `onset_strength`, in plain loops."""
    edges = (0, mel_BTM.shape[-1])
    return onset_strength_bands_reference(mel_BTM, edges, lag, max_width, silence)[..., 0]


def onset_strength_bands_reference(
    mel_BTM: torch.Tensor,
    edges: Sequence[int],
    lag: int = 2,
    max_width: int = 3,
    silence: float = 0.0,
) -> torch.Tensor:
    """Slow twin of `onset_strength_bands`, in plain loops."""
    _check(mel_BTM, lag, max_width)
    _check_edges(edges, mel_BTM.shape[-1])
    n_batch, n_frames, n_bands = mel_BTM.shape
    half = max_width // 2
    out = torch.zeros((n_batch, n_frames, len(edges) - 1), dtype=torch.float64)
    for b in range(n_batch):
        values = mel_BTM[b].tolist()
        for t in range(n_frames):
            for k, (lo, hi) in enumerate(itertools.pairwise(edges)):
                total = 0.0
                for m in range(lo, hi):
                    near = range(max(0, m - half), min(n_bands, m + half + 1))
                    before = max(values[t - lag][j] for j in near) if t >= lag else silence
                    total += max(0.0, values[t][m] - before)
                out[b, t, k] = total / (hi - lo)
    return out


def _rise(mel_BTM: torch.Tensor, lag: int, max_width: int, silence: float) -> torch.Tensor:
    _check(mel_BTM, lag, max_width)
    n_frames = mel_BTM.shape[1]
    if n_frames == 0:
        return mel_BTM
    before_BTM = F.max_pool1d(mel_BTM, max_width, stride=1, padding=max_width // 2)
    before_BTM = F.pad(before_BTM, (0, 0, lag, 0), value=silence)[:, :n_frames]
    return (mel_BTM - before_BTM).clamp_(min=0.0)


def _check(mel_BTM: torch.Tensor, lag: int, max_width: int) -> None:
    if mel_BTM.ndim != 3:
        raise ValueError(
            f"onsets are found in (batch, frames, bands), not in {tuple(mel_BTM.shape)}"
        )
    if lag < 1 or max_width < 1 or max_width % 2 == 0:
        raise ValueError(f"lag {lag} must be at least 1 and max_width {max_width} odd")


def _check_edges(edges: Sequence[int], n_bands: int) -> None:
    rising = all(a < b for a, b in itertools.pairwise(edges))
    if len(edges) < 2 or edges[0] < 0 or edges[-1] > n_bands or not rising:
        raise ValueError(f"band edges {tuple(edges)} must rise within 0..{n_bands}")
