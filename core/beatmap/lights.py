"""A light show that follows the music, in basic events that every older environment plays.

Arrays: E heard events, K beats, M bars, as in `hearing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, Bomb, Boost, Light, TimeMap

if TYPE_CHECKING:
    from mgen.core.beatmap.hearing import Heard
    from mgen.core.beatmap.rhythm import Timing

BACK, RINGS, LEFT_LASERS, RIGHT_LASERS, CENTRE = 0, 1, 2, 3, 4
RING_SPIN, RING_ZOOM, LEFT_SPEED, RIGHT_SPEED = 8, 9, 12, 13
LAMPS = (BACK, RINGS, LEFT_LASERS, RIGHT_LASERS, CENTRE)
OFF, ON, FLASH, FADE = 0, 1, 2, 3
COLOURS = (0, 4)
"""Added to ON, FLASH or FADE: secondary (blue), primary (red)."""

BOMB_LIT_S = 0.25
FADE_S = 1.0
_QUIET, _RANGE, _LEAST_STEP = 0.1, 0.5, 0.07
"""In units of `Heard.loudness_K` (46 dB): 35 dB under the song's level all is dark; the show's
range is at most 23 dB and at least 6 dB."""
_MIN_FLASH_S = 0.18
_MIN_LASER_S = 0.36


@dataclass(frozen=True, slots=True)
class _Look:
    """How one section is lit; every time that it comes back it looks the same."""

    colour: int
    swing: int
    speeds: tuple[int, int]


def light_show(
    heard: Heard, timing: Timing, *, lead_beats: int, seed: int = 0
) -> tuple[tuple[Light, ...], tuple[Boost, ...]]:
    """Light a song: the same show serves all its difficulties.

    Low attacks flash the rings, others the centre, more of them the louder the song is; side
    lasers alternate by beat; at each new section the rings spin, the palette changes sides and the
    boost colours toggle; where the song falls silent all goes dark.

    Parameters
    ----------
    heard, timing
        What was heard, on slots from the source's beat 0.
    lead_beats
        Whole beats before it: chart beat = slot / 48 + lead_beats.
    seed
        Of the looks.

    Returns
    -------
    tuple
        Lights and boosts in chart beats, sorted, none before 0 or behind the song's end.
    """
    show = _Show(heard, timing, seed)
    show.sections_and_bars()
    show.beats()
    show.flashes()
    show.darkness()
    end = show.n_beats + lead_beats
    lights = (replace(li, beat=li.beat + lead_beats) for li in show.lights)
    boosts = (replace(b, beat=b.beat + lead_beats) for b in show.boosts)
    return (
        tuple(sorted({li for li in lights if 0.0 <= li.beat <= end})),
        tuple(sorted({b for b in boosts if 0.0 <= b.beat <= end})),
    )


class _Show:
    def __init__(self, heard: Heard, timing: Timing, seed: int) -> None:
        self.heard, self.seed = heard, seed
        self.per_bar = max(1, timing.beats_per_bar)
        self.clock = TimeMap(timing.bpm, timing.changes)
        self.n_beats = int(heard.n_beats)
        self.lights: list[Light] = []
        self.boosts: list[Boost] = []
        loud_K = np.asarray(heard.loudness_K, np.float64)
        if len(loud_K) == 0:
            loud_K = np.zeros(1)
        top = float(np.percentile(loud_K, 95))
        low = max(float(np.percentile(loud_K, 10)), top - _RANGE)
        self.quiet_K = loud_K < _QUIET
        # a song without dynamics is lit at full strength throughout
        rise = max(top - low, 2 * _LEAST_STEP)
        self.level_K = np.clip((loud_K - top) / rise + 1.0, 0.0, 1.0)

    def level(self, beat: float) -> float:
        """Loudness around a beat, 0 to 1."""
        k = min(max(math.floor(beat), 0), len(self.level_K) - 1)
        return float(self.level_K[max(0, k - 1) : k + 2].mean())

    def is_quiet(self, beat: float) -> bool:
        """Whether nothing sounds at a beat."""
        return bool(self.quiet_K[min(max(math.floor(beat), 0), len(self.quiet_K) - 1)])

    def section(self, bar: int) -> int:
        """Section that a bar belongs to."""
        sections = self.heard.bar_section_M
        return int(sections[min(max(bar, 0), len(sections) - 1)]) if len(sections) else 0

    def look(self, beat: float) -> _Look:
        """Look of the section at a beat."""
        section = self.section(math.floor(beat / self.per_bar))
        rng = np.random.default_rng([self.seed, 0x1195, max(section, 0)])
        swing, left, right = (int(v) for v in rng.integers(0, (2, 3, 3)))
        return _Look(COLOURS[section % 2], swing, (left, right))

    def add(self, beat: float, kind: int, value: int, brightness: float = 1.0) -> None:
        """Put an event on the grid."""
        self.lights.append(Light(float(beat), kind, value, round(float(brightness), 2)))

    def sections_and_bars(self) -> None:
        """Ring spin, zoom, palette and boost at sections; background and speeds at bars."""
        before: int | None = None
        boosted, speeds = False, (0, 0)
        for bar, beat in enumerate(range(0, self.n_beats, self.per_bar)):
            if self.is_quiet(beat):
                continue
            section, look, level = self.section(bar), self.look(beat), self.level(beat)
            if section != before:
                self.add(beat, RING_SPIN, 0)
                self.add(beat, RING_ZOOM, 0)
                if before is not None:
                    boosted = not boosted
                    self.boosts.append(Boost(float(beat), boosted))
                before = section
            elif bar % 4 == 0 and level > 0.35:
                self.add(beat, RING_ZOOM if bar % 8 else RING_SPIN, 0)
            speed = 1 + round(5 * level)
            if (wanted := (speed + look.speeds[0], speed + look.speeds[1])) != speeds:
                self.add(beat, LEFT_SPEED, wanted[0])
                self.add(beat, RIGHT_SPEED, wanted[1])
                speeds = wanted
            colour = look.colour if bar % 2 == 0 else COLOURS[1 - COLOURS.index(look.colour)]
            self.add(beat, BACK, ON + colour, 0.35 + 0.6 * level)

    def beats(self) -> None:
        """Side lasers: alternating fades, faster where it is louder."""
        last_s = -math.inf
        side = 0
        for beat in range(self.n_beats):
            at_s, level = self.clock.to_seconds(beat), self.level(beat)
            least = _MIN_LASER_S if level > 0.6 else 2.2 * _MIN_LASER_S
            if self.is_quiet(beat) or at_s - last_s < least:
                continue
            look = self.look(beat)
            lamps = (LEFT_LASERS, RIGHT_LASERS)
            both = beat % self.per_bar == 0 and level > 0.7
            for lamp in lamps if both else (lamps[(side + look.swing) % 2],):
                value = (FLASH if both else FADE) + look.colour
                self.add(beat, lamp, value, 0.5 + 0.6 * level)
            side, last_s = side + 1, at_s

    def flashes(self) -> None:
        """Rings for low attacks, the centre for the others: the strong ones, on their slots."""
        h = self.heard
        strength_E = np.asarray(h.strength_E, np.float64)
        if len(strength_E) == 0:
            return
        low_E, rest_E = _ranks(h.low_E), np.maximum(_ranks(h.mid_E), _ranks(h.high_E))
        rank_E = _ranks(strength_E)
        free_at = dict.fromkeys((RINGS, CENTRE), -math.inf)
        for e in np.argsort(np.asarray(h.slot_E), kind="stable"):
            beat = float(h.slot_E[e]) / SLOTS_PER_BEAT
            level = self.level(beat)
            if beat < 0 or self.is_quiet(beat) or rank_E[e] < 0.85 - 0.7 * level:
                continue
            at_s = self.clock.to_seconds(beat)
            lamp = RINGS if low_E[e] >= rest_E[e] else CENTRE
            if at_s < free_at[lamp]:
                continue
            free_at[lamp] = at_s + _MIN_FLASH_S + 0.5 * (1.0 - level)
            look = self.look(beat)
            colour = look.colour if lamp == CENTRE else COLOURS[1 - COLOURS.index(look.colour)]
            strong = rank_E[e] > 0.8
            value = (FLASH if strong and lamp == RINGS else FADE) + colour
            self.add(beat, lamp, value, 0.5 + 0.35 * level + 0.35 * rank_E[e])

    def darkness(self) -> None:
        """All lamps off where sound ends, and at the end of the song."""
        edges = np.flatnonzero(self.quiet_K[1 : self.n_beats] & ~self.quiet_K[: self.n_beats - 1])
        for beat in [*(edges + 1).tolist(), self.n_beats]:
            for lamp in LAMPS:
                self.add(beat, lamp, OFF, 0.0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Share of values that are not larger, 0 to 1."""
    values = np.asarray(values, np.float64)
    ranks: np.ndarray = np.searchsorted(np.sort(values), values, "right") / max(len(values), 1)
    return ranks


