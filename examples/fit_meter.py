"""Score and fit the constants of core/beats/meter.py: which beats are first in their bar.

    python examples/fit_meter.py DATA --soundfont FLUID.sf2 --soundfont MUSESCORE.sf3
        [--work DIR] [--pieces 8] [--search 0]

Takes the annotated songs marked `dev` and rendered MIDI of `dev` titles in every kind of bar, other
titles than those that evaluate_bars.py reports on. Beats are found once, as the shipped tracker
finds them; then constants are drawn at random around the best so far, and kept where more bars are
right. A bar is right if both its lines are downbeats, and none between; kinds weigh alike, the
songs as `SONGS_WEIGH` kinds. Every step away from the present constants costs, so that those that
make no difference stay. Each half of the titles is also fitted alone and scored on the other: what
that gains is what to expect. Needs `pip install mido mir_eval` and fluidsynth. Five minutes on one
core for the score, a second more for each drawing.
"""

from __future__ import annotations

import argparse
import itertools
import zlib
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from evaluate_bars import Example, annotated, bars_found, rendered

from mgen.core.beats import Beats
from mgen.core.beats.meter import (
    METERS,
    Cues,
    MeterSettings,
    best_places,
    find_cues,
    halve_odd_bars,
)
from mgen.core.beats.mgen_tracker import hear

SONGS_WEIGH = 3.0
"""Kinds of bar that the annotated songs count for together."""
STEPS = {
    "low": 0.02, "middle": 0.02, "high": 0.02, "harmony": 0.02, "bass": 0.02, "timbre": 0.02,
    "learned": 0.01, "rhythm": 0.03, "tones": 0.03, "longer": 0.2, "new_meter_cost": 0.7,
    "cut_bar_cost": 1.0, "pickup_cost": 0.7, "prior": 0.02,
}  # fmt: skip
"""Spread of a drawing from the best so far."""
STEP_COST = 0.00002
"""What a constant one such step away from where it was costs, in shares of bars; by its square."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Beats of a piece, found and true, and what speaks for its bars."""

    kind: str
    half: int
    truth: Beats
    time_s: np.ndarray
    cues: Cues
    downbeat_T: np.ndarray

    def right(self, settings: MeterSettings) -> float:
        """Share of the true bars that are found."""
        place_n = best_places(self.cues, settings)
        time_s, place_n = halve_odd_bars(self.time_s, place_n, self.downbeat_T)
        found_s = time_s[place_n == 1]
        return bars_found(self.truth.time_s[self.truth.beat_in_bar == 1], found_s)


def pieces_of(data: Path, soundfonts: list[Path], work: Path, count: int) -> list[Piece]:
    """Listen to all songs and renders once."""
    pieces = []
    for example in itertools.chain(
        annotated(data, ["dev"]), rendered(data, soundfonts, work, count, take=1)
    ):
        heard = hear(example.samples_N, example.rate)
        if heard is not None and len(heard.time_s) >= 3:
            cues = find_cues(heard.time_s, heard.features, heard.learned_n)
            kind = "songs" if example.kind.startswith("dev ") else example.kind
            half = zlib.crc32(title_of(example).encode()) % 2
            downbeat_T = heard.logits_T2[:, 1]
            pieces.append(Piece(kind, half, example.truth, heard.time_s, cues, downbeat_T))
    return pieces


def title_of(example: Example) -> str:
    """A song's or a render's title, the same for a title's renders of all kinds."""
    kind = example.kind.replace("/", "").replace(" ", "-")
    return Path(example.name.removeprefix(f"{kind}-")).stem


def scores(pieces: list[Piece], settings: MeterSettings) -> dict[str, float]:
    """Share of bars that are right, per kind."""
    each: dict[str, list[float]] = defaultdict(list)
    for piece in pieces:
        each[piece.kind].append(piece.right(settings))
    return {kind: float(np.mean(shares)) for kind, shares in each.items()}


def total(by_kind: dict[str, float]) -> float:
    """The kinds' mean."""
    weights = [SONGS_WEIGH if kind == "songs" else 1.0 for kind in by_kind]
    return float(np.average(list(by_kind.values()), weights=weights))


def search(pieces: list[Piece], start: MeterSettings, draws: int, seed: int = 0) -> MeterSettings:
    """The best of so many drawings, each with one to three constants changed."""
    rng = np.random.default_rng(seed)
    best, most = start, total(scores(pieces, start))
    names = [*STEPS, *["prior"] * (len(METERS) - 2)]  # a prior for each meter but 4
    for _ in range(draws):
        tried = best
        for name in rng.choice(names, size=rng.integers(1, 4)):
            tried = moved(tried, str(name), rng)
        value = total(scores(pieces, tried)) - cost(tried, start)
        if value >= most:
            best, most = tried, value
    return best


def moved(settings: MeterSettings, name: str, rng: np.random.Generator) -> MeterSettings:
    """The settings with one constant drawn anew; costs stay positive."""
    step = float(rng.normal(0.0, STEPS[name]))
    if name == "prior":
        prior = list(settings.prior)
        prior[int(rng.choice([i for i, meter in enumerate(METERS) if meter != 4]))] += step
        return replace(settings, prior=tuple(prior))
    value = getattr(settings, name) + step
    return replace(settings, **{name: max(0.0, value) if name.endswith("_cost") else value})


def cost(settings: MeterSettings, start: MeterSettings) -> float:
    """What it costs to be so far from the start."""
    steps = [
        (np.asarray(getattr(settings, name)) - np.asarray(getattr(start, name))) / step
        for name, step in STEPS.items()
    ]
    return STEP_COST * float(sum(np.sum(s**2) for s in steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--work", type=Path, default=Path("meter-renders"), help="keeps renders")
    parser.add_argument("--pieces", type=int, default=8, help="rendered pieces of each kind")
    parser.add_argument("--search", type=int, default=0, help="drawings; 0 only scores")
    given = parser.parse_args()
    pieces = pieces_of(given.data, given.soundfont, given.work, given.pieces)
    now = MeterSettings()
    print_scores("now", scores(pieces, now))
    if not given.search:
        return
    gains = []
    for half in range(2):
        learned = search([p for p in pieces if p.half == half], now, given.search)
        other = [p for p in pieces if p.half != half]
        gains.append(total(scores(other, learned)) - total(scores(other, now)))
    print(f"halves fitted alone gain on the other half: {gains[0]:+.3f}, {gains[1]:+.3f}")
    best = search(pieces, now, given.search)
    print_scores("fitted", scores(pieces, best))
    for field in fields(best):
        value = np.round(getattr(best, field.name), 4)
        print(f"    {field.name} = {value.tolist()}")


def print_scores(name: str, by_kind: dict[str, float]) -> None:
    print(f"{name}: {total(by_kind):.3f}", *(f"{k} {v:.2f}" for k, v in by_kind.items()), sep="  ")


if __name__ == "__main__":
    main()
