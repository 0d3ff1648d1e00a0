"""The `process` records: what the probe sees of a loop, and what a record says."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from exporter.agent import process
from exporter.agent.courier import Courier
from exporter.agent.guard import Guard
from exporter.agent.process import Lag, Levels, LoopProbe, lag_of, read
from exporter.agent.settings import Settings
from exporter.stages import ProcessRole
from tests.exporter.agent.receiver import receiver

NO_LOSSES = {"dropped": 0, "refused": 0, "failures": 0}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(process, "BEAT_S", 0.005)
    monkeypatch.setattr(process, "REPORT_S", 0.1)


def probed(disturb):
    """What the probe reports of a loop in which `disturb` runs after the first report."""
    reports = []

    async def run():
        probe = LoopProbe(reports.append)
        probe.start(asyncio.get_running_loop())
        while not reports:
            await asyncio.sleep(0.01)
        disturb()
        while len(reports) < 2:
            await asyncio.sleep(0.01)
        probe.stop()
        await asyncio.sleep(0.15)

    asyncio.run(run())
    assert len(reports) == 2, "a probe that was stopped reports no more"
    return reports


def test_what_holds_the_loop_up_is_seen_and_only_in_its_interval(quick):
    _, after = probed(lambda: time.sleep(0.08))
    # The timer was due at most one beat after the loop was taken.
    assert after.max >= 0.07
    assert after.p50 <= after.p99 <= after.max


def test_quantiles_are_of_the_nearest_rank():
    assert lag_of([i / 1000 for i in range(100, 0, -1)]) == Lag(0.05, 0.099, 0.1)
    assert lag_of([0.2]) == Lag(0.2, 0.2, 0.2)
    assert lag_of([]) is None


def test_a_reading_keeps_the_levels_of_its_instant():
    waiting = {"video": 3, "audio": 7}
    levels = Levels(media=lambda: dict(waiting))
    levels.chunk_requested()
    levels.chunk_requested()
    levels.chunk_returned()
    taken = read(ProcessRole.WORKER, levels, Lag(0.001, 0.002, 0.003), lambda: NO_LOSSES)
    waiting["video"] = 0
    levels.chunk_returned()
    record = taken.record()
    assert record["media_queue"] == {"video": 3, "audio": 7}
    assert record["realtime_backlog"] == 1
    assert record["event_loop_lag_seconds"] == {"p50": 0.001, "p99": 0.002, "max": 0.003}
    assert record["unix"] == pytest.approx(time.time(), abs=1.0)


def test_resident_memory_is_the_kernels_figure():
    record = read(ProcessRole.API, Levels(), None, lambda: NO_LOSSES).record()
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    assert record["rss_bytes"] == pytest.approx(1024 * int(kilobytes), rel=0.05)


def test_what_cannot_be_read_is_left_out(monkeypatch):
    monkeypatch.setattr(process, "_STATM", Path("/nonexistent"))
    record = read(ProcessRole.API, Levels(), None, lambda: NO_LOSSES).record()
    assert set(record) == {"kind", "unix", "role", "agent"}


def test_the_exporter_takes_whole_and_partial_records():
    full = Levels(media=lambda: {"video": 1, "audio": 2}, backlog=0)
    with receiver() as received:
        courier = Courier(Settings(received.url), Guard())
        courier.start()
        courier.take(read(ProcessRole.UNIFIED, full, Lag(0.0, 0.1, 0.2), lambda: NO_LOSSES))
        courier.take(read(ProcessRole.API, Levels(), None, lambda: NO_LOSSES))
        received.wait_for("process", 2)
        courier.close(1.0)
    assert received.refusals == []
    assert [r["role"] for r in received.of_kind("process")] == ["unified", "api"]
    assert [o.realtime_backlog for o in received.observations] == [0, None]
