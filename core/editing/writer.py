"""The writer of bars: tokenizer, latent action model and dynamics model, put together.

Every bar of the song has an action of its own, as the action model hears it. Bars that are edited
are told another one, between their own and the one that was asked for, and the dynamics model
writes them from noise between the bars that stay.

Letters: B bars of the song, W bars to write, L tokens, D dims, A numbers of an action, K numbers of
a payload, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgen.core.bars import BAR_SAMPLES
from mgen.core.dynamics.guidance import Guidance
from mgen.core.dynamics.model import Dynamics
from mgen.core.dynamics.reading import current_dynamics
from mgen.core.dynamics.sampling import Sampling, bars_seen, inpaint
from mgen.core.editing.request import Clip, WriteRequest, WrittenBars
from mgen.core.errors import InputError, UsageError
from mgen.core.lam.data import bar_latents, bar_mel
from mgen.core.lam.effects import FIGURES
from mgen.core.lam.folder import LatentActionModel
from mgen.core.lam.palette import Palette
from mgen.core.lam.passes import current_lam, current_palette
from mgen.core.lam.usual import usual_of
from mgen.core.layers import normalise_tokens
from mgen.core.quantizers import Payload
from mgen.core.store import BarTable, Store
from mgen.core.tokenizer import Tokenizer
from mgen.core.tokenizer.data import own_lengths
from mgen.core.tokenizer.passes import current_tokenizer, latents_id
from mgen.core.train_loop.draws import mixed_seed

GUIDANCE = 2.0
"""How strictly actions are followed unless it is said otherwise: the scale of the guidance."""
RESCALE = 0.7
"""How much of the spread that guidance adds is taken back."""
WRITING = Sampling(steps=8, shift=3.0)
"""How bars are written: as well as in 16 equal steps, in half the time (see the log of runs)."""
_LOUDNESS = FIGURES[0]
_DECODE_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWriter:
    """A `BarWriter` of trained models that belong together.

    Raises
    ------
    InputError
        If they do not.
    """

    tokenizer: Tokenizer
    lam: LatentActionModel
    palette: Palette
    dynamics: Dynamics
    sampling: Sampling = WRITING

    def __post_init__(self) -> None:
        if own_lengths(self.tokenizer.config) or self.tokenizer.config.samples != BAR_SAMPLES:
            raise InputError(
                "edit needs a tokenizer of warped bars; this one takes"
                f" {self.tokenizer.config.arch} items of its own; name another: --tokenizer MODEL"
            )
        spoken, config = latents_id(self.tokenizer), self.dynamics.config
        if self.lam.config.tokenizer != spoken or config.tokenizer != spoken:
            raise InputError(
                f"the tokenizer makes latents {spoken}, the action model knows"
                f" {self.lam.config.tokenizer}, the dynamics model {config.tokenizer}; name models"
                " that were trained on each other"
            )
        if config.lam != self.lam.id[: len(config.lam)]:
            raise InputError(
                f"the dynamics model was told actions by {config.lam}, not by"
                f" {self.lam.id[: len(config.lam)]}; name models that were trained on each other"
            )

    @property
    def model_ids(self) -> Mapping[str, str]:
        """What decides the result, by stage."""
        return {
            "tokenizer": self.tokenizer.id, "lam": self.lam.id, "palette": self.palette.id,
            "dynamics": self.dynamics.id,
        }  # fmt: skip

    @property
    def actions(self) -> int:
        """Rows of the palette."""
        return len(self.palette)

    def write(self, request: WriteRequest) -> WrittenBars:
        """Write the bars that are asked for.

        Raises
        ------
        UsageError
            If an action or a depth is not one of this palette.
        StoreError, StaleError
            If the song's latents are missing or stale.
        """
        bars, z_BLD = request.bars, self._latents(request)
        is_new_B = torch.from_numpy(bars.row < 0)
        edited = torch.from_numpy(request.edited)
        mask_B = torch.zeros(len(bars), dtype=torch.bool)
        mask_B[edited] = True
        turns = (mask_B & ~is_new_B, mask_B & is_new_B)
        seen_B = mask_B.clone()
        for turn_B in turns:
            seen_B |= bars_seen(self.dynamics, turn_B, self.sampling)
        heard = _heard(request)
        usual_LD = z_BLD[torch.from_numpy(heard)].mean(0)
        own_BA = self._own_actions(request, z_BLD, heard, seen_B)
        wanted_A = self._wanted(request)
        share_B = torch.where(is_new_B, 1.0, request.strength)[:, None]
        asked_BA = torch.where(mask_B[:, None], own_BA + share_B * (wanted_A - own_BA), own_BA)
        scale = GUIDANCE if request.guidance is None else request.guidance
        guidance = Guidance(scale=scale, rescale=RESCALE)
        bpm_B = torch.from_numpy(np.asarray(bars.bpm, np.float32))
        action_BA = self._told(asked_BA)
        # what is past the end has no sound to begin from
        for turn_B, start_t in zip(turns, (start_level(request.strength), 1.0), strict=True):
            if turn_B.any():
                z_BLD = inpaint(
                    self.dynamics, z_BLD, turn_B, bpm_B, action_BA, usual_LD=usual_LD,
                    guidance=guidance, sampling=self.sampling, start_t=start_t,
                    seed=request.seed, take=request.take,
                )  # fmt: skip
        z_WLD = normalise_tokens(z_BLD[edited]).half()
        levels = self.tokenizer.band_levels(z_WLD.float())
        return WrittenBars(
            z_BLD=z_WLD.numpy(), change_LU=self._change(request) * share_B[edited, 0].numpy(),
            levels=levels, pcm_BN=self._decode(z_WLD.float(), request) if levels is None else None,
        )  # fmt: skip

    def _told(self, embedding_XA: Tensor) -> Tensor:
        return self.lam.inform(embedding_XA)

    def _latents(self, request: WriteRequest) -> Tensor:
        """Latents of all bars, float32; those that earlier takes wrote, and zeros past the end."""
        config = self.tokenizer.config
        z_BLD = np.zeros((len(request.bars), config.tokens, config.dims), np.float32)
        stored_XLD = bar_latents(request.store, latents_id(self.tokenizer), request.song.index)
        table = request.store.bars(request.song.index, jittered=True)
        there = request.bars.row >= 0
        if len(table):
            z_BLD[there] = stored_XLD[request.bars.row[there] - table.row[0]]
        for bar, z_LD in request.written.items():
            z_BLD[bar] = z_LD
        return torch.from_numpy(z_BLD)

    def _own_actions(
        self, request: WriteRequest, z_BLD: Tensor, heard: npt.NDArray[np.int64], seen_B: Tensor
    ) -> Tensor:
        """Embedded actions of bars as they are (B, A); past the end, that of the last bar. Bars
        that nobody sees may have any.
        """
        features_XLF = self._features(request, z_BLD, heard)
        usual = usual_of(features_XLF)
        if self.lam.by_bar:
            kept_X = seen_B[torch.from_numpy(heard)]
            kept_X[-1] = True  # what is past the end goes on with the last
            heard, features_XLF = heard[kept_X.numpy()], features_XLF[kept_X]
        payload = self.lam.label(features_XLF, usual)
        own_XA = self.lam.embed(payload)
        own_BA = own_XA[-1:].repeat(len(request.bars), 1)
        own_BA[torch.from_numpy(heard)] = own_XA
        return own_BA

    def _features(
        self, request: WriteRequest, z_BLD: Tensor, heard: npt.NDArray[np.int64]
    ) -> Tensor:
        """What the action model reads of these bars."""
        if self.lam.config.input == "latents":
            return z_BLD[torch.from_numpy(heard)]
        tokens = self.lam.config.tokens
        found = []
        for bar in heard.tolist():
            if bar in request.written:
                sound_1N = self._sounds(z_BLD[bar : bar + 1], [bar], request)
                pcm_1N = np.round(sound_1N * 32767).astype(np.int16)
            else:
                pcm_1N = request.store.bar_pcm(int(request.bars.row[bar]))[None]
            found.append(torch.from_numpy(bar_mel(pcm_1N, tokens)))
        return torch.cat(found)

    def _wanted(self, request: WriteRequest) -> Tensor:
        """The embedding (A,) that is asked for."""
        if request.like is not None:
            return self._of_clip(request.like)
        if request.depth is None:
            return self.palette.embed({share.action: share.weight for share in request.action})
        if self.palette.bottleneck != "residual-fsq":
            raise UsageError(
                f"--depth is for residual actions; this palette's are {self.palette.bottleneck}"
            )
        parts = []
        for share in request.action:
            payload = self.palette.payload_of(share.action)
            coarse_K = torch.arange(payload.weight.shape[-1]) < request.depth
            parts.append(
                share.weight * self.lam.embed(replace(payload, weight=payload.weight * coarse_K))
            )
        return torch.stack(parts).sum(0)

    def _of_clip(self, clip: Clip) -> Tensor:
        """The mean action of a clip's bars, each as the action model hears it in its song."""
        whole = clip.store.bars(clip.song.index)
        payload = self.lam.label(self._clip_features(clip, whole))
        at = np.searchsorted(whole.row, clip.bars.row)
        chosen = Payload(payload.index[at], payload.weight[at])
        return self.lam.embed(chosen).mean(0)

    def _clip_features(self, clip: Clip, whole: BarTable) -> Tensor:
        if self.lam.config.input == "mel":
            rows = whole.row.tolist()
            pcm_BN = np.stack([clip.store.bar_pcm(row) for row in rows])
            return torch.from_numpy(bar_mel(pcm_BN, self.lam.config.tokens))
        first = clip.store.bars(clip.song.index, jittered=True).row[0]
        z_XLD = bar_latents(clip.store, latents_id(self.tokenizer), clip.song.index)
        return torch.from_numpy(z_XLD[whole.row - first]).float()

    def _change(self, request: WriteRequest) -> float:
        """By how much the mix makes a bar louder, as its effects were measured; in dB."""
        return sum(
            share.weight * self.palette.rows[share.action].effect.get(_LOUDNESS, 0.0)
            for share in request.action
        )

    def _decode(self, z_WLD: Tensor, request: WriteRequest) -> npt.NDArray[np.float32]:
        bars = request.edited.tolist()
        parts = [
            self._sounds(z_WLD[i : i + _DECODE_AT_ONCE], bars[i : i + _DECODE_AT_ONCE], request)
            for i in range(0, len(bars), _DECODE_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _sounds(
        self, z_XLD: Tensor, bars: list[int], request: WriteRequest
    ) -> npt.NDArray[np.float32]:
        """Sound (X, N) of latents; the noise of a bar is that of its number, seed and take."""
        pcm_XCN = self.tokenizer.decode(
            z_XLD, keys=bars, seed=mixed_seed(request.seed, request.take) >> 1
        )
        return pcm_XCN[:, 0].float().cpu().numpy().clip(-1.0, 1.0)


def load_model_writer(
    store: Store | None,
    *,
    tokenizer: Path | None = None,
    lam: Path | None = None,
    dynamics: Path | None = None,
    palette: Path | None = None,
    device: str = "cpu",
) -> ModelWriter:
    """The writer of models that were named, of the store's current ones, or of those that ship.

    Raises
    ------
    InputNotFoundError, StoreError, InputError
        If one is missing, is not what the store says, or they do not belong together.
    """
    writes, _ = current_dynamics(store, dynamics, device)
    acts, folder = current_lam(store, lam, device)
    sounds, _ = current_tokenizer(store, tokenizer, device)
    named = current_palette(acts, folder, palette)
    return ModelWriter(tokenizer=sounds, lam=acts, palette=named, dynamics=writes)


def _heard(request: WriteRequest) -> npt.NDArray[np.int64]:
    """Places of the bars that are there: the song's, and those that an earlier take appended."""
    there = np.flatnonzero(request.bars.row >= 0)
    return np.union1d(there, np.array(list(request.written), np.int64))


def start_level(strength: float) -> float:
    """Noise level that an edit of this strength begins from: 0 keeps the bar, 1 forgets it.

    The square root: the first tenths of noise hardly change a bar, as its coarse shape is still
    seen through them.
    """
    return float(np.sqrt(strength))
