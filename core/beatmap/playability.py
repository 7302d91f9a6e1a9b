"""What may come next: masks and costs over the 108 states of a note while a chart is decoded.

A decoder holds a `PlacementContext`, asks `judge` (one hand) or `pair_mask` (both at once) which
states are open at a time, chooses, and tells it with `place`. Rules carry MapCheck's names; hard
ones close a state, soft ones add to its cost. The verdicts on parity are those of the automaton in
`parity`, so a chart placed inside the mask has no parity errors.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mgen.core.beatmap import parity, rules, states, swings
from mgen.core.beatmap.chart import BLUE, DOWN_LEFT, DOWN_RIGHT, RED, UP, Bomb, Note, Wall
from mgen.core.beatmap.parity import HandState, Verdict, step
from mgen.core.beatmap.rules import Rules

__all__ = ["HARD_RULES", "HandState", "Judgement", "PlacementContext", "Rules", "Verdict", "step"]

_MEMORY_S = 0.25

HARD_RULES = frozenset({
    "Parity error", "Double-directional", "Stacked note", "Stacked bomb", "Hammer hit",
    "Handclap", "Hitbox path", "Parallel notes", "Hitbox inline", "Hitbox reverse staircase",
    "Hitbox staircase", "Inline sharp angle", "Effective BPM", "Slow slider", "Inside a wall",
})  # fmt: skip
"""Rules that close a state. Crossovers are closed too at Easy and Normal."""

_COSTS = {
    "Parity warning": 4.0, "Parity error": 6.0, "Double-directional": 2.0, "Vision block": 3.0,
    "shrado angle": 2.0,
}  # fmt: skip
StatesBool = NDArray[np.bool_]
StatesFloat = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What each state of a note would break. S = 108 states, see `states`.

    `broken` holds a table of bool (108,) by rule, for the rules that any state breaks.
    """

    mask_S: StatesBool
    cost_S: StatesFloat
    broken: Mapping[str, StatesBool] = field(default_factory=dict)

    def reasons(self, state: int) -> list[str]:
        """Names of the rules that a state breaks."""
        return [rule for rule, table_S in self.broken.items() if table_S[state]]


@lru_cache(maxsize=256)
def _parity_tables(colour: int, side: int, rotation: int) -> tuple[StatesBool, StatesBool]:
    levels = [parity.judge(colour, side, rotation, d) for d in range(states.DIRECTIONS)]
    error = np.asarray([level == "error" for level in levels])
    warning = np.asarray([level == "warning" for level in levels])
    return error[states.DIRECTION_S], warning[states.DIRECTION_S]


_CROSSED = {
    RED: states.COLUMN_S == states.COLUMNS - 1,
    BLUE: states.COLUMN_S == 0,
}
_SIDES = (states.COLUMN_S <= 1, states.COLUMN_S >= 2)
_SHRADO_FROM = {RED: DOWN_RIGHT, BLUE: DOWN_LEFT}


