"""Where notes go: one state (cell and direction) per strike, decoded from left to right.

Each strike draws a state from the product of four experts: how human hands move (`patterns`), how
the chart's histograms still differ from the human ones, what the music does, and the bar that is
being repeated. What `playability` closes is never drawn, so nothing has to be repaired. A strike
for which nothing is open loses a hand, and is counted.

Shapes: S 108 states of a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mgen.core.beatmap.chart import BLUE, DOT, RED, Difficulty, Note
from mgen.core.beatmap.hands import Strike
from mgen.core.beatmap.histograms import human_histogram
from mgen.core.beatmap.parity import BACKHAND, FOREHAND
from mgen.core.beatmap.patterns import MIRROR_S, table_of
from mgen.core.beatmap.playability import PlacementContext
from mgen.core.beatmap.states import (
    CELL_S,
    COLUMN_S,
    DIRECTION_S,
    ROW_S,
    STATES,
    clash_tables,
    index_of,
    state_note,
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]

_CLOSED = -1e9
_IS_DOT_S = DIRECTION_S == DOT
_FACE_S = (ROW_S == 1) & ((COLUMN_S == 1) | (COLUMN_S == 2))
_WIDE_S = ((COLUMN_S == 0) | (COLUMN_S == 3)) + 0.7 * (ROW_S == 2)
_LOW_S, _TOP_S = (ROW_S == 0) + 0.0, (ROW_S == 2) + 0.0
_OPENING_S = {
    RED: np.isin(DIRECTION_S, (1, 7, 6)),
    BLUE: np.isin(DIRECTION_S, (1, 7, 6)),
}

_NEVER = ("Parity error", "Double-directional", "Parity warning")
"""Closed at every difficulty, even where a beginners' chart could reset the hand: the other
states always leave a way on."""

_SELDOM = ("Vision block", "shrado angle")
"""What a checker warns of: taken only where all else is worse."""

DISTINCT_STATES = {
    Difficulty.EASY: 46, Difficulty.NORMAL: 56, Difficulty.HARD: 68, Difficulty.EXPERT: 80,
    Difficulty.EXPERT_PLUS: 80,
}  # fmt: skip
"""Different notes (colour, cell, direction) that a chart should have: the human lower end."""

UNIQUE_LOW, UNIQUE_HIGH = 0.81, 0.88
"""Share of sequences of four notes that come only once, between which a chart is held."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Notes of a chart in order, and how many hands found no open state."""

    notes: tuple[Note, ...]
    dropped: int


class Tally:
    """What the chart has so far, against what human charts of its difficulty have."""

    def __init__(self, difficulty: Difficulty) -> None:
        self.goal = DISTINCT_STATES[difficulty]
        self._wanted = {
            "direction": _shares(human_histogram(difficulty, "direction"), "012345678"),
            "row": _shares(human_histogram(difficulty, "row"), "012"),
            "column": _shares(
                human_histogram(difficulty, "colour_column"),
                [f"{colour}{column}" for colour in (RED, BLUE) for column in range(4)],
            ),
        }
        # A prior of some notes keeps the first bars from being dictated by the counts.
        self._have = {name: 12.0 * wanted for name, wanted in self._wanted.items()}
        self.used = np.zeros((2, STATES), np.int64)
        self._follow: dict[tuple[tuple[int, int], ...], set[tuple[int, int]]] = {}
        self._last: tuple[tuple[int, int], ...] = ()
        self._fresh = self._sequences = 0

    def add(self, colour: int, state: int) -> None:
        """Count a note."""
        self._have["direction"][DIRECTION_S[state]] += 1
        self._have["row"][ROW_S[state]] += 1
        self._have["column"][colour * 4 + COLUMN_S[state]] += 1
        self.used[colour, state] += 1
        note = (colour, state)
        if len(self._last) == 3:
            known = note in self._follow.get(self._last, ())
            self._fresh += not known
            self._sequences += 1
        for start in range(len(self._last)):
            self._follow.setdefault(self._last[start:], set()).add(note)
        self._last = (*self._last[-2:], note)

    def known_next(self, colour: int) -> list[tuple[int, int]]:
        """States that have followed the last notes before, each with the length of the match."""
        found: dict[int, int] = {}
        for start in range(len(self._last)):
            for hand, state in self._follow.get(self._last[start:], ()):
                if hand == colour:
                    found.setdefault(state, len(self._last) - start)
        return list(found.items())

    def feedback(self, colour: int, strength: float) -> FloatArray:
        """What to add to the score of each state to come back to the human shares, (108,)."""
        turn = {
            name: np.log((wanted + 0.01) / (self._have[name] / self._have[name].sum() + 0.01))
            for name, wanted in self._wanted.items()
        }
        columns = turn["column"][4 * colour : 4 * colour + 4]
        return np.asarray(
            strength * (turn["direction"][DIRECTION_S] + turn["row"][ROW_S] + columns[COLUMN_S]),
            np.float64,
        )

    @property
    def distinct(self) -> int:
        """Different notes so far."""
        return int((self.used > 0).sum())

    @property
    def unique(self) -> float:
        """Share of sequences of four notes that were new when they came."""
        return self._fresh / self._sequences if self._sequences >= 8 else 1.0


