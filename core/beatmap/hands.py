"""Which hand strikes when: alternation, doubles, and bars that repeat an earlier bar.

A hand turns over with every swing, so the number of its swings decides whether it cuts down or up.
A bar can only repeat an earlier one where both hands stand on the same side as they did then
(or, mirrored, each as the other did): the last strikes of the bar before are bent to that end.

Shapes: O onsets, M bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgen.core.beatmap.chart import BLUE, RED, SLOTS_PER_BEAT
from mgen.core.beatmap.density import Style
from mgen.core.beatmap.placement import Onsets

RED_HAND, BLUE_HAND, BOTH_HANDS = 1, 2, 3

_SAME_ENOUGH = 0.7
_MOST_DEBT = 1
"""Doubles that may be put off until the hands are on the same side."""
_FREE_REPEAT = ((0.9, 0.35), (0.45, 0.07))
"""Gap in beats from which a hand may strike twice in a row, and how often it does."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One onset of a chart.

    `hands` is a set of bits: 1 red, 2 blue. `model` is the index of the earlier strike that this
    one repeats, or -1; `mirrored` says that it does so with the hands swapped.
    """

    slot: int
    time_s: float
    hands: int
    accent: float
    low: float
    high: float
    model: int = -1
    mirrored: bool = False

    @property
    def beat(self) -> float:
        """Chart beat."""
        return self.slot / SLOTS_PER_BEAT

    def has(self, colour: int) -> bool:
        """Whether a hand strikes."""
        return bool(self.hands >> colour & 1)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of the chart: length in slots, the slot of the first, what each repeats (-1: nothing).

    Bar m begins at `origin + m * length`.
    """

    origin: int
    length: int
    repeat_of: tuple[int, ...]

    def of(self, slot: int) -> int:
        """Bar of a slot; negative before the first."""
        return (slot - self.origin) // self.length

    def source(self, bar: int) -> int:
        """The earlier bar that a bar repeats, or -1."""
        return self.repeat_of[bar] if 0 <= bar < len(self.repeat_of) else -1


class _Plan:
    """Strikes as they are decided, from left to right."""

    def __init__(self, style: Style, onsets: Onsets) -> None:
        self.style = style
        self.slots = onsets.at.slot_N.tolist()
        self.times = onsets.at.time_N.tolist()
        self.hands: list[int] = []
        self.wanted = float(onsets.double_O.mean()) if len(onsets) else 0.0
        self.debt = 0

    def room(self, i: int, colour: int) -> bool:
        """Whether a hand has had time since its last strike, and until its next one if known."""
        style = self.style
        for j in range(i - 1, -1, -1):
            if self.hands[j] >> colour & 1:
                slots, seconds = self.slots[i] - self.slots[j], self.times[i] - self.times[j]
                return (
                    slots >= style.hand_gap_beats * SLOTS_PER_BEAT
                    and seconds >= style.hand_gap_s - 1e-6
                )
        return True

    def doubles_spent(self, i: int) -> bool:
        """Whether the chart so far has more doubles than were chosen."""
        return self.hands.count(BOTH_HANDS) > 1.1 * self.wanted * (i + 1) + 1

    def doubles_lack(self, i: int) -> bool:
        """Whether the chart so far has clearly fewer doubles than were chosen."""
        return self.hands.count(BOTH_HANDS) < 0.8 * self.wanted * (i + 1)

    def counts(self, until: int | None = None) -> tuple[int, int]:
        """Strikes of red and blue modulo 2, before an index."""
        struck = self.hands[:until]
        return sum(h & 1 for h in struck) % 2, sum(h >> 1 for h in struck) % 2


