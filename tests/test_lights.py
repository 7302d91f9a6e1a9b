"""Lights follow what is heard: on its slots, denser where it is louder, dark where it is silent."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from mgen.core.beatmap.chart import Bomb, BpmChange, Light, TimeMap
from mgen.core.beatmap.hearing import Heard
from mgen.core.beatmap.lights import (
    BACK,
    BOMB_LIT_S,
    CENTRE,
    FADE,
    LAMPS,
    OFF,
    ON,
    RING_SPIN,
    RINGS,
    is_lit,
    light_bombs,
    light_show,
)
from mgen.core.beatmap.rhythm import Timing

BPM = 120.0
LEAD = 4


def song(beats: int = 128, *, loud: slice = slice(64, 96), silent: slice = slice(0, 0)) -> Heard:
    """Eighths throughout, kicks on beats; 14 dB louder in `loud`, nothing in `silent`."""
    rng = np.random.default_rng(3)
    slot_E = np.arange(0, beats * 48, 24)
    loudness_K = np.full(beats, 0.4)
    loudness_K[loud], loudness_K[silent] = 0.8, 0.0
    beat_E = slot_E // 48
    keep_E = loudness_K[beat_E] > 0
    slot_E, beat_E = slot_E[keep_E], beat_E[keep_E]
    strength_E = rng.uniform(0.2, 1.0, len(slot_E)) + 0.5 * (loudness_K[beat_E] > 0.5)
    low_E = np.where(slot_E % 48 == 0, 1.0, 0.1)
    bars = beats // 4
    section_M = np.arange(bars) // 8
    return Heard(
        slot_E=slot_E, time_s_E=slot_E / 48 * 60 / BPM, strength_E=strength_E, low_E=low_E,
        mid_E=1.0 - low_E, high_E=np.full(len(slot_E), 0.3), harmonic_E=np.zeros(len(slot_E)),
        sustain_E=np.full(len(slot_E), 0.2), loudness_K=loudness_K, bar_section_M=section_M,
        repeat_of_M=np.full(bars, -1), n_beats=beats, duration_s=beats * 60 / BPM,
    )  # fmt: skip


TIMING = Timing(BPM, 0.0, 1.0)


def test_events_are_sorted_in_range_and_moderate():
    lights, boosts = light_show(song(), TIMING, lead_beats=LEAD)
    assert list(lights) == sorted(lights)
    assert list(boosts) == sorted(boosts)
    assert all(LEAD <= li.beat <= 128 + LEAD for li in lights)
    assert all(0 <= li.value <= 12 and 0 <= li.brightness <= 1.5 for li in lights)
    assert {li.kind for li in lights} <= {0, 1, 2, 3, 4, 8, 9, 12, 13}
    assert 2.0 <= len(lights) / (128 * 60 / BPM) <= 6.0
    per_lamp = Counter((li.beat, li.kind) for li in lights)
    assert max(per_lamp.values()) == 1  # no lamp is told two things at once


def test_flashes_stand_on_heard_slots():
    heard = song()
    lights, _ = light_show(heard, TIMING, lead_beats=LEAD)
    slots = {round((li.beat - LEAD) * 48) for li in lights if li.kind in (RINGS, CENTRE)}
    assert slots <= {*np.asarray(heard.slot_E).tolist(), 128 * 48}
    rings = [li for li in lights if li.kind == RINGS and li.value != OFF]
    assert rings
    assert all((li.beat * 48) % 48 == 0 for li in rings)  # where the low attacks are


def test_louder_parts_are_denser_and_brighter():
    lights, _ = light_show(song(), TIMING, lead_beats=0)
    loud = [li for li in lights if 64 <= li.beat < 96]
    soft = [li for li in lights if 16 <= li.beat < 48]
    assert len(loud) > 1.3 * len(soft)
    lit = [np.mean([li.brightness for li in part if li.kind in LAMPS]) for part in (loud, soft)]
    assert lit[0] > lit[1]


def test_silence_is_dark():
    lights, _ = light_show(song(silent=slice(40, 56)), TIMING, lead_beats=0)
    inside = [li for li in lights if 40 < li.beat < 56]
    assert inside == []
    assert {li.kind for li in lights if li.beat == 40 and li.value == OFF} == set(LAMPS)
    assert not is_lit(lights, 22.0, 22.5, TimeMap(BPM))


def test_sections_spin_the_rings_and_toggle_the_boost():
    lights, boosts = light_show(song(), TIMING, lead_beats=LEAD)
    spins = {li.beat for li in lights if li.kind == RING_SPIN}
    assert {LEAD + 32.0 * k for k in range(4)} <= spins
    assert [b.beat for b in boosts] == [LEAD + 32.0 * k for k in range(1, 4)]
    assert [b.on for b in boosts] == [True, False, True]


def test_the_show_is_a_function_of_song_and_seed():
    one = light_show(song(), TIMING, lead_beats=LEAD, seed=1)
    assert light_show(song(), TIMING, lead_beats=LEAD, seed=1) == one
    assert any(light_show(song(), TIMING, lead_beats=LEAD, seed=s) != one for s in (2, 3, 4))


@pytest.mark.parametrize("beats", [0, 1, 3, 9])
def test_hardly_any_song(beats):
    lights, boosts = light_show(song(beats, loud=slice(0, 0)), TIMING, lead_beats=0)
    assert all(0 <= li.beat <= beats for li in lights)
    assert boosts == ()


def test_tempo_changes_thin_the_show_out_by_seconds():
    slow = Timing(60.0, 0.0, 1.0)
    fast = Timing(60.0, 0.0, 1.0, 4, (BpmChange(0.0, 240.0),))
    heard = song()
    assert len(light_show(heard, slow, lead_beats=0)[0]) > len(
        light_show(heard, fast, lead_beats=0)[0]
    )


def test_every_bomb_is_seen_before_it_comes():
    clock = TimeMap(BPM)
    lights, _ = light_show(song(silent=slice(40, 80)), TIMING, lead_beats=0)
    bombs = [Bomb(b, 1, 0) for b in (0.0, 0.25, 20.0, 41.0, 60.0, 78.5, 100.0)]
    lit = light_bombs(lights, bombs, clock)
    assert list(lit) == sorted(lit)
    assert set(lights) <= set(lit)
    for bomb in bombs[2:]:
        at_s = clock.to_seconds(bomb.beat)
        assert is_lit(lit, at_s - BOMB_LIT_S, at_s, clock)
    assert light_bombs(lights, [], clock) == lights


@pytest.mark.parametrize(
    ("lights", "expected"),
    [
        ([], False),
        ([Light(0, BACK, ON)], True),
        ([Light(0, BACK, ON), Light(1, BACK, OFF)], False),
        ([Light(1.5, BACK, ON)], True),
        ([Light(1.6, BACK, ON)], False),  # too late
        ([Light(0, RINGS, FADE)], True),
        ([Light(0, RINGS, FADE), Light(1.9, BACK, ON)], True),
        ([Light(0, 8, ON)], False),  # no lamp
        ([Light(0, BACK, ON), Light(1.8, BACK, OFF)], False),
    ],
)
def test_what_counts_as_lit(lights, expected):
    clock = TimeMap(BPM)  # beat 2 is second 1
    assert is_lit(lights, 1.0 - BOMB_LIT_S, 1.0, clock) is expected


def test_a_flash_that_faded_lights_nothing():
    clock = TimeMap(BPM)
    for beat, kind in itertools.product((0.0, 0.4), LAMPS):
        assert not is_lit([Light(beat, kind, FADE)], 1.5, 1.75, clock)
