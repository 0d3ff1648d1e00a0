"""The open model as Locust sees it."""

from __future__ import annotations

import random

import pytest

from loadgen.load import shapes
from loadgen.load.arrivals import parse
from loadgen.load.shapes import OpenModel


class Master:
    def __init__(self, specification, workers=("a", "b"), max_sessions=100):
        self._specification = specification
        self.workers = list(workers)
        self.max_sessions = max_sessions
        self.all_ready = False
        self.sessions = 0
        self.unplaced = 0
        self.given: dict[str, list[float]] = {"a": [], "b": []}

    @property
    def arrivals(self):
        return parse(self._specification, random.Random(1))

    def no_worker_for(self, arrivals):
        self.unplaced += arrivals

    def send_arrivals(self, worker, instants):
        self.given[worker] += instants


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_000.0

    monkeypatch.setattr(shapes.time, "monotonic", lambda: Clock.now)
    return Clock


def ticks(shape, clock, seconds):
    told = []
    for _ in range(seconds):
        told.append(shape.tick())
        clock.now += 1.0
    return told


def test_nobody_arrives_before_every_worker_is_warm(clock):
    master = Master("poisson:5")
    shape = OpenModel(master, None)
    assert all(told is not None for told in ticks(shape, clock, 5))
    assert master.given == {"a": [], "b": []}
    master.all_ready = True
    shape.tick()
    first = min(master.given["a"] + master.given["b"])
    assert first > clock.now


def test_every_arrival_is_handed_out_once_ahead_of_its_time_and_spread_over_workers(clock):
    master = Master("poisson:5")
    master.all_ready = True
    shape = OpenModel(master, 60.0)
    begun = clock.now + 1.0
    for _ in range(70):
        before = {worker: len(given) for worker, given in master.given.items()}
        if shape.tick() is None:
            break
        for worker, given in master.given.items():
            assert all(instant >= clock.now for instant in given[before[worker] :])
        clock.now += 1.0
    wanted = [begun + instant for instant in parse("poisson:5", random.Random(1)).until(60.0)]
    assert sorted(master.given["a"] + master.given["b"]) == wanted
    assert abs(len(master.given["a"]) - len(master.given["b"])) <= 1


def test_the_run_ends_at_its_time(clock):
    master = Master("poisson:1")
    master.all_ready = True
    told = ticks(OpenModel(master, 10.0), clock, 13)
    assert told.index(None) == 11


def test_recorded_arrivals_end_the_run_when_the_last_viewer_has_left(clock, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0\n2\n")
    master = Master(str(path))
    master.all_ready = True
    shape = OpenModel(master, None)
    ticks(shape, clock, 4)
    master.sessions = 1
    assert None not in ticks(shape, clock, 20)
    master.sessions = 0
    assert shape.tick() is None


def test_places_grow_with_the_crowd_never_shrink_and_end_at_the_limit(clock):
    master = Master("poisson:2", max_sessions=60)
    master.all_ready = True
    shape = OpenModel(master, None)
    places = []
    for sessions in (0, 5, 20, 50, 10, 0):
        master.sessions = sessions
        places.append(shape.tick()[0])
        clock.now += 1.0
    assert places == sorted(places)
    assert places[2] >= 2 * 20
    assert max(places) == 60


def test_arrivals_that_no_worker_is_left_for_are_counted(clock):
    master = Master("poisson:5")
    master.all_ready = True
    shape = OpenModel(master, None)
    shape.tick()
    given = len(master.given["a"] + master.given["b"])
    master.workers = []
    clock.now += 10.0
    shape.tick()
    assert master.unplaced > 0
    assert len(master.given["a"] + master.given["b"]) == given
