"""Sizes of a dynamics model: what rebuilds it from its folder, and the presets.

Letters: L tokens of a bar, D dims of a token, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mgen.core.errors import UsageError

How = Literal["adaln", "cross-attention", "concatenation"]
HOWS: tuple[How, ...] = ("adaln", "cross-attention", "concatenation")
SIZES = ("small", "base", "large")

_LEAST_HEAD = 6  # a third of its pairs tell the bar


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicsConfig:
    """Everything that fixes a dynamics model's shape.

    Attributes
    ----------
    condition
        How noise level, tempo and action enter: they modulate every block (`adaln`), are attended
        to (`cross-attention`), or stand among the tokens of their bar (`concatenation`).
    tokens, dims
        Of a bar's latents: L vectors of D numbers.
    action
        Numbers A that an action is told in: the width of the LAM's embedding.
    bars
        The longest window that it was trained on.
    tokenizer, lam
        Ids of the models that made latents and actions; empty where none did (tests).
    patch
        Tokens that are read as one.
    prediction
        What the network gives: velocity (`v`) or the clean latents (`x`).
    width, depth, heads
        Of the transformer.
    embedding
        Width that a bar's conditions are embedded in.
    rank
        Of what a block adds to the modulation that all blocks share (`adaln`).
    context_t
        Noise level at which bars that are not written are shown to it.
    """

    condition: How
    tokens: int
    dims: int
    action: int
    bars: int
    tokenizer: str = ""
    lam: str = ""
    patch: int = 2
    prediction: Literal["v", "x"] = "v"
    width: int
    depth: int
    heads: int
    embedding: int
    rank: int
    context_t: float = 0.015

    def __post_init__(self) -> None:
        if self.condition not in HOWS:
            raise UsageError(f"no condition is called '{self.condition}'; choose {', '.join(HOWS)}")
        if self.prediction not in ("v", "x"):
            raise UsageError(f"no prediction is called '{self.prediction}'; choose v or x")
        sizes = (self.tokens, self.dims, self.action, self.bars, self.patch, self.width,
                 self.depth, self.heads, self.embedding, self.rank)  # fmt: skip
        if min(sizes) < 1:
            raise UsageError("all sizes of a dynamics model must be at least 1")
        if self.tokens % self.patch:
            raise UsageError(
                f"{self.tokens} tokens a bar do not divide into patches of {self.patch}"
            )
        if self.width % (2 * self.heads) or self.width // self.heads < 6:
            raise UsageError(f"width {self.width} does not divide into {self.heads} heads of 6 up")
        if not 0.0 <= self.context_t < 1.0:
            raise UsageError(f"context_t is {self.context_t}; take 0 or more and less than 1")

    @property
    def patches(self) -> int:
        """Positions that a bar takes."""
        return self.tokens // self.patch

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> DynamicsConfig:
        """Rebuild what `to_json` gave.

        Raises
        ------
        TypeError, UsageError
            If a field is missing, unknown or makes no sense.
        """
        return cls(**given)


_SIZES: Mapping[str, Mapping[str, int]] = {
    "small": {"width": 288, "depth": 8, "heads": 6, "embedding": 192, "rank": 16},
    "base": {"width": 512, "depth": 12, "heads": 8, "embedding": 384, "rank": 64},
    "large": {"width": 768, "depth": 16, "heads": 12, "embedding": 768, "rank": 128},
}

_ASKING_DEPTH = 3, 4
"""A block that also attends to conditions has a third more weights: so many fewer of them."""


def make_dynamics_config(
    size: str = "small",
    condition: How = "adaln",
    *,
    tokens: int,
    dims: int,
    action: int,
    bars: int = 16,
    tokenizer: str = "",
    lam: str = "",
    prediction: Literal["v", "x"] = "v",
) -> DynamicsConfig:
    """The config of a size: one dial, the rest computed.

    Parameters
    ----------
    size
        small (at most 9 M parameters), base or large.
    condition
        How conditions enter.
    tokens, dims, tokenizer
        Of the latents, from the store's layer.
    action, lam
        Of the actions, from the LAM.
    bars
        The longest window.
    prediction
        What the network gives.

    Raises
    ------
    UsageError
        If a name is unknown, or the sizes make no sense.
    """
    if size not in _SIZES:
        raise UsageError(f"no dynamics model of size '{size}'; sizes are {', '.join(SIZES)}")
    sizes = dict(_SIZES[size])
    if condition == "cross-attention":
        sizes["depth"] = sizes["depth"] * _ASKING_DEPTH[0] // _ASKING_DEPTH[1]
    return DynamicsConfig(
        condition=condition, tokens=tokens, dims=dims, action=action, bars=bars,
        tokenizer=tokenizer, lam=lam, prediction=prediction, patch=2 if tokens % 2 == 0 else 1,
        **sizes,
    )  # fmt: skip
