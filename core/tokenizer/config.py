"""Sizes of a tokenizer: what rebuilds it from its folder, and the presets.

Letters: L tokens of an item, D dims of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mgen.core.bars import BAR_RATE, BAR_SAMPLES
from mgen.core.errors import UsageError

Arch = Literal["spectral", "dito-unet", "perceiver"]
ARCHS: tuple[Arch, ...] = ("spectral", "dito-unet", "perceiver")
SIZES = ("small", "base", "large")

Sizes = Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """Everything that fixes a tokenizer's shape.

    Attributes
    ----------
    arch
        Which encoder and decoder.
    unit
        What an item is: a `bar` of fixed length, or `second`s of plain sound.
    rate, channels
        Of the sound.
    samples
        Of an item; for seconds, of the longest that it was trained on.
    tokens, dims
        Of such an item: L vectors of D numbers.
    prediction
        What the decoder gives: velocity (`v`) or the clean signal (`x`).
    sizes
        Widths and depths; what they mean is the architecture's.
    sigma_min, noise_sync
        Of the flow: the noise left at its end; share of items whose latents are noised (DiTo).
    steps
        Sampler steps unless said otherwise.
    """

    arch: Arch
    unit: Literal["bar", "second"]
    rate: int
    channels: int
    samples: int
    tokens: int
    dims: int
    prediction: Literal["v", "x"]
    sizes: Sizes = field(default_factory=dict)
    sigma_min: float = 1e-5
    noise_sync: float = 0.1
    steps: int = 8

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise UsageError(f"no architecture is called '{self.arch}'; choose {', '.join(ARCHS)}")
        if min(self.rate, self.channels, self.samples, self.tokens, self.dims, self.steps) < 1:
            raise UsageError("rate, channels, samples, tokens, dims and steps must be at least 1")
        if self.samples % self.tokens:
            raise UsageError(f"{self.samples} samples do not divide into {self.tokens} tokens")
        # as JSON gives them back
        object.__setattr__(
            self,
            "sizes",
            {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in self.sizes.items()},
        )

    @property
    def hop(self) -> int:
        """Samples that a token stands for."""
        return self.samples // self.tokens

    def width(self, name: str) -> int:
        """A single number among `sizes`."""
        value = self.sizes[name]
        if not isinstance(value, int):
            raise UsageError(f"size {name} is {value}, not one number")
        return value

    def widths(self, name: str) -> tuple[int, ...]:
        """A list of numbers among `sizes`."""
        value = self.sizes[name]
        return (value,) if isinstance(value, int) else value

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> TokenizerConfig:
        """Rebuild what `to_json` gave.

        Raises
        ------
        TypeError, KeyError, UsageError
            If a field is missing, unknown or makes no sense.
        """
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A shape of latents: the seed's, each by the name of tokens a second and dims."""

    unit: Literal["bar", "second"]
    tokens_per_s: float
    dims: int
    seconds: float


PRESETS: Mapping[str, Preset] = {
    "bar": Preset(
        unit="bar", tokens_per_s=64 * BAR_RATE / BAR_SAMPLES, dims=16,
        seconds=BAR_SAMPLES / BAR_RATE,
    ),
    "50x128": Preset(unit="second", tokens_per_s=50, dims=128, seconds=4.0),
    "32x16": Preset(unit="second", tokens_per_s=32, dims=16, seconds=4.0),
    "8x256": Preset(unit="second", tokens_per_s=8, dims=256, seconds=4.0),
}  # fmt: skip

_SIZES: Mapping[tuple[str, str], Sizes] = {
    ("spectral", "small"): {
        "encoder": 256, "encoder_depth": 6, "guide": 256, "guide_depth": 3, "decoder": 384,
        "decoder_depth": 7, "condition": 128,
    },
    ("spectral", "base"): {
        "encoder": 384, "encoder_depth": 8, "guide": 384, "guide_depth": 6, "decoder": 640,
        "decoder_depth": 12, "condition": 256,
    },
    ("spectral", "large"): {
        "encoder": 512, "encoder_depth": 12, "guide": 512, "guide_depth": 8, "decoder": 1024,
        "decoder_depth": 16, "condition": 384,
    },
    ("dito-unet", "small"): {
        "channels": (32, 64, 128, 256, 256), "blocks": 2, "encoder_blocks": 1,
    },
    ("dito-unet", "base"): {
        "channels": (64, 128, 256, 512, 512), "blocks": 2, "encoder_blocks": 2,
    },
    ("dito-unet", "large"): {
        "channels": (128, 256, 512, 512, 1024), "blocks": 3, "encoder_blocks": 2,
    },
    ("perceiver", "small"): {
        "patch": 128, "hidden": 256, "heads": 4, "encoder_depth": 4, "decoder_depth": 6,
    },
    ("perceiver", "base"): {
        "patch": 128, "hidden": 512, "heads": 8, "encoder_depth": 5, "decoder_depth": 8,
    },
    ("perceiver", "large"): {
        "patch": 128, "hidden": 768, "heads": 12, "encoder_depth": 8, "decoder_depth": 12,
    },
}  # fmt: skip


def _divisible(samples: float) -> int:
    """The even number nearest to `samples` with no prime factor above 7, to be strided by."""

    def smooth(n: int) -> bool:
        for factor in (2, 3, 5, 7):
            while n % factor == 0:
                n //= factor
        return n == 1

    near = sorted(range(2, 2 * int(samples) + 3, 2), key=lambda n: abs(n - samples))
    return next(n for n in near if smooth(n))


def make_config(
    preset: str = "bar",
    arch: Arch = "spectral",
    size: str = "small",
    *,
    rate: int = BAR_RATE,
    channels: int = 1,
) -> TokenizerConfig:
    """The config of a preset: one dial for the size, the rest computed.

    Parameters
    ----------
    preset
        `bar` (64 tokens of 16 a bar), `50x128`, `32x16` or `8x256` (tokens a second x dims).
    arch, size
        The architecture, and small, base or large.
    rate, channels
        Of the sound; an item lasts as long at any rate.

    Raises
    ------
    UsageError
        If a name is unknown.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset is called '{preset}'; choose {', '.join(PRESETS)}")
    if (arch, size) not in _SIZES:
        raise UsageError(f"no '{arch}' of size '{size}'; sizes are {', '.join(SIZES)}")
    shape = PRESETS[preset]
    tokens = round(shape.seconds * shape.tokens_per_s)
    hop = _divisible(rate / shape.tokens_per_s)
    return TokenizerConfig(
        arch=arch, unit=shape.unit, rate=rate, channels=channels, samples=tokens * hop,
        tokens=tokens, dims=shape.dims, prediction="v" if arch == "dito-unet" else "x",
        sizes=_SIZES[arch, size],
    )  # fmt: skip


def refuse_lengths(lengths: object | None) -> None:
    """Refuse items of their own lengths, for architectures whose items are all of one.

    Raises
    ------
    ValueError
        If any are given.
    """
    if lengths is not None:
        raise ValueError("bars of their own lengths are for the perceiver; warp them first")
