"""Records that are kept as bytes."""

from __future__ import annotations

import gc
from typing import NamedTuple

from loadgen.media.frames import FRAME_LAYOUT, Frame
from loadgen.media.packed import PackedRecords
from loadgen.media.speech import SOUND_LAYOUT, Sound


class Point(NamedTuple):
    number: int
    at: float


def points(count: int) -> PackedRecords[Point]:
    records = PackedRecords("=qd", Point)
    for number in range(count):
        records.append(Point(number, number / 3))
    return records


def test_records_come_back_exactly_and_in_order():
    assert points(3).all() == [Point(0, 0.0), Point(1, 1 / 3), Point(2, 2 / 3)]
    assert len(points(3)) == 3


def test_the_latest_are_kept():
    records = points(10)
    records.keep_latest(4)
    assert [p.number for p in records.all()] == [6, 7, 8, 9]
    assert records.oldest() == Point(6, 2.0)
    records.keep_latest(100)
    assert len(records) == 4
    records.keep_latest(0)
    assert records.all() == []
    assert records.oldest() is None


def test_forgotten_records_are_gone():
    records = points(2)
    records.clear()
    assert records.all() == []


def test_frames_and_sounds_of_days_fit():
    days = 90_000 * 86_400 * 30
    frame = Frame(days, 1e7 + 1e-6, 1e7 + 2e-6, True, 90_000, 2_000_000_000)
    frames = PackedRecords(FRAME_LAYOUT, Frame)
    frames.append(frame)
    assert frames.all() == [frame]
    sounds = PackedRecords(SOUND_LAYOUT, Sound)
    sounds.append(Sound(days, 1e7 + 1e-6))
    assert sounds.all() == [Sound(days, 1e7 + 1e-6)]


def test_records_are_no_objects_for_the_garbage_collector():
    gc.collect()
    before = len(gc.get_objects())
    records = points(10_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert len(records) == 10_000
