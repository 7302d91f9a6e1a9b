"""Sizes of a latent action model: what rebuilds it from its folder, and the presets.

Letters: L tokens of a bar, D dims of a token, W width, A width of an action's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mgen.core.errors import UsageError

BottleneckName = Literal["vq", "fsq", "residual-fsq", "style"]
BOTTLENECKS: tuple[BottleneckName, ...] = ("vq", "fsq", "residual-fsq", "style")
InputName = Literal["latents", "mel"]
INPUTS: tuple[InputName, ...] = ("latents", "mel")

MEL_BANDS = 80
LEVELS: Mapping[int, tuple[int, ...]] = {64: (8, 8), 256: (8, 6, 5), 1000: (8, 5, 5, 5)}
"""FSQ levels by the number of actions that is asked for (Mentzer et al. 2024, table 1): 256 gives
240."""

MIN_BARS = 4
"""Of a sequence: on two bars, actions learn what the bar before tells anyhow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionsAxes:
    """The three axes of a palette of styles."""

    actions: int
    bars_per_action: int
    top_k: int


PRESETS: Mapping[str, ActionsAxes] = {
    "64-1-3": ActionsAxes(actions=64, bars_per_action=1, top_k=3),
    "256-1-5": ActionsAxes(actions=256, bars_per_action=1, top_k=5),
    "1024-2-10": ActionsAxes(actions=1024, bars_per_action=2, top_k=10),
    "128-1-10": ActionsAxes(actions=128, bars_per_action=1, top_k=10),
}
"""What ships, as many actions as a palette has rows; the seed's: diverse and interpretable; high
quality but redundant; abstract."""
DEFAULT_PRESET = "64-1-3"


@dataclass(frozen=True, slots=True, kw_only=True)
class LamSizes:
    """Widths and depths.

    Attributes
    ----------
    width, heads, hidden
        W of all blocks, their heads, and the hidden layer of SwiGLU.
    spatial, temporal
        Blocks within a bar, then across bars.
    decoder
        Blocks of the decoder.
    condition
        Width of what modulates them.
    embedding
        A.
    patch
        Tokens that are read as one.
    """

    width: int
    heads: int
    hidden: int
    spatial: int
    temporal: int
    decoder: int
    condition: int
    embedding: int
    patch: int = 2


