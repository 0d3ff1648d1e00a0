"""The media meter against streams whose truth is known, and against recordings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.media.meter import MediaMeter
from loadgen.media.onset import Basis
from loadgen.media.speech import FROM_FIRST_AUDIO
from tests.loadgen.streams import AUDIO_PACKET_S, FPS, Stream, play, recorded

INPUT_AT = 10.0
SPEECH_AT = 10.7


def talking(*, drift=0.0, grows=0.0, seconds=4.0, first=0, shown=None, **layout):
    """A session that idles, then speaks once; `shown` is the number that idle frames carry."""
    stream = Stream(**layout)
    stream.idle(8.0, 2.7, number=shown)
    stream.speech(SPEECH_AT, seconds, first=first, drift=drift, grows=grows)
    return stream


def measured(stream, **options):
    return play(stream, input_at=INPUT_AT, **options).end_turn()


# --- drift -----------------------------------------------------------------------------------


@pytest.mark.parametrize("drift_ms", range(-400, 401, 80))
def test_an_injected_offset_is_read_back_with_the_sign_of_bt_1359(drift_ms):
    speech = measured(talking(drift=drift_ms / 1e3))
    assert speech.drift.onset_ms == pytest.approx(drift_ms)
    assert speech.drift.median_ms == pytest.approx(drift_ms)
    assert speech.drift.p95_ms == pytest.approx(abs(drift_ms))
    assert speech.drift.slope_ms_per_min == pytest.approx(0, abs=1e-6)
    assert speech.drift.basis is Basis.DECODED_BARCODE


@settings(deadline=None)
@given(st.integers(-400_000, 400_000))
def test_any_offset_of_up_to_400_ms_is_read_back_to_the_microsecond(drift_us):
    speech = measured(talking(drift=drift_us / 1e6))
    assert speech.drift.onset_ms == pytest.approx(drift_us / 1e3, abs=1e-3)
    assert speech.drift.median_ms == pytest.approx(drift_us / 1e3, abs=1e-3)


def test_pictures_that_fall_behind_show_in_slope_and_95th_percentile():
    speech = measured(talking(drift=0.010, grows=0.005))
    # 5 ms a second; the last of 100 frames is 19.8 ms later than the first.
    assert speech.drift.onset_ms == pytest.approx(10.0)
    assert speech.drift.slope_ms_per_min == pytest.approx(300.0, rel=0.01)
    assert speech.drift.median_ms == pytest.approx(19.9, abs=0.2)
    assert speech.drift.p95_ms == pytest.approx(28.8, abs=0.4)


def test_sound_that_falls_behind_counts_as_negative_drift():
    stream = talking()
    late = [
        replace(p, arrival=p.arrival + 0.05) if p.kind == "audio" and p.arrival > 12 else p
        for p in stream.packets
    ]
    speech = measured(stream, packets=late)
    assert speech.drift.onset_ms == pytest.approx(0)
    assert speech.drift.median_ms == pytest.approx(-50.0)


def test_a_late_first_talking_frame_does_not_shift_the_frames_after_it():
    stream = talking()
    first = 3 * 68
    late = list(stream.packets)
    video = [i for i, p in enumerate(late) if p.kind == "video"]
    for index in video[first - 3 : first]:
        assert late[index].arrival < SPEECH_AT
    for index in video[first : first + 3]:
        late[index] = replace(late[index], arrival=late[index].arrival + 0.015)
    speech = measured(stream, packets=late)
    assert speech.drift.onset_ms == pytest.approx(15.0, abs=0.5)
    assert speech.drift.median_ms == pytest.approx(0.0, abs=0.5)


def test_without_numbers_only_the_change_since_the_onset_is_told():
    speech = measured(talking(drift=0.2, grows=0.005, first=None))
    assert speech.first_talking_frame is None
    assert "no frame number" in speech.no_talking_frame
    assert speech.drift.basis is Basis.CHANGE_ONLY
    assert speech.drift.onset_ms is None
    assert speech.drift.slope_ms_per_min == pytest.approx(300.0, rel=0.05)
    assert abs(speech.drift.median_ms) < 15


def test_a_speech_of_less_than_a_second_has_no_slope():
    speech = measured(talking(seconds=0.6))
    assert speech.drift.slope_ms_per_min is None
    assert speech.drift.median_ms == pytest.approx(0)


def test_drift_survives_counters_that_wrap():
    stream = talking(
        drift=-0.06,
        sequence=65_536 - 250,
        video_timestamp=(1 << 32) - 70 * 3_600,
        audio_sequence=65_536 - 20,
        audio_timestamp=(1 << 32) - 30 * 960,
        first=65_500,
    )
    speech = measured(stream)
    assert speech.drift.onset_ms == pytest.approx(-60.0)
    assert speech.drift.median_ms == pytest.approx(-60.0)
    assert speech.playback_fps == pytest.approx(25.0, rel=0.01)


# --- instants --------------------------------------------------------------------------------


def test_instants_are_those_of_packets_not_of_decoding():
    speech = measured(talking(drift=0.03))
    assert speech.first_audio == pytest.approx(SPEECH_AT)
    assert speech.first_talking_frame == pytest.approx(SPEECH_AT + 0.03)
    assert speech.last_audio == pytest.approx(SPEECH_AT + 4.0 - 0.02)
    assert speech.audio_packets == 200


def test_a_frame_arrives_with_its_last_packet():
    stream = talking()
    slow = [
        replace(p, arrival=p.arrival + 0.012)
        if p.kind == "video" and p.marker and p.arrival == pytest.approx(SPEECH_AT)
        else p
        for p in stream.packets
    ]
    assert measured(stream, packets=slow).first_talking_frame == pytest.approx(SPEECH_AT + 0.012)


def test_sound_of_before_the_input_is_not_the_answer():
    stream = Stream()
    stream.idle(0, 1)
    stream.speech(1.0, 2.0, first=0)
    stream.idle(3.0, 7.7, number=49)
    stream.speech(SPEECH_AT, 1.0, first=50)
    speech = measured(stream)
    assert speech.first_audio == pytest.approx(SPEECH_AT)
    assert speech.first_talking_frame == pytest.approx(SPEECH_AT)


def test_idle_frames_that_repeat_the_last_talking_frame_are_not_talking():
    speech = measured(talking(shown=41, first=42))
    assert speech.first_talking_frame == pytest.approx(SPEECH_AT)


def test_a_picture_that_never_changes_is_no_talking_frame():
    stream = Stream()
    stream.idle(8.0, 6.0, number=41)
    speech = measured(stream)
    assert speech.first_talking_frame is None
    assert "kept showing" in speech.no_talking_frame


def test_frames_that_could_not_be_decoded_are_named_as_such():
    speech = measured(talking(), decoded=False)
    assert speech.first_talking_frame is None
    assert "could be decoded" in speech.no_talking_frame


def test_an_answer_without_sound_has_neither_rate_nor_drift():
    stream = Stream()
    stream.idle(8.0, 6.0)
    speech = measured(stream)
    assert speech.first_audio is None
    assert speech.last_audio is None
    assert speech.playback_fps is None
    assert speech.drift is None


def test_turns_follow_one_another():
    stream = Stream()
    stream.idle(0.0, 1.0)
    stream.speech(1.0, 2.0, first=0)
    stream.idle(3.0, 2.0, number=49)
    stream.speech(5.0, 2.0, first=50, drift=0.08)
    meter = MediaMeter()
    speeches = []
    inputs = [0.5, 4.0]
    begun = 0
    decoded = dict(stream.decoded)
    for packet in sorted(stream.packets, key=lambda p: p.arrival):
        if begun < 2 and packet.arrival > inputs[begun]:
            if begun:
                speeches.append(meter.end_turn())
            meter.begin_turn(inputs[begun])
            begun += 1
        meter.on_packet(packet)
        if packet.kind == "video" and packet.marker:
            meter.on_decoded(packet.timestamp, decoded[packet.timestamp])
    speeches.append(meter.end_turn())
    assert [s.first_audio for s in speeches] == pytest.approx([1.0, 5.0])
    assert [s.first_talking_frame for s in speeches] == pytest.approx([1.0, 5.08])


# --- the first picture -----------------------------------------------------------------------


def first_key_frame(packets):
    meter = MediaMeter()
    for packet in packets:
        meter.on_packet(packet)
    return meter.first_key_frame


def test_the_first_picture_counts_when_its_last_missing_packet_has_come():
    key = Stream().frame(1.0, key=True, packets=4)
    late = replace(key[1], arrival=1.05)
    assert first_key_frame([*key[:1], *key[2:]]) is None
    assert first_key_frame([*key[:1], *key[2:], late]) == pytest.approx(1.05)


def test_packets_out_of_order_make_the_same_picture():
    key = Stream().frame(1.0, key=True, packets=4)
    assert first_key_frame(sorted(key, key=lambda p: -p.sequence)) == pytest.approx(1.0)


def test_the_marker_must_be_there():
    stream = Stream()
    key = stream.frame(1.0, key=True, packets=4)
    assert first_key_frame([*key[:-1], *stream.frame(1.04)]) is None


def test_a_picture_that_is_no_key_frame_is_not_playable():
    stream = Stream()
    packets = [*stream.frame(1.0), *stream.frame(1.04), *stream.frame(1.08, key=True)]
    assert first_key_frame(packets) == pytest.approx(1.08)


def test_a_picture_across_the_sequence_wrap_is_complete():
    assert first_key_frame(Stream(sequence=65_534).frame(1.0, key=True, packets=5)) is not None


def test_a_beginning_that_no_payload_tells_is_known_from_the_packet_before():
    stream = Stream()
    silent = [replace(p, starts_frame=False) for p in [*stream.frame(1.0), *stream.frame(1.04)]]
    key = [replace(p, starts_frame=False) for p in stream.frame(1.08, key=True)]
    # The first picture of the stream may lack packets that were lost before it.
    assert first_key_frame(key) is None
    assert first_key_frame([*silent, *key]) == pytest.approx(1.08)


def test_a_late_packet_shows_where_the_next_picture_begins():
    stream = Stream()
    before = [replace(p, starts_frame=False) for p in stream.frame(1.0)]
    key = [replace(p, starts_frame=False) for p in stream.frame(1.04, key=True)]
    late = replace(before[-1], arrival=1.06)
    assert first_key_frame([*before[:-1], *key, late]) == pytest.approx(1.04)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_reordering_loss_of_nothing_and_duplicates_change_nothing(random):
    stream = talking(seconds=1.0, drift=0.05)
    straight = measured(stream)
    shuffled = []
    packets = sorted(stream.packets, key=lambda p: p.arrival)
    for start in range(0, len(packets), 4):
        block = packets[start : start + 4]
        random.shuffle(block)
        shuffled += block + random.choices(block, k=1)
    meter = MediaMeter()
    meter.begin_turn(INPUT_AT)
    for packet in shuffled:
        if packet.kind == "video" or packet.arrival > INPUT_AT:
            meter.on_packet(packet)
    for timestamp, number in stream.decoded:
        meter.on_decoded(timestamp, number)
    mixed = meter.end_turn()
    assert mixed.first_talking_frame == straight.first_talking_frame
    assert mixed.frames == straight.frames
    assert mixed.drift.onset_ms == pytest.approx(straight.drift.onset_ms)


# --- playback rate ---------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [-0.2, 0.0, 0.2])
def test_playback_at_the_nominal_rate(drift):
    assert measured(talking(drift=drift)).playback_fps == pytest.approx(25.0, rel=0.02)


def test_nothing_plays_behind_a_lost_packet():
    stream = talking()
    lost = next(p for p in stream.packets if p.kind == "video" and p.arrival > SPEECH_AT + 2)
    packets = [p for p in stream.packets if p is not lost]
    # A picture refers to those before it: the second half of the speech is not shown.
    assert measured(stream, packets=packets).playback_fps == pytest.approx(12.5, rel=0.02)


def test_playing_goes_on_with_the_next_key_frame():
    stream = talking()
    video = [p for p in stream.packets if p.kind == "video"]
    lost = next(p for p in video if p.arrival > SPEECH_AT + 1)
    key = next(p for p in video if p.arrival > SPEECH_AT + 3 and p.starts_frame)
    packets = [replace(p, key=True) if p is key else p for p in stream.packets if p is not lost]
    speech = measured(stream, packets=packets)
    assert speech.playback_fps == pytest.approx(12.5, rel=0.05)
    assert speech.freezes == 1
    assert speech.frozen_s == pytest.approx(2.0, abs=0.1)


def test_a_repaired_loss_delays_what_is_behind_it():
    stream = talking()
    late = next(p for p in stream.packets if p.kind == "video" and p.arrival > SPEECH_AT + 2)
    packets = [replace(p, arrival=p.arrival + 0.5) if p is late else p for p in stream.packets]
    speech = measured(stream, packets=packets)
    assert speech.playback_fps == pytest.approx(25.0, rel=0.02)
    assert (speech.freezes, speech.frozen_s) == (1, pytest.approx(0.54, abs=0.05))
    assert speech.longest_gap_s == pytest.approx(0.54, abs=0.05)


def test_a_frozen_picture_lowers_the_rate():
    stream = talking()
    packets = [p for p in stream.packets if p.kind == "audio" or p.arrival < SPEECH_AT + 1.99]
    assert measured(stream, packets=packets).playback_fps == pytest.approx(12.5, rel=0.02)


@pytest.mark.parametrize("numbered", [True, False])
def test_the_burst_after_a_speech_is_not_playback(numbered):
    stream = talking(first=0 if numbered else None)
    last = SPEECH_AT + 4.0 - 0.04
    stream.burst(last + 0.001, 60, number=99 if numbered else None)
    speech = measured(stream)
    assert speech.playback_fps == pytest.approx(25.0, rel=0.02)
    assert abs(speech.drift.median_ms) < 1


def test_without_a_talking_frame_the_rate_counts_from_the_first_sound():
    speech = measured(talking(first=None))
    assert speech.playback_basis == FROM_FIRST_AUDIO
    assert speech.playback_fps == pytest.approx(25.0, rel=0.02)


# --- recordings ------------------------------------------------------------------------------


def speech_of(name, packets=None):
    packets = packets or recorded(name)
    first_audio = next(p.arrival for p in packets if p.kind == "audio")
    meter = MediaMeter()
    begun = False
    for packet in packets:
        if not begun and packet.arrival > first_audio - 0.5:
            meter.begin_turn(first_audio - 0.5)
            begun = True
        meter.on_packet(packet)
    return meter, meter.end_turn()


@pytest.mark.parametrize(
    ("name", "seconds", "audio_packets"),
    [("unified_wav2lip_synth.rtp.jsonl", 8.92, 447), ("split_mock.rtp.jsonl", 8.12, 407)],
)
def test_a_recorded_speech_of_the_real_server(name, seconds, audio_packets):
    meter, speech = speech_of(name)
    assert meter.first_key_frame is not None
    assert speech.audio_packets == audio_packets
    assert speech.last_audio - speech.first_audio == pytest.approx(seconds, abs=0.03)
    # Right behind the last picture the server flushed idle frames at 600 a second.
    assert speech.playback_fps == pytest.approx(25.0, abs=0.25)
    assert speech.burst.frames > 20


def test_a_recorded_still_picture_has_no_first_talking_frame():
    _, speech = speech_of("split_mock.rtp.jsonl")
    assert speech.drift.basis is Basis.CHANGE_ONLY
    assert abs(speech.drift.median_ms) < 10


@pytest.mark.parametrize("shift_ms", [-300, -100, 0, 100, 300])
def test_frame_sizes_of_a_recorded_speech_tell_a_shift_of_its_pictures(shift_ms):
    shifted = [
        replace(p, arrival=p.arrival + shift_ms / 1e3) if p.kind == "video" else p
        for p in recorded("unified_wav2lip_synth.rtp.jsonl")
    ]
    _, speech = speech_of("", sorted(shifted, key=lambda p: p.arrival))
    assert speech.drift.basis is Basis.FRAME_SIZES
    # The first speech of a session on the real server reads 19 ms negative (resampler).
    assert speech.drift.onset_ms == pytest.approx(shift_ms - 19, abs=2)
    assert speech.drift.median_ms == pytest.approx(shift_ms - 19, abs=2)


def test_a_frame_found_beside_the_sound_times_the_picture_and_anchors_no_drift():
    # As recorded at 540×900: the encoder still refines the picture when it begins to move.
    refining = [511, 437, 764, 1022, 1491, 911, 1600, 1597, 1218, 2376, 1386, 1482, 1975, 2016]
    moving = [2900, 2549, 2625, 3463, 1193, 4380] * 5
    stream = Stream(packets_per_frame=1)
    stream.idle(8.0, 2.12)
    for index, size in enumerate([*refining, *moving]):
        [packet] = stream.frame(SPEECH_AT + (index - len(refining)) / FPS)
        stream.packets[-1] = replace(packet, size=size)
    for index in range(50):
        stream.audio(SPEECH_AT + index * AUDIO_PACKET_S)
    speech = measured(stream, decoded=False)
    assert speech.talking_basis is Basis.BESIDE_SOUND
    assert speech.first_talking_frame == pytest.approx(SPEECH_AT)
    assert speech.drift.basis is Basis.CHANGE_ONLY
    assert speech.drift.onset_ms is None


def test_rtp_alone_cannot_tell_that_all_pictures_are_late():
    # As pictures look that are all of one size.
    recording = recorded("unified_wav2lip_synth.rtp.jsonl")
    of_frame = Counter((p.kind, p.timestamp) for p in recording)
    packets = [replace(p, size=1_200 // of_frame[p.kind, p.timestamp]) for p in recording]
    straight = speech_of("", packets)[1]
    shifted = [replace(p, arrival=p.arrival + 0.2) if p.kind == "video" else p for p in packets]
    moved = speech_of("", sorted(shifted, key=lambda p: p.arrival))[1]
    # 200 ms move the median by less than one frame: that is why it is called a change, and never
    # the drift.
    assert abs(moved.drift.median_ms - straight.drift.median_ms) < 40
    assert moved.drift.onset_ms is None
