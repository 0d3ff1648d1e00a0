import pytest

from exporter import gauges
from exporter import processes as module
from exporter.observations import AgentLosses, LoopLag, ProcessReported
from exporter.processes import FRESH_S, Processes
from exporter.stages import ProcessRole

API, WORKER, UNIFIED = ProcessRole.API, ProcessRole.WORKER, ProcessRole.UNIFIED


def report(origin="a", role=WORKER, at=100.0, **told):
    return ProcessReported(at, origin, role, **told)


def levels(readings):
    return {(r.name, *r.labels.values()): r.value for r in readings.readings}


@pytest.fixture
def processes():
    return Processes()


def test_what_a_process_tells_becomes_levels(processes):
    told = levels(
        processes.feed(
            report(
                role=UNIFIED,
                rss_bytes=700,
                lag=LoopLag(0.001, 0.01, 0.02),
                media_queue={"video": 3, "audio": 5},
                realtime_backlog=2,
            )
        )
    )
    lag = gauges.LOOP_LAG.name
    assert told == {
        (gauges.PROCESSES.name, "unified"): 1,
        (gauges.PROCESS_MEMORY.name, "unified"): 700,
        (lag, "unified", "p50"): 0.001,
        (lag, "unified", "p99"): 0.01,
        (lag, "unified", "max"): 0.02,
        (gauges.MEDIA_QUEUE_DEPTH.name, "video"): 3,
        (gauges.MEDIA_QUEUE_DEPTH.name, "audio"): 5,
        (gauges.QUEUE_LEVEL.name, "realtime"): 2,
    }


def test_what_a_process_cannot_tell_is_absent(processes):
    assert levels(processes.feed(report())) == {(gauges.PROCESSES.name, "worker"): 1}


def test_several_processes_of_a_role_are_summed_and_the_slowest_loop_shows(processes):
    processes.feed(report("a", rss_bytes=700, lag=LoopLag(0.1, 0.1, 0.1), media_queue={"video": 1}))
    processes.feed(report("api", API, rss_bytes=50))
    told = levels(
        processes.feed(
            report("b", rss_bytes=300, lag=LoopLag(0.0, 0.2, 0.3), media_queue={"video": 2})
        )
    )
    assert told[gauges.PROCESSES.name, "worker"] == 2
    assert told[gauges.PROCESS_MEMORY.name, "worker"] == 1000
    assert told[gauges.PROCESS_MEMORY.name, "api"] == 50
    assert told[gauges.LOOP_LAG.name, "worker", "p50"] == 0.1
    assert told[gauges.LOOP_LAG.name, "worker", "max"] == 0.3
    assert told[gauges.MEDIA_QUEUE_DEPTH.name, "video"] == 3


def test_a_sum_that_would_be_of_some_processes_only_is_absent(processes):
    processes.feed(report("a", rss_bytes=700))
    told = levels(processes.feed(report("b")))
    assert (gauges.PROCESS_MEMORY.name, "worker") not in told


def test_a_process_that_was_not_heard_of_lately_is_withdrawn(processes):
    processes.feed(report("a", at=100.0, rss_bytes=700))
    processes.feed(report("b", at=110.0, rss_bytes=300))
    assert processes.tick(100.0 + FRESH_S) is None
    told = processes.tick(100.1 + FRESH_S)
    assert levels(told)[gauges.PROCESS_MEMORY.name, "worker"] == 300
    assert processes.tick(110.1 + FRESH_S).readings == ()


def test_losses_are_totals_of_each_process_and_outlive_it(processes):
    processes.feed(report("a", losses=AgentLosses(dropped=3, refused=1)))
    processes.feed(report("a", at=101.0, losses=AgentLosses(dropped=5, refused=1, failures=2)))
    processes.tick(200.0)
    # It was only silent: what it told before does not count again.
    processes.feed(report("a", at=201.0, losses=AgentLosses(dropped=6, refused=1, failures=2)))
    processes.feed(report("b", at=201.0, losses=AgentLosses(dropped=1)))
    processes.feed(report("c", API, at=201.0, losses=AgentLosses(dropped=9)))
    assert processes.dropped == {WORKER: 7, API: 9}
    assert processes.refused[WORKER] == 1
    assert processes.failures[WORKER] == 2


def test_processes_are_bounded(processes, monkeypatch):
    monkeypatch.setattr(module, "ORIGINS_REMEMBERED", 3)
    for number in range(10):
        told = processes.feed(report(str(number), at=100.0 + number, losses=AgentLosses(1)))
    assert levels(told)[gauges.PROCESSES.name, "worker"] == 3
    assert processes.dropped[WORKER] == 10