def _shares(table: Mapping[str, float], keys: Sequence[str]) -> FloatArray:
    values = np.array([table.get(key, 0.0) for key in keys])
    return values / values.sum()


class Decoder:
    """Decodes the strikes of one chart.

    Parameters
    ----------
    difficulty
        Chooses the statistics.
    context
        The hands' state and the rules; it moves on with every note.
    rng
        What is drawn.
    """

    def __init__(
        self, difficulty: Difficulty, context: PlacementContext, rng: np.random.Generator
    ) -> None:
        self.difficulty = difficulty
        self.context = context
        self.rng = rng
        self.tally = Tally(difficulty)
        self.tables = (table_of(difficulty, RED), table_of(difficulty, BLUE))
        self.dropped = 0
        self._chosen: list[dict[int, int]] = []

    def follow(self, notes: Sequence[Note]) -> None:
        """Take over from notes that are there already, in order."""
        for note in notes:
            self.context.place(note)
            self.tally.add(note.colour, index_of(note))

    def decode(
        self, strikes: Sequence[Strike], landing: Mapping[int, Note] | None = None
    ) -> Decoded:
        """Give every strike its states.

        Parameters
        ----------
        strikes
            In order of time.
        landing
            By colour, the note that will come after the last strike: that hand must reach it.
        """
        notes: list[Note] = []
        last = {c: max((i for i, s in enumerate(strikes) if s.has(c)), default=-1)
                for c in landing or ()}  # fmt: skip
        for i, strike in enumerate(strikes):
            wait_s = strikes[i + 1].time_s - strike.time_s if i + 1 < len(strikes) else 9.0
            targets = {c: n for c, n in (landing or {}).items() if last[c] == i}
            chosen = self._choose(strike, wait_s, (i + 1) / len(strikes), targets)
            self._chosen.append(chosen)
            for colour, state in sorted(chosen.items()):
                note = state_note(state, colour, strike.beat)
                self.context.place(note)
                self.tally.add(colour, state)
                notes.append(note)
        return Decoded(tuple(notes), self.dropped)

    def _choose(
        self, strike: Strike, wait_s: float, progress: float, targets: Mapping[int, Note]
    ) -> dict[int, int]:
        scores = {
            colour: self._score(colour, strike, wait_s, progress)
            for colour in (RED, BLUE)
            if strike.has(colour)
        }
        for colour, target in targets.items():
            scores[colour] = scores[colour] - 100.0 * ~self._reaches(colour, strike, target)
        for colour in [c for c, s in scores.items() if s.max() <= _CLOSED / 2]:
            del scores[colour]
            self.dropped += 1
        if len(scores) == 2:
            pair = self._draw_pair(scores[RED], scores[BLUE])
            if pair is not None:
                return pair
            self.dropped += 1
            del scores[BLUE]
        return {colour: self._draw(score_S) for colour, score_S in scores.items()}

    def _score(self, colour: int, strike: Strike, wait_s: float, progress: float) -> FloatArray:
        """Score of every state of a hand at a strike; closed ones far below all others."""
        tables, hand = self.tables[colour], self.context.hands[colour]
        other = self.context.hands[1 - colour]
        judged = self.context.judge(colour, strike.beat)
        side = FOREHAND if hand.parity != FOREHAND else BACKHAND
        score_S = tables.state_2S[side].copy()
        if hand.notes:
            last = hand.notes[-1]
            cell = last.row * 4 + last.column
            score_S += 0.8 * tables.turn_2DS[side, last.direction]
            score_S += 0.8 * tables.move_2CS[side, cell]
        if other.notes and not strike.has(1 - colour):
            near = other.notes[-1]
            score_S += 0.6 * tables.cross_CS[near.row * 4 + near.column]
        unique = self.tally.unique
        score_S += self.tally.feedback(colour, 1.6)
        score_S += self._music(strike)
        score_S += self._repeat(colour, strike, unique)
        wanted = self.tally.goal * min(1.0, 1.25 * progress + 0.05)
        if self.tally.distinct < wanted:
            lacking = (wanted - self.tally.distinct) / self.tally.goal
            score_S += (1.0 + 8.0 * lacking) * (self.tally.used[colour] == 0)
        if unique > UNIQUE_HIGH:  # a chart has figures of its own, and comes back to them
            for state, length in self.tally.known_next(colour):
                score_S[state] += min(20.0 * (unique - UNIQUE_HIGH) + 0.2, 2.4) * length
        elif unique < UNIQUE_LOW:
            for state, length in self.tally.known_next(colour):
                score_S[state] -= (length == 3) * min(30.0 * (UNIQUE_LOW - unique), 2.0)
        score_S -= 1.5 * judged.cost_S
        for rule in _SELDOM:
            if rule in judged.broken:
                score_S -= 8.0 * judged.broken[rule]
        if wait_s < self.context.rules.vision_window_s[1]:
            score_S -= 5.0 * _FACE_S
        if not hand.notes:
            score_S = np.where(_OPENING_S[colour], score_S, score_S - 50.0)
        open_S = judged.mask_S.copy()
        for rule in _NEVER:
            if rule in judged.broken:
                open_S &= ~judged.broken[rule]
        return np.where(open_S, score_S, _CLOSED)

    def _music(self, strike: Strike) -> FloatArray:
        """Strong moments reach wide and high, low sounds stay down, high ones rise."""
        reach = 1.2 * (strike.accent - 0.5)
        height = 0.8 * (strike.high - strike.low)
        return np.asarray(reach * _WIDE_S + height * (_TOP_S - _LOW_S), np.float64)

    def _repeat(self, colour: int, strike: Strike, unique: float) -> FloatArray:
        """Pull towards the note that this one repeats, less as the chart repeats itself more."""
        pull = float(np.clip((unique - UNIQUE_LOW + 0.02) / 0.05, 0.0, 1.0))
        if strike.model < 0 or pull == 0.0 or strike.model >= len(self._chosen):
            return np.zeros(STATES)
        model = self._chosen[strike.model].get(1 - colour if strike.mirrored else colour)
        if model is None:
            return np.zeros(STATES)
        state = int(MIRROR_S[model]) if strike.mirrored else model
        same_cell_S = np.equal(CELL_S, CELL_S[state])
        score_S = 1.0 * same_cell_S
        score_S[state] += 6.0
        return pull * score_S

    def _reaches(self, colour: int, strike: Strike, target: Note) -> npt.NDArray[np.bool_]:
        """From which states of this strike the hand can go on to a note that is fixed, (108,)."""
        wanted = index_of(target)
        reaches_S = np.zeros(STATES, bool)
        for state in np.flatnonzero(self.context.mask(colour, strike.beat)).tolist():
            trial = self.context.copy()
            trial.place(state_note(state, colour, strike.beat))
            judged = trial.judge(colour, target.beat)
            reaches_S[state] = judged.mask_S[wanted] and "Parity warning" not in judged.reasons(
                wanted
            )
        return reaches_S

    def _draw(self, score_S: FloatArray) -> int:
        weights = np.exp(score_S - score_S.max())
        cumulative = np.cumsum(weights)
        return int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], "right"))

    def _draw_pair(self, red_S: FloatArray, blue_S: FloatArray) -> dict[int, int] | None:
        """Draw both hands of a double together, or None if no pair is open."""
        clap_SS, path_SS, same_SS = clash_tables()
        closed_SS = clap_SS | path_SS | same_SS
        lift = self.tables[BLUE].pair_CS
        score_SS = red_S[:, None] + blue_S[None, :] + lift[CELL_S]
        # Doubles read as one movement: the same way, or each away from the other.
        same_way = DIRECTION_S[:, None] == DIRECTION_S[None, :]
        mirrored = DIRECTION_S[MIRROR_S][:, None] == DIRECTION_S[None, :]
        score_SS = score_SS + 1.0 * (same_way | mirrored)
        score_SS = np.where(closed_SS, _CLOSED, score_SS)
        if score_SS.max() <= _CLOSED / 2:
            return None
        drawn = self._draw(score_SS.ravel())
        return {RED: drawn // STATES, BLUE: drawn % STATES}
