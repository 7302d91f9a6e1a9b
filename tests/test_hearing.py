import numpy as np
import pytest

from mgen.core.beatmap.chart import SLOTS_PER_BEAT, BpmChange
from mgen.core.beatmap.hearing import hear
from mgen.core.beatmap.rhythm import Timing

RATE = 22050
BPM, OFFSET_S = 120.0, 0.25
BEAT_S = 60.0 / BPM
TIMING = Timing(BPM, OFFSET_S, 1.0)


def pluck(hz, seconds=0.2, decay=18.0):
    t = np.arange(int(seconds * RATE)) / RATE
    fade = np.minimum(1.0, (seconds - t) / 0.05)  # an abrupt end would be heard, rightly
    return np.sin(2 * np.pi * hz * t) * np.exp(-decay * t) * fade


def play(events, seconds, timing=TIMING):
    """Samples of (beat, sound) pairs over a faint hiss."""
    samples = 1e-4 * np.random.default_rng(0).standard_normal(int(seconds * RATE))
    for beat, sound in events:
        start = round(timing.seconds(beat) * RATE)
        part = samples[start : start + len(sound)]
        part += sound[: len(part)]
    return samples.astype(np.float32)


def slots(beats):
    return [round(b * SLOTS_PER_BEAT) for b in beats]


def test_every_note_is_heard_once_on_its_slot():
    rng = np.random.default_rng(1)
    beats = np.cumsum(rng.choice([0.25, 0.5, 1.0, 1.5], size=60))
    heard = hear(play([(b, 0.5 * pluck(440)) for b in beats], beats[-1] * BEAT_S + 2), RATE, TIMING)
    assert heard.slot_E.tolist() == slots(beats)
    assert heard.time_s_E == pytest.approx(OFFSET_S + beats * BEAT_S, abs=0.01)
    assert heard.slot_E.dtype == np.int64


def test_thirds_are_told_from_quarters():
    beats = np.array(
        [4 * b + t for b in range(6) for t in (0, 1, 4 / 3, 5 / 3, 2, 2.25, 2.5, 2.75)]
    )
    heard = hear(play([(b, 0.5 * pluck(600, 0.1, 40)) for b in beats], 14.0), RATE, TIMING)
    assert heard.slot_E.tolist() == slots(beats)


def test_sloppy_notes_go_to_the_nearest_plain_slot_and_keep_their_time():
    late = np.random.default_rng(2).uniform(-0.012, 0.012, 40)
    events = [(k / 2 + late[k] / BEAT_S, 0.5 * pluck(500)) for k in range(1, 40)]
    heard = hear(play(events, 12.0), RATE, TIMING)
    assert heard.slot_E.tolist() == [24 * k for k in range(1, 40)]
    assert heard.time_s_E == pytest.approx(OFFSET_S + np.arange(1, 40) / 4 + late[1:], abs=0.01)


def test_notes_far_from_any_slot_are_dropped():
    slow = Timing(15.0, 0.0, 1.0)  # at 15 BPM even 1/8 is half a second
    events = [(b, 0.5 * pluck(500)) for b in (1.0, 2.0, 3.0)] + [(2 + 1 / 48 * 4, 0.5 * pluck(500))]
    heard = hear(play(events, 16.0, slow), RATE, slow)
    assert 2 * 48 + 4 not in heard.slot_E.tolist()
    assert {48, 96, 144} <= set(heard.slot_E.tolist())


def test_strength_and_bands_follow_the_sound():
    kick, hat = pluck(60, 0.15, 25), np.diff(np.random.default_rng(3).standard_normal(500)) * 0.3
    hat *= np.exp(-np.arange(len(hat)) / 120)
    events = [(k, kick) for k in range(0, 32, 2)] + [(k, hat) for k in range(1, 32, 2)]
    heard = hear(play(events, 17.0), RATE, TIMING)
    is_kick = heard.slot_E % (2 * SLOTS_PER_BEAT) == 0
    assert heard.low_E[is_kick].mean() > 3 * heard.low_E[~is_kick].mean()
    assert heard.high_E[~is_kick].mean() > heard.high_E[is_kick].mean()
    for values in (heard.strength_E, heard.low_E, heard.mid_E, heard.high_E, heard.harmonic_E):
        assert values.dtype == np.float32
        assert len(values) == len(heard.slot_E)
        assert values.min() >= 0.0
        assert values.max() <= 1.0


def test_loud_notes_are_stronger_than_soft_ones():
    events = [(k, (0.6 if k % 4 == 0 else 0.02) * pluck(440)) for k in range(40)]
    heard = hear(play(events, 21.0), RATE, TIMING)
    loud = heard.slot_E % (4 * SLOTS_PER_BEAT) == 0
    assert heard.strength_E[loud].mean() > heard.strength_E[~loud].mean()