def assign_hands(
    onsets: Onsets, style: Style, bars: Bars, rng: np.random.Generator, pair_sides: bool
) -> list[Strike]:
    """Give every onset its hand or hands.

    Parameters
    ----------
    onsets
        The chart's onsets; `double_O` asks for both hands.
    style
        The gaps that one hand needs.
    bars
        Where bars begin, and which repeat which.
    rng
        Decides where a hand strikes twice.
    pair_sides
        Whether doubles should find both hands on the same side (beginners' charts).
    """
    plan = _Plan(style, onsets)
    models = [(-1, False)] * len(onsets)
    of_bar = _strikes_of_bars(plan.slots, bars)
    i = 0
    while i < len(onsets):
        bar = bars.of(plan.slots[i])
        members = of_bar[bar]
        source = of_bar.get(bars.source(bar), []) if bars.source(bar) >= 0 else []
        matches = _match(members, source, plan.slots, bars) if members[0] == i else {}
        if matches and len(matches) >= _SAME_ENOUGH * max(len(members), len(source)):
            mirrored = _settle_sides(plan, source[0], i)
            for k in members:
                hands = _copied_hand(plan, onsets, k, matches.get(k), mirrored)
                if hands:
                    models[k] = (matches[k], mirrored)
                # A copied bar has its source's doubles, unless that leaves the chart without any.
                lacking = hands != BOTH_HANDS and plan.doubles_lack(k)
                if lacking and _wants_double(plan, onsets, k, pair_sides):
                    hands = _free_hand(plan, k, True, rng)
                plan.hands.append(hands or _free_hand(plan, k, False, rng))
            i += len(members)
        else:
            double = _wants_double(plan, onsets, i, pair_sides)
            plan.hands.append(_free_hand(plan, i, double, rng))
            i += 1
    return _without_gaps(plan, onsets, models)


def _copied_hand(plan: _Plan, onsets: Onsets, k: int, model: int | None, mirrored: bool) -> int:
    """Hands of the strike that onset `k` repeats; 0 where it repeats none, or has no room."""
    if model is None:
        return 0
    hands = plan.hands[model]
    if mirrored:
        hands = (0, BLUE_HAND, RED_HAND, BOTH_HANDS)[hands]
    extra = hands == BOTH_HANDS and not onsets.double_O[k]
    if extra and (plan.doubles_spent(k) or not _clear_after(plan, k)):
        return 0
    fits = all(plan.room(k, colour) for colour in (RED, BLUE) if hands >> colour & 1)
    return hands if fits else 0


def _without_gaps(plan: _Plan, onsets: Onsets, models: Sequence[tuple[int, bool]]) -> list[Strike]:
    """Strikes without the onsets that no hand had time for; models are renumbered."""
    kept = [i for i, h in enumerate(plan.hands) if h]
    place = {old: new for new, old in enumerate(kept)}
    at = onsets.at
    return [
        Strike(
            plan.slots[i], plan.times[i], plan.hands[i], float(at.accent_N[i]),
            float(at.low_N[i]), float(at.high_N[i]), place.get(models[i][0], -1), models[i][1],
        )
        for i in kept
    ]  # fmt: skip


def _strikes_of_bars(slots: Sequence[int], bars: Bars) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, slot in enumerate(slots):
        found.setdefault(bars.of(slot), []).append(i)
    return found


def _match(
    members: Sequence[int], source: Sequence[int], slots: Sequence[int], bars: Bars
) -> dict[int, int]:
    """Strikes of a bar with those of its source at the same place in the bar."""
    place = {(slots[j] - bars.origin) % bars.length: j for j in source}
    return {
        k: place[offset]
        for k in members
        if (offset := (slots[k] - bars.origin) % bars.length) in place
    }


def _settle_sides(plan: _Plan, source: int, i: int) -> bool:
    """Bend the strikes before `i` so that both hands stand as at `source`; say if mirrored."""
    red, blue = plan.counts(source)
    now = plan.counts(i)
    if now == (red, blue):
        return False
    if now == (blue, red):
        return True
    # Exactly one hand stands wrong for the plain copy: a strike more or less sets it right.
    wrong = RED if now[0] != red else BLUE
    if _toggle(plan, i, wrong):
        return False
    return now[0] == blue


