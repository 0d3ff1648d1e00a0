"""What every vendor's library gets: cadence, withdrawal, retry and reasons."""

import asyncio
import threading
from collections import Counter

import pytest

from exporter import gauges
from exporter.accelerators.readings import (
    Collected,
    Device,
    DeviceMemory,
    DeviceState,
    LibraryError,
    NoDeviceError,
)
from exporter.accelerators.source import AcceleratorSource, absent


class Library:
    """Answers as it is told; counts sessions."""

    name = "vendor"
    least_interval = 0.0

    def __init__(self, error=None):
        self.unreadable = Counter()
        self.error = error
        self.sessions = self.rounds = self.stated = 0
        self.hangs = None

    def open(self):
        self.sessions += 1
        self._fail()
        return (Device("0", "vendor", "Chip", 100.0, "driver 1"),)

    def memory(self):
        self.rounds += 1
        if self.hangs is not None:
            self.hangs.wait(10)
        self._fail()
        return Collected((DeviceMemory("0", 40.0, 100.0),))

    def states(self):
        self.stated += 1
        return (DeviceState("0", healthy=True),)

    def close(self):
        self.sessions -= 1

    def _fail(self):
        if self.error is not None:
            raise self.error


def source_of(table, library, **options):
    return AcceleratorSource(library, table.grouping(), **options)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def run_until(source, condition):
    """Everything the source emitted until `condition(emitted)`, and after its cancellation."""

    async def run():
        emitted = []
        task = asyncio.create_task(source.run(emitted.append))
        await until(lambda: task.done() or condition(emitted))
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        return emitted, outcome

    return asyncio.run(run())


def last_by_source(emitted):
    return {readings.source: readings.readings for readings in emitted}


def test_memory_is_read_at_the_interval_and_the_state_less_often(table):
    library = Library()
    run_until(source_of(table, library, interval=0.01), lambda _: library.rounds >= 10)
    assert library.stated < library.rounds


def test_at_the_end_everything_is_withdrawn_and_the_session_closed(table):
    library = Library()
    emitted, _ = run_until(source_of(table, library, interval=0.01), lambda seen: len(seen) >= 3)
    assert {r.name for seen in emitted for r in seen.readings} >= {
        gauges.VRAM_USED.name,
        gauges.ACCELERATOR_HEALTHY.name,
        gauges.ACCELERATOR_INFO.name,
    }
    assert set(last_by_source(emitted).values()) == {()}
    assert library.sessions == 0


def test_a_mistake_in_a_library_withdraws_its_values_and_is_not_hidden(table):
    library = Library()

    def broken(emitted):
        library.error = RuntimeError("a mistake") if emitted else None
        return False

    emitted, outcome = run_until(source_of(table, library, interval=0.01), broken)
    assert isinstance(outcome, RuntimeError)
    assert set(last_by_source(emitted).values()) == {()}


def test_a_library_that_hangs_does_not_stop_the_exporter(table):
    library = Library()
    library.hangs = threading.Event()

    async def run():
        task = asyncio.create_task(source_of(table, library).run(lambda seen: None))
        await until(lambda: library.rounds == 1)
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0.001)
            turns += 1
        library.hangs.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return turns

    assert asyncio.run(run()) == 20


def test_a_library_that_fails_is_opened_anew(table):
    library = Library(LibraryError("the driver sleeps"))
    source = source_of(table, library)
    assert [seen.readings for seen in source.read()] == [(), (), ()]
    source.read()
    assert (source.health.reason, source.health.failures) == ("the driver sleeps", 1)
    assert library.sessions == 0
    library.error = None
    assert any(seen.readings for seen in source.read())
    assert source.health.up


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        (
            [NoDeviceError("none of A"), NoDeviceError("none of B")],
            "no accelerator: none of A; none of B",
        ),
        ([NoDeviceError("none of A"), LibraryError("B is stuck")], "B is stuck"),
        ([NoDeviceError("none of A"), None], None),
    ],
)
def test_why_there_is_no_device(table, errors, why):
    sources = [source_of(table, Library(error)) for error in errors]
    for source in sources:
        source.read()
    assert absent(sources) == why


def test_broken_texts_of_proc_are_counted_as_dropped(table):
    source = source_of(table, Library())
    source._grouping.malformed = 3
    source.read()
    assert source.health.dropped_by == {"proc_malformed": 3}


def test_an_answer_that_was_not_understood_is_counted_once_and_the_rest_is_served(table):
    library = Library()
    library.unreadable["usages"] = 2
    source = source_of(table, library)
    assert any(told.readings for told in source.read())
    source.read()
    assert source.health.dropped_by == {"usages": 2}
    assert source.health.up


def test_a_library_that_is_slow_is_not_read_more_often_than_it_wants(table):
    library = Library()
    library.least_interval = 30.0
    source = source_of(table, library, interval=0.01)

    async def watch():
        task = asyncio.create_task(source.run(lambda seen: None))
        await until(lambda: library.rounds == 1)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())
    assert library.rounds == 1