class PlacementContext:
    """The last notes of both hands, and the bombs and walls of a chart, while notes are placed.

    Notes must be placed in order of time. Copies are cheap, so that a beam can hold many.

    Parameters
    ----------
    rules
        Thresholds of the difficulty.
    to_seconds
        Second of a beat, as `TimeMap.to_seconds`.
    bombs, walls
        What is in the chart already; `add_bomb` and `add_wall` bring more.
    """

    def __init__(
        self,
        rules: Rules,
        to_seconds: Callable[[float], float],
        bombs: Iterable[Bomb] = (),
        walls: Iterable[Wall] = (),
    ) -> None:
        self.rules = rules
        self.to_seconds = to_seconds
        self.hands = [HandState(RED), HandState(BLUE)]
        self.bombs = tuple(sorted(bombs))
        self.walls = tuple(sorted(walls))
        self._longest_wall = max((w.duration for w in self.walls), default=0.0)
        self._recent: tuple[tuple[float, Note], ...] = ()
        self._middle: list[float] = [float("-inf"), float("-inf")]

    def copy(self) -> PlacementContext:
        """An independent copy; what is immutable is shared."""
        twin = PlacementContext.__new__(PlacementContext)
        twin.rules, twin.to_seconds = self.rules, self.to_seconds
        twin.hands, twin._middle = self.hands.copy(), self._middle.copy()
        twin.bombs, twin.walls = self.bombs, self.walls
        twin._recent, twin._longest_wall = self._recent, self._longest_wall
        return twin

    def add_bomb(self, bomb: Bomb) -> None:
        """Put a bomb into the chart."""
        self.bombs = tuple(sorted((*self.bombs, bomb)))

    def add_wall(self, wall: Wall) -> None:
        """Put a wall into the chart."""
        self.walls = tuple(sorted((*self.walls, wall)))
        self._longest_wall = max(self._longest_wall, wall.duration)

    def place(self, note: Note) -> Verdict:
        """Take a note as decided; it extends the hand's open swing where it belongs to it."""
        time_s = self.to_seconds(note.beat)
        hand = self.hands[note.colour]
        if self._extends(hand, note, time_s):
            origin = hand.came_from or HandState(note.colour)
            notes, times = (*hand.notes, note), (*hand.times_s, time_s)
        else:
            origin, notes, times = hand, (note,), (time_s,)
        bombs = self._bombs_between(origin.beat, notes[0].beat)
        self.hands[note.colour], verdict = step(origin, notes, times, bombs)
        kept = [(t, n) for t, n in self._recent if t >= time_s - _MEMORY_S]
        self._recent = (*kept, (time_s, note))
        if note.row == 1 and note.column in (1, 2):
            self._middle[note.column - 1] = time_s
        return verdict

    def mask(self, hand: int, beat: float) -> StatesBool:
        """Which of the 108 states are open for a hand at a beat, (108,)."""
        return self.judge(hand, beat).mask_S

    def cost(self, hand: int, beat: float) -> StatesFloat:
        """Cost of each state by the soft rules, (108,); 0 where nothing speaks against it."""
        return self.judge(hand, beat).cost_S

    def pair_mask(self, beat: float) -> StatesBool:
        """Which pairs of states are open for both hands at once, (108 red, 108 blue)."""
        clap_SS, path_SS, same_SS = states.clash_tables()
        open_SS = self.mask(RED, beat)[:, None] & self.mask(BLUE, beat)[None, :]
        return open_SS & ~(clap_SS | path_SS | same_SS)

    def reasons(self, notes: Sequence[Note]) -> list[str]:
        """Rules that notes at one time would break together, in the order of MapCheck's table."""
        trial, found = self.copy(), []
        for note in notes:
            found += trial.judge(note.colour, note.beat).reasons(states.index_of(note))
            trial.place(note)
        return list(dict.fromkeys(found))

    def allowed(self, notes: Note | Sequence[Note]) -> bool:
        """Whether a note, or several at the same time, break no hard rule."""
        trial = self.copy()
        for note in (notes,) if isinstance(notes, Note) else notes:
            if not trial.mask(note.colour, note.beat)[states.index_of(note)]:
                return False
            trial.place(note)
        return True

    def judge(self, hand: int, beat: float) -> Judgement:
        """What each state of a hand would break at a beat."""
        time_s = self.to_seconds(beat)
        broken: dict[str, StatesBool] = {}
        state = self.hands[hand]
        gap_s = time_s - state.end_s
        if gap_s <= swings.SAME_SWING_S:
            self._judge_open_swing(broken, state, beat, time_s)
        else:
            self._judge_new_swing(broken, state, beat, time_s)
        self._judge_other_hand(broken, hand, time_s)
        self._judge_cells(broken, hand, beat, time_s)
        closed_S = np.zeros(states.STATES, bool)
        cost_S = np.zeros(states.STATES, np.float32)
        resets = self.rules.may_reset and gap_s >= self.rules.reset_s - 1e-6
        for rule, table_S in broken.items():
            excused = resets and rule in ("Parity error", "Double-directional")
            hard = rule in HARD_RULES and not excused
            if rule == "Crossover":
                cost = self.rules.crossover_cost
                hard = cost is None
                cost_S += table_S * np.float32(cost or 0.0)
            elif rule in _COSTS:
                cost_S += table_S * np.float32(_COSTS[rule])
            if hard:
                closed_S |= table_S
        return Judgement(~closed_S, cost_S, broken)

    def _extends(self, hand: HandState, note: Note, time_s: float) -> bool:
        return bool(hand.notes) and not swings.starts_new_swing(
            note, time_s, hand.notes, hand.end_s
        )

    def _bombs_between(self, after_beat: float, beat: float) -> tuple[Bomb, ...]:
        low = bisect.bisect_left(self.bombs, after_beat, key=_beat)
        high = bisect.bisect_right(self.bombs, beat + 0.001, key=_beat)
        return self.bombs[low:high]

    def _judge_new_swing(
        self, broken: dict[str, StatesBool], state: HandState, beat: float, time_s: float
    ) -> None:
        """Parity and the rules on one hand's last swing and its next."""
        bombs = self._bombs_between(state.beat, beat)
        if state.parity is None:
            _judge_first_swing(broken, state.colour, beat, bombs)
            return
        side, rotation = parity.entry(state, beat, bombs)
        error_S, warning_S = _parity_tables(state.colour, side, rotation)
        _note(broken, "Parity error", error_S)
        _note(broken, "Parity warning", warning_S)
        angle = parity.comes_from(state, beat, bombs)
        if angle is not None:
            turn_S = states.turn_table(angle)
            _note(broken, "Double-directional", turn_S <= rules.DOUBLE_DIRECTIONAL_DEG)
            self._judge_inline(broken, turn_S, time_s)
        last = state.notes[-1]
        if time_s - state.end_s <= rules.SHRADO_S and state.direction == _SHRADO_FROM[state.colour]:
            far_S = states.distance_table(last.column, last.row) >= rules.SHRADO_DISTANCE
            _note(broken, "shrado angle", far_S & (states.DIRECTION_S == UP))
        ebpm = swings.effective_bpm(time_s - state.end_s)
        swing_ebpm = swings.effective_bpm(time_s - state.time_s)
        slack = 1.001
        if ebpm > self.rules.max_ebpm * slack or swing_ebpm > self.rules.max_swing_ebpm * slack:
            broken["Effective BPM"] = np.ones(states.STATES, bool)

    def _judge_inline(
        self, broken: dict[str, StatesBool], turn_S: NDArray[np.float64], time_s: float
    ) -> None:
        for then_s, note in self._recent:
            if rules.SAME_TIME_S < time_s - then_s <= rules.INLINE_S:
                cell_S = states.cell_table(note.column, note.row)
                _note(broken, "Inline sharp angle", cell_S & (turn_S <= rules.INLINE_TURN_DEG))

    def _judge_open_swing(
        self, broken: dict[str, StatesBool], state: HandState, beat: float, time_s: float
    ) -> None:
        """States that would join the hand's open swing; those that cannot are too fast."""
        origin = state.came_from or HandState(state.colour)
        bombs = self._bombs_between(origin.beat, state.beat)
        if origin.parity is None:
            side, rotation = parity.start_of_hand(state.colour, state.notes, bombs)
            origin = HandState(state.colour, side, rotation)
        side, rotation = parity.entry(origin, state.beat, bombs)
        tables = {
            rule: np.zeros(states.STATES, bool)
            for rule in (
                "Parity error", "Parity warning", "Effective BPM", "Stacked note",
                "Parallel notes", "Slow slider",
            )
        }  # fmt: skip
        dt = time_s - state.end_s
        for i in range(states.STATES):
            note = states.state_note(i, state.colour, beat)
            if swings.starts_new_swing(note, time_s, state.notes, state.end_s):
                rule = "Stacked note" if dt <= rules.SAME_TIME_S else "Effective BPM"
                tables[rule][i] = True
                continue
            level = parity.judge(
                state.colour, side, rotation, swings.swing_direction((*state.notes, note))
            )
            tables["Parity error"][i] = level == "error"
            tables["Parity warning"][i] = level == "warning"
            if dt <= rules.SAME_TIME_S:
                tables["Parallel notes"][i] = any(states.is_parallel(note, n) for n in state.notes)
            else:
                last = state.notes[-1]
                cells = max(abs(note.column - last.column), abs(note.row - last.row), 1)
                tables["Slow slider"][i] = dt > rules.SLIDER_S_PER_CELL * cells * 1.001
        for rule, table_S in tables.items():
            _note(broken, rule, table_S)

    def _judge_other_hand(self, broken: dict[str, StatesBool], hand: int, time_s: float) -> None:
        """Rules between the two hands: clashes at one time, hitboxes a little later."""
        clap_SS, path_SS, same_SS = states.clash_tables()
        other = self.hands[1 - hand]
        doubled = False
        for then_s, note in zip(other.times_s, other.notes, strict=True):
            dt = time_s - then_s
            if dt > _MEMORY_S:
                continue
            if dt <= rules.SAME_TIME_S:
                i = states.index_of(note)
                doubled = True
                _note(broken, "Handclap", clap_SS[i])
                _note(broken, "Hitbox path", path_SS[i])
                _note(broken, "Stacked note", same_SS[i])
                continue
            if self.rules.njs <= rules.SABER_REACH / dt:
                _note(broken, "Hitbox inline", same_SS[states.index_of(note)])
            if self.rules.njs < rules.SABER_REACH / (dt + rules.REVERSE_STAIR_S):
                _note(broken, "Hitbox reverse staircase", _in_pre_swing(note))
        if other.notes and not doubled:
            dt = time_s - other.end_s
            origin = other.came_from
            gap = other.time_s - origin.end_s if origin is not None else float("-inf")
            cell = states.follow_through(other.notes[-1], other.direction)
            if 0 < dt < min(rules.STAIR_S, gap) and cell is not None:
                _note(broken, "Hitbox staircase", states.cell_table(*cell))

    def _judge_cells(
        self, broken: dict[str, StatesBool], hand: int, beat: float, time_s: float
    ) -> None:
        """Rules on cells: bombs, walls, what hides the note, the side of the body."""
        _note(broken, "Crossover", _CROSSED[hand])
        low, high = self.rules.vision_window_s
        middle = self._middle.copy()
        margin_beats = max(1.0, rules.HAMMER_BEFORE_S) * self.rules.bpm / 60.0
        first = bisect.bisect_left(self.bombs, beat - margin_beats, key=_beat)
        for bomb in self.bombs[first:]:
            then_s = self.to_seconds(bomb.beat)
            if then_s > time_s + rules.HAMMER_AFTER_S:
                break
            _judge_bomb(broken, bomb, then_s - time_s)
            if bomb.row == 1 and bomb.column in (1, 2) and then_s < time_s:
                middle[bomb.column - 1] = max(middle[bomb.column - 1], then_s)
        for then_s, side_S in zip(middle, _SIDES, strict=True):
            if low - 1e-9 <= time_s - then_s <= high + 1e-9:
                _note(broken, "Vision block", side_S)
        first = bisect.bisect_left(self.walls, beat - self._longest_wall - 1.0, key=_beat)
        for wall in self.walls[first:]:
            if self.to_seconds(wall.beat) > time_s:
                break
            if time_s <= self.to_seconds(wall.beat + wall.duration):
                for column in range(wall.column, wall.column + wall.width):
                    for row in range(wall.row, min(wall.row + wall.height, states.ROWS)):
                        _note(broken, "Inside a wall", states.cell_table(column, row))


