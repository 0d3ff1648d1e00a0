"""Pictures from packets under loss, and when what is missing is asked for or given up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.media.frames import FrameAssembler
from loadgen.media.recovery import (
    KEY_FRAME_AGAIN_S,
    KEY_FRAME_WAIT_S,
    KeyFrameSchedule,
    NackSchedule,
)
from tests.loadgen.streams import FPS, Stream


def pictures(count, **layout):
    """A key frame and the pictures after it, as lists of packets."""
    stream = Stream(**layout)
    return [stream.frame(n / FPS, key=n == 0) for n in range(count)]


def feed(assembler, packets):
    return [frame for packet in packets for frame in assembler.add(packet)]


def test_pictures_behind_a_missing_packet_wait_for_it():
    first, second, third = pictures(3)
    assembler = FrameAssembler()
    assert len(feed(assembler, first)) == 1
    lost, *rest = second
    assert feed(assembler, [*rest, *third]) == []
    assert list(assembler.missing) == [assembler.extend_sequence(lost.sequence)]
    late = replace(lost, arrival=0.5)
    shown = feed(assembler, [late])
    assert [f.arrival for f in shown] == [0.5, third[-1].arrival]
    assert [f.playable for f in shown] == [0.5, 0.5]
    assert assembler.missing == {}


def test_a_missing_packet_is_given_up_in_the_end_and_a_key_frame_goes_on():
    first, second, *rest = pictures(90)
    key = [replace(p, key=p.starts_frame) for p in rest[80]]
    assembler = FrameAssembler()
    feed(assembler, first)
    feed(assembler, second[1:])
    shown = feed(assembler, [p for picture in rest[:80] for p in picture])
    assert shown == []
    assert assembler.awaits_key
    assert [f.key for f in feed(assembler, key)] == [True]
    assert len(feed(assembler, rest[81])) == 1


def test_a_key_frame_that_came_meanwhile_is_gone_on_with():
    first, second, third, *rest = pictures(12)
    key = [replace(p, key=p.starts_frame) for p in third]
    assembler = FrameAssembler()
    feed(assembler, first)
    feed(assembler, [*second[1:], *key, *rest[0]])
    now = second[1].arrival + 0.1
    assert assembler.expire(now) == ()
    shown = assembler.expire(now + 0.01)
    assert [f.key for f in shown] == [True, False]
    assert not assembler.needs_key


@pytest.mark.parametrize(("silent_s", "given_up_s"), [(0.1, 3.0), (2.5, 3.0), (4.0, 6.0)])
def test_what_never_comes_is_given_up_when_chromium_does(silent_s, given_up_s):
    """Every 3 s since the last picture it is looked at again."""
    first, second, *_ = pictures(3)
    assembler = FrameAssembler()
    feed(assembler, first)
    last = first[-1].arrival
    feed(assembler, [replace(p, arrival=last + silent_s) for p in second[1:]])
    assembler.expire(last + given_up_s - 0.01)
    assert not assembler.needs_key
    assembler.expire(last + given_up_s + 0.01)
    assert assembler.awaits_key


def test_a_gap_of_a_thousand_packets_is_another_stream():
    first, second = pictures(2)
    assembler = FrameAssembler()
    feed(assembler, first)
    far = [replace(p, sequence=(p.sequence + 5_000) % 65_536) for p in second]
    assert feed(assembler, far) == []
    assert assembler.missing == {}
    assert assembler.awaits_key
    assert len(feed(assembler, [replace(p, key=p.starts_frame) for p in far])) <= 1


def test_payloads_matter_only_while_something_is_wrong():
    first, second, third = pictures(3)
    assembler = FrameAssembler()
    assert assembler.wants_payload
    feed(assembler, first)
    assert not assembler.wants_payload
    feed(assembler, [*second[1:], *third])
    assert assembler.wants_payload
    blind = FrameAssembler()
    feed(blind, first)
    # Where nothing is missing the flags may be left out.
    assert len(feed(blind, [replace(p, starts_frame=False) for p in second])) == 1


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 65_535))
def test_whatever_the_order_every_picture_is_shown_once_and_in_order(random, sequence):
    sent = pictures(30, sequence=sequence)
    packets = [p for picture in sent[1:] for p in picture]
    order = sorted(range(len(packets)), key=lambda n: n + random.uniform(0, 8))
    assembler = FrameAssembler()
    shown = feed(assembler, sent[0])
    shown += feed(assembler, [packets[n] for n in order])
    assert len(shown) == 30
    steps = {b.timestamp - a.timestamp for a, b in pairwise(shown)}
    assert steps == {3_600}
    assert assembler.missing == {}


# --- asking ----------------------------------------------------------------------------------


def test_a_missing_packet_is_asked_for_at_once_and_again_after_the_round_trip():
    schedule = NackSchedule()
    missing = {5: 0.0, 6: 0.0}
    assert schedule.due(missing, 0.0) == [5, 6]
    assert schedule.due(missing, 0.02) == []
    assert schedule.due(missing, 0.08) == [5, 6]
    assert schedule.due({6: 0.0, 9: 0.1}, 0.1) == [9]


def test_the_round_trip_is_learned_from_retransmissions():
    schedule = NackSchedule()
    for number in range(40):
        schedule.due({number: 0.0}, number * 1.0)
        schedule.repaired(number, number + 0.2)
    schedule.due({100: 0.0}, 100.0)
    assert schedule.due({100: 0.0}, 100.25) == []
    assert schedule.due({100: 0.0}, 100.35) == [100]


def test_no_more_is_asked_for_than_senders_keep():
    assert len(NackSchedule().due(dict.fromkeys(range(1_000), 0.0), 0.0)) == 128


def test_a_key_frame_is_asked_for_when_none_comes_and_not_all_the_time():
    schedule = KeyFrameSchedule()
    assert not schedule.due(True, 0.0, at_once=False)
    assert not schedule.due(True, KEY_FRAME_WAIT_S / 2, at_once=False)
    assert schedule.due(True, KEY_FRAME_WAIT_S, at_once=False)
    assert not schedule.due(True, KEY_FRAME_WAIT_S + KEY_FRAME_AGAIN_S / 2, at_once=False)
    assert schedule.due(True, KEY_FRAME_WAIT_S + KEY_FRAME_AGAIN_S + 0.01, at_once=False)


def test_a_key_frame_is_asked_for_at_once_when_pictures_were_given_up():
    assert KeyFrameSchedule().due(True, 7.0, at_once=True)


def test_none_is_asked_for_while_pictures_are_shown():
    schedule = KeyFrameSchedule()
    assert not any(schedule.due(False, at / 10, at_once=False) for at in range(20))


@pytest.mark.parametrize("reset_at", [0.15, 0.19])
def test_the_wait_begins_anew_with_each_lack(reset_at):
    schedule = KeyFrameSchedule()
    schedule.due(True, 0.0, at_once=False)
    schedule.due(False, reset_at, at_once=False)
    assert not schedule.due(True, 0.21, at_once=False)
