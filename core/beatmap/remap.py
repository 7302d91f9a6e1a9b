"""Remapping a span of a kept chart: the new notes take over the hands and hand them back.

The hands must stand at the span's end as the kept notes after it expect: each hand on the same
side as before the remap, and its wrist within reach of the next kept cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mgen.core.beatmap.chart import BLUE, RED, SLOTS_PER_BEAT, Chart, Note, TimeMap
from mgen.core.beatmap.decoder import Decoder
from mgen.core.beatmap.density import Style
from mgen.core.beatmap.hands import BOTH_HANDS, Strike
from mgen.core.beatmap.parity import FOREHAND, judge_hand
from mgen.core.beatmap.playability import PlacementContext
from mgen.core.beatmap.rules import Rules

_ATTEMPTS = 8
_CONTEXT_NOTES = 400
"""Kept notes before the span that are replayed for the hands and the histograms."""


def join_span(
    kept: Chart,
    strikes: Sequence[Strike],
    span_beats: tuple[float, float],
    style: Style,
    rules: Rules,
    clock: TimeMap,
    seed: int,
) -> tuple[Note, ...]:
    """Notes for a span that follow on from the kept chart and lead back into it.

    Parameters
    ----------
    kept
        The chart that is kept outside the span.
    strikes
        What is wished for inside the span.
    span_beats
        From-to, chart beats.
    style, rules, clock
        Gaps of a hand, playability, seconds of beats.
    seed
        What is drawn.

    Returns
    -------
    tuple of Note
        With no more parity errors in the whole chart than the kept notes outside the span had.
    """
    first, last = span_beats
    before = [n for n in kept.notes if n.beat < first]
    after = [n for n in kept.notes if n.beat >= last]
    allowed = sum(_errors(kept, kept.notes, clock, outside=span_beats))
    best: tuple[int, tuple[Note, ...]] | None = None
    for attempt in range(_ATTEMPTS):
        # Fewer notes before the seam leave the hands more time to come round.
        wished = [replace(s, model=-1) for s in strikes[: max(len(strikes) - attempt // 2, 0)]]
        clear = _with_room(wished, before, after, style, clock)
        settled = _settled(clear, kept, before, after, style, clock)
        context = PlacementContext(
            rules, clock.to_seconds, [b for b in kept.bombs if not first <= b.beat < last],
            [w for w in kept.walls if not first <= w.beat < last],
        )  # fmt: skip
        rng = np.random.default_rng([seed, kept.difficulty.rank, 9, attempt])
        decoder = Decoder(kept.difficulty, context, rng)
        decoder.follow(before[-_CONTEXT_NOTES:])
        landing = {c: n for c in (RED, BLUE) if (n := _first(after, c)) is not None}
        notes = decoder.decode(settled, landing).notes
        errors = sum(_errors(kept, (*before, *notes, *after), clock))
        if best is None or errors < best[0]:
            best = (errors, notes)
        if errors <= allowed:
            break
    assert best is not None
    return best[1]


def _first(notes: Sequence[Note], colour: int) -> Note | None:
    return next((n for n in notes if n.colour == colour), None)


def _errors(
    kept: Chart,
    notes: Sequence[Note],
    clock: TimeMap,
    outside: tuple[float, float] = (0.0, 0.0),
) -> tuple[int, int]:
    """Parity errors of the red and the blue hand, without those inside a stretch."""
    first, last = outside
    red, blue = (
        sum(
            verdict.parity == "error" and not first <= swing.beat < last
            for swing, verdict in judge_hand(colour, notes, kept.bombs, clock.to_seconds)
        )
        for colour in (RED, BLUE)
    )
    return red, blue


def _with_room(
    strikes: Sequence[Strike],
    before: Sequence[Note],
    after: Sequence[Note],
    style: Style,
    clock: TimeMap,
) -> list[Strike]:
    """Strikes without the hands that come too near to a kept note of their own hand."""
    kept_s = {c: [clock.to_seconds(n.beat) for n in (*before[-8:], *after[:8]) if n.colour == c]
              for c in (RED, BLUE)}  # fmt: skip
    kept_beats = {c: [n.beat for n in (*before[-8:], *after[:8]) if n.colour == c]
                  for c in (RED, BLUE)}  # fmt: skip
    around = [clock.to_seconds(n.beat) for n in (*before[-4:], *after[:4])]
    clear = []
    for strike in strikes:
        if any(1e-6 < abs(strike.time_s - t) < style.min_gap_s - 1e-6 for t in around):
            continue
        hands = 0
        for colour in (RED, BLUE):
            near_s = min((abs(strike.time_s - t) for t in kept_s[colour]), default=9.0)
            near = min((abs(strike.beat - b) for b in kept_beats[colour]), default=9.0)
            free = near_s >= style.hand_gap_s - 1e-6 and near >= style.hand_gap_beats
            hands |= free * (strike.hands & 1 << colour)
        if hands:
            clear.append(replace(strike, hands=hands))
    return clear


def _settled(
    strikes: Sequence[Strike],
    kept: Chart,
    before: Sequence[Note],
    after: Sequence[Note],
    style: Style,
    clock: TimeMap,
) -> list[Strike]:
    """Strikes of which each hand has as many as bring it to the side that `after` expects."""
    settled = list(strikes)
    for colour in (RED, BLUE):
        following = _first(after, colour)
        if following is None:
            continue
        judged = judge_hand(colour, kept.notes, kept.bombs, clock.to_seconds)
        own = [v.side for s, v in judged if s.beat < following.beat - 1e-9]
        entering = [
            v.side for _, v in judge_hand(colour, before, kept.bombs, clock.to_seconds)
        ]  # fmt: skip
        count = sum(s.has(colour) for s in settled)
        if not own or not (entering or count):
            continue
        side = entering[-1] ^ (count % 2) if entering else FOREHAND ^ ((count - 1) % 2)
        if side != own[-1]:
            _change_parity(settled, colour, style)
    return settled


def _change_parity(strikes: list[Strike], colour: int, style: Style) -> None:
    """Add one strike of a hand where it has room, else take its last one; the list changes."""
    room_s, room = style.hand_gap_s, style.hand_gap_beats * SLOTS_PER_BEAT
    own = [s for s in strikes if s.has(colour)]
    for i in range(len(strikes) - 1, -1, -1):
        strike = strikes[i]
        if strike.has(colour) or not own or i == len(strikes) - 1:
            continue
        if all(
            abs(strike.time_s - s.time_s) >= room_s and abs(strike.slot - s.slot) >= room
            for s in own
        ):
            strikes[i] = replace(strike, hands=BOTH_HANDS)
            return
    for i in range(len(strikes) - 1, -1, -1):
        if strikes[i].has(colour):
            hands = strikes[i].hands & ~(1 << colour)
            if hands:
                strikes[i] = replace(strikes[i], hands=hands)
            else:
                del strikes[i]
            return