def light_bombs(
    lights: Sequence[Light], bombs: Sequence[Bomb], clock: TimeMap
) -> tuple[Light, ...]:
    """Add what it takes that every bomb is seen: a lamp lit for `BOMB_LIT_S` before it.

    A lamp that was turned on stays lit, one that flashed and fades counts for `FADE_S`.
    """
    lit = sorted(lights)
    for bomb in sorted(bombs):
        at_s = clock.to_seconds(bomb.beat)
        if not is_lit(lit, at_s - BOMB_LIT_S, at_s, clock):
            beat = max(0.0, clock.to_beats(at_s - 2 * BOMB_LIT_S))
            beat = math.floor(beat * SLOTS_PER_BEAT) / SLOTS_PER_BEAT
            lit = sorted([*lit, Light(beat, BACK, ON, 0.8)])
    return tuple(lit)


def is_lit(lights: Sequence[Light], from_s: float, to_s: float, clock: TimeMap) -> bool:
    """Whether one lamp at least shines from `from_s` to `to_s`."""
    state: dict[int, tuple[float, int]] = {}
    dark_in: set[int] = set()
    for li in lights:
        if li.kind not in LAMPS:
            continue
        at_s = clock.to_seconds(li.beat)
        if at_s > to_s:
            break
        if at_s > from_s and li.value == OFF:
            dark_in.add(li.kind)
        if at_s <= from_s:
            state[li.kind] = (at_s, li.value)
    return any(
        value != OFF and lamp not in dark_in and (value % 4 != FADE or to_s - at_s <= FADE_S)
        for lamp, (at_s, value) in state.items()
    )
