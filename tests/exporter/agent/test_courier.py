import contextlib
import time
from dataclasses import dataclass
from typing import Any

import pytest

from exporter.agent import courier as courier_module
from exporter.agent.courier import Courier
from exporter.agent.events import PublishedEvent
from exporter.agent.guard import Guard
from exporter.agent.settings import Settings
from tests.exporter.agent.receiver import AHEAD_S, receiver
from tests.processes import free_port, wait_until


@dataclass
class Event:
    name: str
    is_ready: bool = True
    data: Any = None

    def ready(self):
        return self.is_ready

    def record(self):
        data = {} if self.data is None else self.data
        return {"kind": "event", "session": "s", "unix": 1.0, "event": self.name, "data": data}


@pytest.fixture
def carrying():
    """Makes couriers and closes them."""
    made = []

    def make(url, **settings):
        courier = Courier(Settings(url, **settings), Guard())
        made.append(courier)
        courier.start()
        return courier

    yield make
    for courier in made:
        courier.close(0.0)


@contextlib.contextmanager
def away(carrying, *events, ahead=AHEAD_S, meanwhile=lambda: None):
    """An exporter goes, `events` come, it is back with its clock so far ahead.

    Yields what it received before, what it receives now, and the courier.
    """
    port = free_port()
    courier = carrying(f"http://127.0.0.1:{port}")
    with receiver(port) as before:
        courier.take(Event("before"))
        before.wait_for("event", 1)
    for event in events:
        courier.take(Event(event))
        # So long that it is noticed.
        time.sleep(0.3)
    meanwhile()
    with receiver(port, ahead=ahead) as after:
        after.wait_for("event", len(events))
        yield before, after, courier


def names(received):
    return [r["event"] for r in received.of_kind("event")]


def test_records_arrive_in_order_with_the_clock_and_the_token(carrying):
    with receiver() as received:
        courier = carrying(received.url, token="secret")
        for number in range(3):
            courier.take(Event(str(number)))
        received.wait_for("event", 3)
        assert names(received) == ["0", "1", "2"]
        assert [r["sequence"] for r in received.records] == [1, 2, 3]
        assert received.authorizations[0] == "Bearer secret"
        assert received.clocks[0]["offset_seconds"] == pytest.approx(AHEAD_S, abs=0.1)
        assert received.observations[0].at == pytest.approx(1.0 + AHEAD_S, abs=0.1)
        wait_until(lambda: courier.delivery.accepted == 3, "the answer")


def test_an_item_that_is_not_ready_holds_up_no_other(carrying):
    with receiver() as received:
        courier, late = carrying(received.url), Event("late", is_ready=False)
        courier.take(late)
        courier.take(Event("early"))
        received.wait_for("event", 1)
        assert names(received) == ["early"]
        late.is_ready = True
        received.wait_for("event", 2)
        assert names(received) == ["early", "late"]


def test_an_exporter_that_comes_late_gets_what_the_queue_holds(carrying):
    """The bound holds, the newest are dropped and counted, and taking never waits."""
    port = free_port()
    courier = carrying(f"http://127.0.0.1:{port}", queue=20)
    begun = time.monotonic()
    for number in range(50):
        courier.take(Event(str(number)))
    assert time.monotonic() - begun < 0.5
    time.sleep(0.3)
    courier.take(Event("one more"))
    assert courier.held == 20
    assert courier.delivery.dropped == 31
    with receiver(port) as received:
        received.wait_for("event", 20)
        wait_until(lambda: courier.held == 0, "an empty queue")
        courier.take(Event("after"))
        received.wait_for("event", 21)
        assert names(received) == [*map(str, range(20)), "after"]


def test_an_exporter_that_goes_away_and_comes_back_misses_nothing(carrying):
    with away(carrying, "a", "b") as (_, after, courier):
        assert names(after) == ["a", "b"]
        assert courier.delivery.dropped == 0


def test_a_step_of_our_wall_clock_moves_nothing(carrying, monkeypatch):
    wall = time.time

    def step():
        monkeypatch.setattr(time, "time", lambda: wall() + 3600.0)

    # The exporter's clock, which this process plays as well, is not stepped.
    with away(carrying, "a", ahead=AHEAD_S - 3600.0, meanwhile=step) as (before, after, _):
        offsets = [clock["offset_seconds"] for clock in (*before.clocks, *after.clocks)]
        assert offsets == pytest.approx([AHEAD_S, AHEAD_S], abs=0.1)


def test_an_exporter_that_comes_back_is_asked_for_its_clock_again(carrying):
    with away(carrying, "a", ahead=7.0) as (_, after, _):
        assert after.clocks[0]["offset_seconds"] == pytest.approx(7.0, abs=0.1)


def test_a_server_error_is_retried(carrying):
    with receiver() as received:
        received.answers += [500, 429]
        courier = carrying(received.url)
        courier.take(Event("a"))
        received.wait_for("event", 1)
        assert courier.delivery.refused == 0


def test_a_record_that_is_refused_does_not_stop_the_others(carrying):
    with receiver() as received:
        courier = carrying(received.url)
        courier.take(Event("a"))
        courier.take(Event(""))
        courier.take(Event("b"))
        received.wait_for("event", 2)
        assert names(received) == ["a", "b"]
        assert len(received.refusals) == 1
        wait_until(lambda: courier.held == 0, "an empty queue")
        assert courier.delivery.refused == 1


def test_an_item_that_makes_no_record_is_counted_and_passed_over(carrying):
    with receiver() as received:
        courier = Courier(Settings(received.url), guard := Guard())
        courier.start()
        courier.take(PublishedEvent("s", 1.0, "no JSON"))
        courier.take(Event("bad", data={"x": object()}))
        courier.take(Event("nan", data={"x": float("nan")}))
        courier.take(PublishedEvent("s", 1.0, '{"event": "good", "data": {}}'))
        received.wait_for("event", 1)
        assert names(received) == ["good"]
        assert guard.faults["making a record"] == 3
        courier.close(1.0)


def test_many_records_go_in_several_batches(carrying, monkeypatch):
    monkeypatch.setattr(courier_module, "MAX_BATCH", 4)
    with receiver() as received:
        courier = carrying(received.url)
        for number in range(10):
            courier.take(Event(str(number)))
        received.wait_for("event", 10)
        assert names(received) == [*map(str, range(10))]


def test_closing_sends_what_there_is(carrying):
    with receiver() as received:
        courier = carrying(received.url)
        courier.take(Event("a"))
        courier.take(Event("waiting", is_ready=False))
        courier.close(2.0)
        assert names(received) == ["a", "waiting"]


def test_closing_waits_no_longer_than_it_may(carrying):
    courier = carrying(f"http://127.0.0.1:{free_port()}")
    courier.take(Event("a"))
    begun = time.monotonic()
    courier.close(0.3)
    assert time.monotonic() - begun < 1.0