SIZES: Mapping[str, LamSizes] = {
    "small": LamSizes(width=256, heads=4, hidden=240, spatial=4, temporal=2, decoder=2,
                      condition=64, embedding=128),
    "base": LamSizes(width=512, heads=8, hidden=1360, spatial=8, temporal=4, decoder=6,
                     condition=256, embedding=256),
    "large": LamSizes(width=768, heads=12, hidden=2048, spatial=12, temporal=6, decoder=9,
                      condition=384, embedding=384),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LamConfig:
    """Everything that fixes a latent action model's shape.

    Attributes
    ----------
    bottleneck
        What an action is made of. Styles describe a bar alone; the others the step to it.
    actions
        N embeddings or codes (FSQ: the product of its levels).
    top_k
        Styles that count at once.
    levels, quantizers
        Of (residual) FSQ.
    bars_per_action
        Bars that share an action.
    bars
        Of a sequence.
    input
        What the encoder reads: latents, or the log-mel of the bars' sound.
    tokens, dims, tokenizer
        Of a bar's latents, and the id of the tokenizer that makes them.
    relative
        Of styles: whether they are of what sets a bar apart from the average bar of its song,
        which encoder and decoder are then both given; else of all that it is.
    mapping
        Whether a residual MLP stands between the actions and the decoder: the palette stays
        simple, what is made of it may be more informative.
    warmup, sparse_at, reset_until
        Steps: styles are dense up to the first and sparse from the second; nothing that is dead
        is replaced from the third.
    one_hot, dropout
        Share of the bars in training with a single style; with fewer quantizers than all.
    sizes
        Widths and depths.
    """

    bottleneck: BottleneckName
    actions: int
    top_k: int = 1
    levels: tuple[int, ...] = ()
    quantizers: int = 1
    bars_per_action: int = 1
    bars: int = 8
    input: InputName = "latents"
    tokens: int
    dims: int
    tokenizer: str
    relative: bool = False
    mapping: bool = False
    warmup: int = 1000
    sparse_at: int = 5000
    reset_until: int = 5000
    one_hot: float = 0.2
    dropout: float = 0.5
    sizes: LamSizes

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.bottleneck not in BOTTLENECKS:
            raise UsageError(f"no bottleneck '{self.bottleneck}'; choose {', '.join(BOTTLENECKS)}")
        if self.input not in INPUTS:
            raise UsageError(f"no input is called '{self.input}'; choose {', '.join(INPUTS)}")
        if self.actions < 2 or not 1 <= self.top_k <= self.actions:
            raise UsageError(
                f"{self.actions} actions, top-k {self.top_k}: take at least 2, and 1 to all of them"
            )
        if self.bars_per_action < 1 or self.bars < MIN_BARS or self.bars % self.bars_per_action:
            raise UsageError(
                f"sequences of {self.bars} bars, {self.bars_per_action} an action: take at least"
                f" {MIN_BARS} bars, a multiple of those of an action"
            )
        if self.tokens % self.sizes.patch:
            raise UsageError(f"{self.tokens} tokens a bar do not divide by {self.sizes.patch}")
        if self.relative and self.steps:
            raise UsageError("steps are from the bar before, not from the song: styles alone are")

    @property
    def steps(self) -> bool:
        """Whether actions describe the step from the bar before (and not a bar alone)."""
        return self.bottleneck != "style"

    @property
    def features(self) -> int:
        """Numbers that the encoder reads a token."""
        return self.dims if self.input == "latents" else MEL_BANDS

    @property
    def numbers(self) -> int:
        """Indices that say which action a bar has."""
        return self.top_k if self.bottleneck == "style" else self.quantizers

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> LamConfig:
        """Rebuild what `to_json` gave.

        Raises
        ------
        TypeError, KeyError, UsageError
            If a field is missing, unknown or makes no sense.
        """
        rest = {**given, "levels": tuple(given["levels"]), "sizes": LamSizes(**given["sizes"])}
        return cls(**rest)


def make_config(
    bottleneck: BottleneckName,
    *,
    tokens: int,
    dims: int,
    tokenizer: str,
    size: str = "small",
    preset: str | None = None,
    actions: int | None = None,
    bars_per_action: int | None = None,
    top_k: int | None = None,
    bars: int = 8,
    input: InputName = "latents",
    relative: bool | None = None,
    mapping: bool = False,
    run_steps: int | None = None,
) -> LamConfig:
    """The config of a bottleneck: one dial for the size, the rest computed.

    Parameters
    ----------
    bottleneck
        vq, fsq, residual-fsq or style.
    tokens, dims, tokenizer
        Of a bar's latents.
    size
        small, base or large.
    preset
        Of styles: actions, bars an action, and top-k at once; `64-1-3` unless it is named.
    actions, bars_per_action, top_k
        In place of the preset's; the codes are 64 and of one bar by default.
    bars, input, mapping
        As `LamConfig`.
    relative
        The same; where it is None, styles are.
    run_steps
        Updates of the whole run: a short one is warm sooner.

    Raises
    ------
    UsageError
        If a name is unknown, or the numbers make no sense.
    """
    if size not in SIZES:
        raise UsageError(f"no size is called '{size}'; choose {', '.join(SIZES)}")
    config = LamConfig(
        bottleneck=bottleneck, actions=64, tokens=tokens, dims=dims, tokenizer=tokenizer,
        bars=bars, input=input, mapping=mapping, sizes=SIZES[size],
        bars_per_action=bars_per_action or 1,
        relative=bottleneck == "style" if relative is None else relative,
    )  # fmt: skip
    if run_steps is not None:
        config = replace(
            config, warmup=min(1000, run_steps // 8), sparse_at=min(5000, run_steps // 2),
            reset_until=min(5000, run_steps // 2),
        )  # fmt: skip
    if bottleneck == "style":
        if preset is not None and preset not in PRESETS:
            raise UsageError(f"no preset is called '{preset}'; choose {', '.join(PRESETS)}")
        axes = PRESETS[preset or DEFAULT_PRESET]
        wanted = actions or axes.actions
        return replace(
            config, actions=wanted, top_k=top_k or min(axes.top_k, wanted),
            bars_per_action=bars_per_action or axes.bars_per_action,
        )  # fmt: skip
    if preset is not None or top_k is not None:
        raise UsageError("presets and --top-k are for styles; take --bottleneck style")
    if bottleneck == "vq":
        return replace(config, actions=actions or 64)
    if (actions or 64) not in LEVELS:
        raise UsageError(
            f"FSQ has no levels for {actions} actions; choose {', '.join(map(str, LEVELS))}"
        )
    levels = LEVELS[actions or 64]
    count = 1
    for n in levels:
        count *= n
    quantizers = 3 if bottleneck == "residual-fsq" else 1
    return replace(config, actions=count, levels=levels, quantizers=quantizers)
