"""Architecture `spectral`: latents from log spectra, and sound by flow matching on STFT frames.

Everything runs at frame rate (62.5 a second at 16 kHz), so a step costs a small part of what a
network on samples costs; Vocos (Siuzdak, ICLR 2024) and RFWave (Liu et al., ICLR 2025) write sound
this way. Three parts:

- the encoder reads log-magnitude frames and gives a few numbers a token. Beside the network a plain
  linear map leads in and out, which `calibrate` sets to the principal components of log-mel frames:
  training begins where they end (a network alone took thousands of steps to come near them);
- the *guide* tells from the latents alone the log-mel spectrum. It is learned by plain regression,
  which trains the encoder fast, and it is computed once an item, not once a step;
- the decoder writes complex frames by flow matching, divided by the guide's envelope. In that
  whitened space all bins weigh the same and noise of one size suits them all (PriorGrad, Lee et
  al., ICLR 2022, scales the noise instead). The network gives the clean frames, not the velocity:
  it is narrower than a frame, and what it gives need not carry the noise through (Li and He 2025).
  At the end it is given steady tones where the guide has peaks, and the bands are brought to the
  levels that the guide knows.

Letters: B items, C channels, N samples, L tokens, D dims, T frames, F bins, M mel bands, W width,
R frames of a token.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgen.core.errors import UsageError
from mgen.core.layers import AdaLNZero, ConvNeXtBlock, TimeEmbedding, normalise_tokens
from mgen.core.tokenizer.bands import Bands, floor_of, log10_power, semitones
from mgen.core.tokenizer.config import TokenizerConfig, refuse_lengths
from mgen.core.tokenizer.levels import PITCH_RANGE_DB, RANGE_DB, BandLevels, match_levels
from mgen.core.tokenizer.tones import tones
from mgen.kernels.log_mel import LogMelSpec, mel_filterbank
from mgen.kernels.overlap_add import istft_same

FRAMES_PER_S = 62.5
MELS = 80
OVERLAP = 4
"""Frame lengths a hop: each sample lies in four frames."""
PITCH_OVERLAP = 16
"""The same of the long frames that tell semitones apart (256 ms)."""
PITCH_SHARE = 2.0
"""What the semitones count in the loss beside the mel bands."""
MATCH_ROUNDS = 6
"""How often `Spectral.match` moves the levels of bands."""
_REACH = 2 * 256 * 16
"""Inputs times outputs from which on what the encoder's network adds to tokens is scaled down.
AdamW moves every weight by about the rate, so that an output moves with its inputs, and a level
that the map tells from all dims with these. Without it the first updates undo what `calibrate`
began with: the guide of 8 x 256 numbers a second went from 1.6 to 13 dB in one.
"""
_TINY = 1e-5
_ANCHOR, _LEAST_ANCHOR = 2.0, 0.3
_MOST = 1.0 + math.log(1000.0)


class Condition(NamedTuple):
    """What latents alone determine.

    `z_BLW`: projected latents; `guide_BTW`: features of the guide; `mel_BCTM`, `pitch_BCTM`: its
    levels of mel bands and semitones in units of 10 dB; `gain_BCTF`: whitening, what frames are
    divided by.
    """

    z_BLW: Tensor
    guide_BTW: Tensor
    mel_BCTM: Tensor
    pitch_BCTM: Tensor
    gain_BCTF: Tensor


def frames_per_token(config: TokenizerConfig) -> int:
    """Frames of a token: nearest to 62.5 frames a second, each an even number of samples.

    Raises
    ------
    UsageError
        If a token is an odd number of samples.
    """
    wanted = config.hop * FRAMES_PER_S / config.rate
    fitting = [r for r in range(1, config.hop // 2 + 1) if config.hop % (2 * r) == 0]
    if not fitting:
        raise UsageError(f"a token of {config.hop} samples cannot be cut into frames; take more")
    return min(fitting, key=lambda r: abs(math.log(r / wanted)))


class Spectral(nn.Module):
    """Encoder, guide and flow decoder over STFT frames; the interface of every architecture."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.per_token = frames_per_token(config)
        self.hop = config.hop // self.per_token
        self.n_fft = OVERLAP * self.hop
        bins = self.n_fft // 2 + 1
        mel_MF = mel_filterbank(
            LogMelSpec(
                rate=config.rate, n_fft=self.n_fft, hop=self.hop, n_mels=MELS,
                f_max=config.rate / 2, power=2.0, normalized=False, area=True, log="none",
            )
        ).float()  # fmt: skip
        self.mel = Bands(mel_MF, self.n_fft, self.hop)
        long = PITCH_OVERLAP * self.hop
        self.pitch = Bands(semitones(config.rate, long), long, self.hop)
        channels, width = config.channels, config.width("encoder")
        self.enter = nn.Linear(channels * (bins + MELS), width)
        self.encoder = nn.ModuleList(
            ConvNeXtBlock(width) for _ in range(config.width("encoder_depth"))
        )
        self.enter_norm = nn.LayerNorm(width)
        self.to_tokens = nn.Linear(self.per_token * width, config.dims)
        self.gain = min(1.0, math.sqrt(_REACH / (self.per_token * width * config.dims)))
        self.plain_in = nn.Linear(self.per_token * channels * MELS, config.dims)
        self.plain_out = nn.Linear(config.dims, self.per_token * channels * MELS)
        nn.init.zeros_(self.plain_out.weight)
        with torch.no_grad():
            self.plain_in.bias[-1] = _ANCHOR
        # the networks learn what is left, several times as fast as if the map were to move too
        self.plain_in.requires_grad_(False)
        self.plain_out.requires_grad_(False)
        guide, condition = config.width("guide"), config.width("condition")
        self.from_tokens = nn.Linear(config.dims, self.per_token * guide)
        self.guide = nn.ModuleList(ConvNeXtBlock(guide) for _ in range(config.width("guide_depth")))
        self.guide_norm = nn.LayerNorm(guide)
        self.to_mel = nn.Linear(guide, channels * MELS)
        self.to_condition = nn.Linear(config.dims, condition)
        self.time = TimeEmbedding(condition)
        decoder = config.width("decoder")
        self.noisy = nn.Linear(2 * channels * bins, decoder)
        self.guided = nn.Linear(guide, decoder)
        depth = config.width("decoder_depth")
        self.decoder = nn.ModuleList(ConvNeXtBlock(decoder, modulated=True) for _ in range(depth))
        self.modulate = nn.ModuleList(AdaLNZero(condition, decoder) for _ in range(depth))
        self.last = nn.LayerNorm(decoder)
        self.clean = nn.Linear(decoder, 2 * channels * bins)
        nn.init.zeros_(self.clean.weight)
        nn.init.zeros_(self.clean.bias)
        self.to_pitch = nn.Linear(guide, channels * self.pitch.count)

    def decoder_modules(self) -> list[nn.Module]:
        """All but encoder and guide."""
        return [
            self.to_condition, self.time, self.noisy, self.guided, self.decoder, self.modulate,
            self.last, self.clean,
        ]  # fmt: skip

    # latents

    def encode(self, samples_BCN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Latents (B, L, D), each token with zero mean and unit variance.

        Raises
        ------
        ValueError
            If N is no multiple of a token, or lengths are given.
        """
        refuse_lengths(lengths_B)
        power_BCTF = self._stft(samples_BCN).abs().square()
        mel_BCTM = self.mel.levels_of(power_BCTF)
        seen = torch.cat([log10_power(power_BCTF), mel_BCTM], dim=-1) / 2.0 + 1.0
        x_BTW = self.enter(seen.transpose(1, 2).flatten(2))
        for block in self.encoder:
            x_BTW = block(x_BTW)
        z_BLD = self.gain * self.to_tokens(self._by_token(self.enter_norm(x_BTW)))
        return normalise_tokens(z_BLD + self.plain_in(self._by_token(mel_BCTM)))

    def _by_token(self, x: Tensor) -> Tensor:
        """(B, T, W) or (B, C, T, M) -> (B, L, R * rest)."""
        x_BTW = x.transpose(1, 2).flatten(2) if x.ndim == 4 else x
        return x_BTW.unflatten(1, (-1, self.per_token)).flatten(2)

    @torch.no_grad()
    def calibrate(self, samples_BCN: Tensor) -> None:
        """Begin with the principal components of these items' log-mel tokens, before training.

        Two dims stay free of them, one at 0 and one at `_ANCHOR`: by these the decoder knows what
        the norm of the tokens took away, their mean and size.
        """
        mel_BCTM = self.mel.levels(samples_BCN)
        tokens_XK = self._by_token(mel_BCTM.maximum(floor_of(mel_BCTM, RANGE_DB))).flatten(0, 1)
        mean_K = tokens_XK.mean(dim=0)
        values_K, vectors_KK = torch.linalg.eigh(torch.cov((tokens_XK - mean_K).T.double()))
        count = min(self.config.dims - 2, len(mean_K))
        spread_J = values_K.flip(0)[:count].clamp(min=1e-6).sqrt().float()
        basis_JK = vectors_KK.flip(1).T[:count].float()
        for parameter in (*self.plain_in.parameters(), *self.plain_out.parameters()):
            parameter.zero_()
        self.plain_in.weight[:count] = basis_JK / spread_J[:, None]
        self.plain_in.bias[:count] = -(basis_JK @ mean_K) / spread_J
        self.plain_in.bias[-1] = _ANCHOR
        self.plain_out.weight[:, :count] = (basis_JK * spread_J[:, None]).T
        self.plain_out.bias.copy_(mean_K)
        for parameter in (*self.to_tokens.parameters(), *self.to_mel.parameters()):
            parameter.mul_(0.1)
        pitch_BCTM = self.pitch.levels(samples_BCN)
        self.to_pitch.bias.copy_(
            pitch_BCTM.maximum(floor_of(pitch_BCTM, PITCH_RANGE_DB)).mean(dim=(0, 2)).flatten()
        )

    def condition(self, z_BLD: Tensor, lengths_B: Tensor | None = None) -> Condition:
        """What does not change from step to step."""
        refuse_lengths(lengths_B)
        x_BTW = self.from_tokens(z_BLD).unflatten(2, (self.per_token, -1)).flatten(1, 2)
        for block in self.guide:
            x_BTW = block(x_BTW)
        x_BTW = self.guide_norm(x_BTW)
        zero_BL1, anchor_BL1 = z_BLD[..., -2:-1], z_BLD[..., -1:]
        size_BL1 = (anchor_BL1 - zero_BL1).clamp(min=_LEAST_ANCHOR) / _ANCHOR
        plain_BLK = self.plain_out((z_BLD - zero_BL1) / size_BL1)
        mel_BTK = self.to_mel(x_BTW) + plain_BLK.unflatten(2, (self.per_token, -1)).flatten(1, 2)
        mel_BCTM = mel_BTK.unflatten(2, (-1, MELS)).transpose(1, 2).float()
        pitch_BTK = self.to_pitch(x_BTW)
        pitch_BCTM = pitch_BTK.unflatten(2, (-1, self.pitch.count)).transpose(1, 2).float()
        with torch.autocast(mel_BCTM.device.type, enabled=False):
            power_BCTF = torch.pow(10.0, mel_BCTM.detach().clamp(-10.0, 8.0)) @ self.mel.spread_MF
            gain_BCTF = (power_BCTF + _TINY).sqrt()
        return Condition(self.to_condition(z_BLD), x_BTW, mel_BCTM, pitch_BCTM, gain_BCTF)

    # the space of the flow

    def flow_shape(self, n_samples: int) -> tuple[int, ...]:
        """Of one item: (C, T, 2 F)."""
        return self.config.channels, n_samples // self.hop, 2 * (self.n_fft // 2 + 1)

    def to_flow(self, samples_BCN: Tensor, condition: Condition) -> Tensor:
        """Whitened complex frames (B, C, T, 2 F), real parts first."""
        x = self._stft(samples_BCN) / condition.gain_BCTF
        size = x.abs()
        x = x * (companded(size) / size.clamp(min=_TINY)) * math.sqrt(2.0)
        return torch.cat([x.real, x.imag], dim=-1)

    def from_flow(self, x_BCTG: Tensor, condition: Condition, n_samples: int) -> Tensor:
        """Samples (B, C, N) of frames as `to_flow` gives them."""
        real, imaginary = (x_BCTG.float() / math.sqrt(2.0)).chunk(2, dim=-1)
        size = (real.square() + imaginary.square() + _TINY**2).sqrt()
        scale = expanded(size) / size * condition.gain_BCTF
        spectra = torch.complex(real * scale, imaginary * scale)
        samples_XN = istft_same(spectra.flatten(0, 1), self.n_fft, self.hop)
        return samples_XN.unflatten(0, (len(x_BCTG), -1))[..., :n_samples]

    def finish(self, samples_BCN: Tensor, condition: Condition) -> Tensor:
        """What was sampled, with steady tones where the guide has peaks, at the guide's levels."""
        levels_XTM = condition.pitch_BCTM.flatten(0, 1)
        tones_XN = tones(
            levels_XTM, rate=self.config.rate, n_fft=self.pitch.n_fft, hop=self.hop
        )[:, : samples_BCN.shape[-1]]  # fmt: skip
        return self.match(samples_BCN + tones_XN.view_as(samples_BCN), condition)

    def match(self, samples_BCN: Tensor, condition: Condition) -> Tensor:
        """Bring semitones and mel bands to the levels that the guide knows, phases as they are.

        The flow writes phases and what lies within a band; the level of each band is told by the
        latents directly, and better.
        """
        return match_levels(
            samples_BCN, self.mel, condition.mel_BCTM, self.pitch, condition.pitch_BCTM,
            MATCH_ROUNDS,
        )  # fmt: skip

    def band_levels(self, condition: Condition) -> list[BandLevels] | None:
        """What the guide knows of each item; None of sounds with more than one channel."""
        if self.config.channels > 1:
            return None
        return [
            BandLevels(
                mel=self.mel, pitch=self.pitch, mel_TM=mel_CTM[0], pitch_TM=pitch_CTM[0]
            )
            for mel_CTM, pitch_CTM in zip(condition.mel_BCTM, condition.pitch_BCTM, strict=True)
        ]  # fmt: skip

    def predict(self, x_BCTG: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """The clean frames, as the network estimates them from noisy ones."""
        c_BLW = condition.z_BLW + self.time(t_B)[:, None]
        h_BTW = self.noisy(x_BCTG.transpose(1, 2).flatten(2)) + self.guided(condition.guide_BTW)
        for block, modulate in zip(self.decoder, self.modulate, strict=True):
            h_BTW = block(h_BTW, *modulate(c_BLW))
        out = self.clean(self.last(h_BTW)).unflatten(2, (self.config.channels, -1))
        return out.transpose(1, 2)

    def extra_losses(self, condition: Condition, samples_BCN: Tensor) -> dict[str, Tensor]:
        """`guide` and `pitch`: mean absolute error of the guide's levels of mel bands and semitones
        in units of 10 dB, the second by what it counts.

        Mel bands alone tell a chord from the next one badly: below 600 Hz they are wider than a
        semitone. What lies below an item's range counts as so far below.
        """
        losses = {}
        for name, bands, found_BCTM, range_db, share in (
            ("guide", self.mel, condition.mel_BCTM, RANGE_DB, 1.0),
            ("pitch", self.pitch, condition.pitch_BCTM, PITCH_RANGE_DB, PITCH_SHARE),
        ):
            true_BCTM = bands.levels(samples_BCN)
            floor = floor_of(true_BCTM, range_db)
            losses[name] = share * F.l1_loss(found_BCTM.maximum(floor), true_BCTM.maximum(floor))
        return losses

    def _stft(self, samples_BCN: Tensor) -> Tensor:
        """Complex frames (B, C, T, F): T = N / hop, frame t centred on the middle of its hop."""
        if samples_BCN.shape[-1] % self.config.hop:
            raise ValueError(f"{samples_BCN.shape[-1]} samples are no whole number of tokens")
        return self.mel.stft(samples_BCN)


def companded(size: Tensor) -> Tensor:
    """Whitened magnitudes: as they are up to 1, beyond it 1 + their logarithm, so that an attack
    that the guide did not foresee counts in decibels and not in powers.
    """
    return torch.where(size > 1.0, 1.0 + size.clamp(min=1.0).log(), size)


def expanded(size: Tensor) -> Tensor:
    """The inverse of `companded`, up to 60 dB."""
    return torch.where(size > 1.0, (size.clamp(1.0, _MOST) - 1.0).exp(), size)