def test_new_pitches_are_heard_as_harmonic_change():
    same = [(k, 0.4 * pluck(330, 0.45, 3)) for k in range(24)]
    changed = [(k, 0.4 * pluck((330, 466, 262, 587)[k % 4], 0.45, 3)) for k in range(24, 48)]
    heard = hear(play(same + changed, 25.0), RATE, TIMING)
    late = heard.slot_E > 25 * SLOTS_PER_BEAT
    early = (heard.slot_E < 23 * SLOTS_PER_BEAT) & (heard.slot_E > 0)
    assert heard.harmonic_E[late].mean() > 2 * heard.harmonic_E[early].mean()


def test_sustain_tells_held_notes_from_short_ones():
    events = [(4 * k, 0.5 * pluck(440, 1.5, 0.3)) for k in range(8)]
    events += [(4 * k, 0.5 * pluck(440, 0.1, 60)) for k in range(8, 16)]
    heard = hear(play(events, 33.0), RATE, TIMING)
    on = heard.slot_E % (4 * SLOTS_PER_BEAT) == 0
    held = heard.sustain_E[on & (heard.slot_E < 31 * 48)]
    short = heard.sustain_E[on & (heard.slot_E > 31 * 48)]
    assert held.min() > 1.0
    assert short.max() < 0.4


def test_loudness_of_beats():
    events = [(k / 2, (0.02 if k < 32 else 0.5) * pluck(440)) for k in range(64)]
    heard = hear(play(events, 16.25), RATE, TIMING)
    assert len(heard.loudness_K) == heard.n_beats == 32
    assert heard.loudness_K[:16].max() < heard.loudness_K[16:].min()


def song_aaba(bars=8):
    """A: an arpeggio over drums; B: other pitches, another rhythm, no drums."""
    kick = pluck(60, 0.15, 25)
    events = []
    for part, section in enumerate("AABA"):
        for bar in range(bars):
            start = 4.0 * (part * bars + bar)
            if section == "A":
                tune = (220, 277, 330, 440) if bar % 2 == 0 else (196, 247, 294, 392)
                events += [(start + k / 2, 0.3 * pluck(tune[k % 4])) for k in range(8)]
                events += [(start + k, kick) for k in range(4)]
            else:
                tune = (523, 622, 784) if bar % 2 == 0 else (466, 587, 698)
                events += [(start + 4 * k / 3, 0.3 * pluck(tune[k], 0.6, 4)) for k in range(3)]
    return play(events, OFFSET_S + 16 * bars * BEAT_S)


def test_sections_of_an_aaba_song():
    heard = hear(song_aaba(), RATE, TIMING)
    assert len(heard.bar_section_M) == 32
    label = heard.bar_section_M
    assert (label[1:15] == label[0]).all()
    assert (label[17:23] != label[0]).all()
    assert len(set(label[17:23].tolist())) == 1
    assert (label[25:] == label[0]).all()
    assert label[0] == 0
    assert (heard.repeat_of_M[9:15] >= 0).all()
    assert ((heard.repeat_of_M[9:15] - np.arange(9, 15)) % 2 == 0).all()
    assert heard.repeat_of_M[17] == -1
    assert (heard.repeat_of_M < np.arange(32)).all()
    assert heard.repeat_of_M[0] == -1


def test_a_tempo_change_moves_the_slots():
    timing = Timing(100.0, 0.5, 1.0, 4, (BpmChange(0.0, 100.0), BpmChange(16.0, 140.0)))
    beats = np.arange(0, 40, 0.5)
    sounds = [(b, 0.5 * pluck(440)) for b in beats]
    heard = hear(play(sounds, timing.seconds(40.0) + 0.5, timing), RATE, timing)
    assert heard.slot_E.tolist() == slots(beats)


@pytest.mark.parametrize("length", [0, 1, 500, 3 * RATE])
def test_silence_has_no_events(length):
    heard = hear(np.zeros(length, np.float32), RATE, TIMING)
    assert len(heard.slot_E) == 0
    assert heard.duration_s == length / RATE
    assert len(heard.loudness_K) == heard.n_beats
    assert len(heard.bar_section_M) == len(heard.repeat_of_M) == -(-heard.n_beats // 4)


def test_noise_and_short_sounds_do_not_crash():
    rng = np.random.default_rng(4)
    for n in (30, 2000, 2 * RATE):
        heard = hear(0.1 * rng.standard_normal(n), RATE, TIMING)
        assert (np.diff(heard.slot_E) > 0).all()


def test_events_before_the_first_downbeat_have_negative_slots():
    timing = Timing(120.0, 1.5, 1.0)
    heard = hear(play([(b, 0.5 * pluck(440)) for b in (-2, -1, 0, 1)], 4.0, timing), RATE, timing)
    assert heard.slot_E.tolist() == [-96, -48, 0, 48]
