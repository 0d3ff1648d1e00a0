"""What payloads say of their picture, and counters that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.media.packets import Unwrapper, h264_flags, vp8_flags

START, NOT_START = 0x10, 0x00
KEY, DELTA = 0x00, 0x01


@pytest.mark.parametrize(
    ("payload", "starts", "key"),
    [
        (bytes([START, KEY]), True, True),
        (bytes([START, DELTA]), True, False),
        (bytes([NOT_START, KEY]), False, False),
        # Another partition of the same picture begins with S set, too.
        (bytes([START | 0x03, KEY]), False, False),
        # X, I: a picture id of one and of two bytes.
        (bytes([0x80 | START, 0x80, 0x05, KEY]), True, True),
        (bytes([0x80 | START, 0x80, 0x85, 0x01, KEY]), True, True),
        (bytes([0x80 | START, 0x80, 0x85, 0x01, DELTA]), True, False),
        # X with I, L, T and K.
        (bytes([0x80 | START, 0xF0, 0x85, 0x01, 0x02, 0x20, KEY]), True, True),
        (bytes([0x80 | START, 0x80]), False, False),
        (bytes([0x80 | START]), False, False),
        (bytes([START]), False, False),
        (b"", False, False),
    ],
)
def test_vp8_payload_descriptor(payload, starts, key):
    assert vp8_flags(payload) == (starts, key)


def stap_a(*units):
    return b"\x18" + b"".join(len(u).to_bytes(2, "big") + u for u in units)


SPS, PPS, IDR, SLICE, LATER_SLICE = b"\x67\x42", b"\x68\xce", b"\x65\x88", b"\x41\x9a", b"\x41\x0a"


@pytest.mark.parametrize(
    ("payload", "starts", "key"),
    [
        (SPS, True, True),
        (PPS, False, False),
        # Without its parameter sets an IDR slice begins nothing that could be decoded.
        (IDR, False, True),
        (SLICE, True, False),
        (LATER_SLICE, False, False),
        (stap_a(SPS, PPS), True, True),
        (stap_a(SPS, PPS, IDR), True, True),
        (stap_a(SLICE), True, False),
        (b"\x7c\x85\x88", False, True),
        (b"\x7c\x05\x88", False, False),
        (b"\x5c\x81\x9a", True, False),
        (b"\x5c\x81\x0a", False, False),
        (b"\x5c", False, False),
        (b"\x18\x00", False, False),
        (b"", False, False),
    ],
)
def test_h264_nal_unit_headers(payload, starts, key):
    assert h264_flags(payload) == (starts, key)


@given(st.binary(max_size=40))
def test_any_payload_can_be_read(payload):
    vp8_flags(payload)
    h264_flags(payload)


def test_a_counter_goes_on_across_its_wrap():
    counter = Unwrapper(16)
    assert [counter.extend(v) for v in (65_534, 65_535, 0, 1)] == [65_534, 65_535, 65_536, 65_537]


def test_a_straggler_from_before_the_wrap_keeps_its_place():
    counter = Unwrapper(16)
    for value in (65_534, 0, 1):
        counter.extend(value)
    assert counter.extend(65_535) == 65_535
    assert counter.extend(2) == 65_538


def test_locating_a_value_does_not_move_the_counter():
    counter = Unwrapper(32)
    counter.extend(1_000)
    assert counter.locate(2**31) == 2**31
    assert counter.locate(2**32 - 1) == -1
    assert counter.extend(1_001) == 1_001


@given(st.integers(0, 2**16 - 1), st.lists(st.integers(-300, 300), max_size=200))
def test_steps_of_less_than_half_the_range_add_up(start, steps):
    counter = Unwrapper(16)
    counter.extend(start)
    place = highest = start
    for step in steps:
        place = highest + step
        assert counter.extend(place % 65_536) == place
        highest = max(highest, place)