def _toggle(plan: _Plan, i: int, colour: int) -> bool:
    """Add or take one strike of a hand shortly before `i`, where it has room."""
    bit = 1 << colour
    for k in range(i - 1, max(i - 5, -1), -1):
        if plan.hands[k] == BOTH_HANDS:
            plan.hands[k] = BOTH_HANDS & ~bit
            return True
        if not plan.hands[k] & bit and plan.hands[k] and not plan.doubles_spent(i):
            later = [j for j in range(k + 1, i) if plan.hands[j] & bit]
            tail = plan.hands[k + 1 :]
            del plan.hands[k + 1 :]
            fits = plan.room(k, colour) and (k < i - 1 or _clear_after(plan, k))
            plan.hands[k] |= bit if fits else 0
            plan.hands.extend(tail)
            if fits and (not later or plan.room(later[0], colour)):
                return True
            plan.hands[k] = BOTH_HANDS & ~bit
    return False


def _wants_double(plan: _Plan, onsets: Onsets, i: int, pair_sides: bool) -> bool:
    wanted = bool(onsets.double_O[i])
    if not pair_sides:
        return wanted
    red, blue = plan.counts()
    if wanted and red != blue:
        before = len(plan.hands) - 1
        if before >= 0 and plan.hands[before] in (RED_HAND, BLUE_HAND) and _widen(plan, before):
            return False
        plan.debt += 1
        return plan.debt > _MOST_DEBT
    repays = not wanted and plan.debt and red == blue and onsets.at.accent_N[i] > 0.3
    if repays and _clear_after(plan, i) and plan.room(i, RED) and plan.room(i, BLUE):
        plan.debt -= 1
        return True
    return wanted


def _widen(plan: _Plan, k: int) -> bool:
    """Make the last strike, `k`, a double where the other hand and the next onset leave room."""
    hand = plan.hands.pop()
    other = RED if hand == BLUE_HAND else BLUE
    fits = plan.room(k, other) and _clear_after(plan, k)
    plan.hands.append(BOTH_HANDS if fits else hand)
    return fits


def _clear_after(plan: _Plan, i: int) -> bool:
    """Whether both hands have time from onset `i` to the next one."""
    if i + 1 >= len(plan.slots):
        return True
    style = plan.style
    return (
        plan.slots[i + 1] - plan.slots[i] >= style.hand_gap_beats * SLOTS_PER_BEAT
        and plan.times[i + 1] - plan.times[i] >= style.hand_gap_s - 1e-6
    )


def _free_hand(plan: _Plan, i: int, double: bool, rng: np.random.Generator) -> int:
    """Hand or hands for an onset that repeats nothing; 0 where neither has had time."""
    draw = float(rng.random())
    red, blue = plan.room(i, RED), plan.room(i, BLUE)
    if double and red and blue:
        return BOTH_HANDS
    if not (red and blue):
        return RED_HAND if red else BLUE_HAND if blue else 0
    last = next((h for h in reversed(plan.hands) if h in (RED_HAND, BLUE_HAND)), BLUE_HAND)
    other = BOTH_HANDS & ~last
    if not plan.hands or plan.hands[-1] == BOTH_HANDS:
        return last if draw < 0.3 else other
    gap = (plan.slots[i] - plan.slots[i - 1]) / SLOTS_PER_BEAT
    twice = len(plan.hands) > 1 and plan.hands[-1] == plan.hands[-2]
    often = next((share for least, share in _FREE_REPEAT if gap >= least), 0.0)
    return last if not twice and draw < often else other


def only_within(strikes: Sequence[Strike], first: int, last: int) -> list[Strike]:
    """Strikes from slot `first` up to but without `last`; models outside are forgotten."""
    kept = [i for i, s in enumerate(strikes) if first <= s.slot < last]
    place = {old: new for new, old in enumerate(kept)}
    return [replace(strikes[i], model=place.get(strikes[i].model, -1)) for i in kept]