def _beat(thing: Bomb | Wall) -> float:
    return thing.beat


def _judge_first_swing(
    broken: dict[str, StatesBool], colour: int, beat: float, bombs: Sequence[Bomb]
) -> None:
    """Parity of a hand's first swing: only bombs that come before it can make it an error."""
    if bombs:
        notes = (states.state_note(i, colour, beat) for i in range(states.STATES))
        levels = [step(HandState(colour), (n,), 0.0, bombs)[1].parity for n in notes]
        _note(broken, "Parity error", np.asarray([level == "error" for level in levels]))


def _note(broken: dict[str, StatesBool], rule: str, table_S: StatesBool) -> None:
    """Add a table to those of a rule, where any state breaks it."""
    if table_S.any():
        broken[rule] = broken[rule] | table_S if rule in broken else table_S


@lru_cache(maxsize=states.STATES)
def _pre_swing_of(state: int) -> StatesBool:
    note = states.state_note(state, 0, 0.0)
    ways = [states.off_path(note, states.state_note(i, 0, 0.0)) for i in range(0, states.STATES, 9)]
    behind = np.asarray([w is not None and w >= 180.0 - rules.REVERSE_STAIR_DEG for w in ways])
    near_S = states.distance_table(note.column, note.row) <= rules.REVERSE_STAIR_DISTANCE
    return behind[states.CELL_S] & near_S


def _in_pre_swing(note: Note) -> StatesBool:
    return _pre_swing_of(states.index_of(note))


def _judge_bomb(broken: dict[str, StatesBool], bomb: Bomb, later_s: float) -> None:
    """Rules on one bomb, `later_s` after (before: negative) the note."""
    if abs(later_s) <= rules.STACKED_BOMB_S:
        _note(broken, "Stacked bomb", states.cell_table(bomb.column, bomb.row))
    if -rules.HAMMER_BEFORE_S <= later_s <= rules.HAMMER_AFTER_S:
        way_S = states.off_path_table(bomb.column, bomb.row)
        near_S = states.distance_table(bomb.column, bomb.row) <= rules.HAMMER_DISTANCE
        hit_S = near_S & ((way_S <= rules.HAMMER_DEG) | (way_S >= 180.0 - rules.HAMMER_DEG))
        _note(broken, "Hammer hit", hit_S)
