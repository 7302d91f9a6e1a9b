"""Charts for tests: written out in a short notation, or drawn note by note under the masks.

A note is `beat:` hand (`r`, `b`) column row direction; a bomb is `beat:x` column row.
"""

from __future__ import annotations

import numpy as np

from mgen.core.beatmap import states
from mgen.core.beatmap.chart import Bomb, Chart, Difficulty, Note
from mgen.core.beatmap.histograms import human_histogram
from mgen.core.beatmap.playability import PlacementContext, Rules

BPM = 120.0


def parse(text: str) -> tuple[list[Note], list[Bomb]]:
    notes, bombs = [], []
    for word in text.split():
        beat, what = word.split(":")
        if what[0] == "x":
            bombs.append(Bomb(float(beat), int(what[1]), int(what[2])))
        else:
            column, row, direction = (int(c) for c in what[1:])
            notes.append(Note(float(beat), column, row, "rb".index(what[0]), direction))
    return sorted(notes, key=lambda n: n.beat), sorted(bombs)


def chart_of(text: str, difficulty: Difficulty = Difficulty.EXPERT, **fields: object) -> Chart:
    notes, bombs = parse(text)
    given: dict = {"njs": 16.0, "njs_offset": 0.0, "notes": tuple(notes), "bombs": tuple(bombs)}
    return Chart(difficulty=difficulty, **{**given, **fields})


def seconds(beat: float) -> float:
    return beat * 60.0 / BPM


def drawn_chart(
    seed: int, difficulty: Difficulty = Difficulty.EXPERT, count: int = 600, bombs: str = ""
) -> Chart:
    """A chart with human gaps and human shares of states, every note inside the mask."""
    rng = np.random.default_rng(seed)
    placed_bombs = parse(bombs)[1]
    rules = Rules(difficulty, BPM, 16.0)
    context = PlacementContext(rules, seconds, placed_bombs)
    gaps = human_histogram(difficulty, "gap_beats")
    lengths = np.asarray([5.0 if g == ">4" else float(g) for g in gaps])
    lengths, shares = np.round(lengths * 48) / 48, np.asarray(list(gaps.values()))
    weights = [_weights(difficulty, hand) for hand in (0, 1)]
    notes: list[Note] = []
    beat, hand = 8.0, 0
    while len(notes) < count:
        beat += float(rng.choice(lengths, p=shares / shares.sum()))
        hand = 1 - hand
        hands = (hand, 1 - hand) if rng.random() < 0.2 else (hand,)
        for colour in hands:
            judged = context.judge(colour, beat)
            weight_S = weights[colour] * judged.mask_S * np.exp(-judged.cost_S)
            if weight_S.sum() > 0:
                state = rng.choice(states.STATES, p=weight_S / weight_S.sum())
                note = states.state_note(int(state), colour, beat)
                context.place(note)
                notes.append(note)
    return Chart(
        difficulty=difficulty, njs=16.0, notes=tuple(sorted(notes)), bombs=tuple(placed_bombs)
    )


def _weights(difficulty: Difficulty, hand: int) -> np.ndarray:
    direction, row, column = (
        human_histogram(difficulty, m) for m in ("direction", "row", "colour_column")
    )
    return np.asarray([
        direction.get(str(d), 0.0) * row.get(str(r), 0.0) * column.get(f"{hand}{c}", 0.0)
        for c, r, d in zip(
            states.COLUMN_S.tolist(), states.ROW_S.tolist(), states.DIRECTION_S.tolist(),
            strict=True,
        )
    ])  # fmt: skip
