"""What a worker tells of itself."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from loadgen.load import health
from loadgen.load.health import Health, quantile


def windows(monkeypatch, during, *, sessions=lambda: 2, receive=lambda: None, seconds=0.4):
    monkeypatch.setattr(health, "WINDOW_S", seconds)
    told = []

    async def run():
        sampling = Health(sessions, receive, told.append)
        task = asyncio.create_task(sampling.run())
        await during(sampling)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return told


def test_a_stall_of_the_loop_shows_as_lag(monkeypatch):
    async def stall(_):
        await asyncio.sleep(0.05)
        time.sleep(0.35)  # noqa: ASYNC251 (the stall under test)
        await asyncio.sleep(0.3)

    told = windows(monkeypatch, stall)
    assert max(w.loop_lag_max_s for w in told) >= 0.28
    assert all(w.sessions == 2 for w in told)


def test_work_in_the_loop_shows_as_cpu_of_its_thread(monkeypatch):
    async def burn(_):
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)

    told = windows(monkeypatch, burn)
    cpu = sum(w.loop_cpu * w.seconds for w in told)
    assert cpu == pytest.approx(0.3, abs=0.15)


def test_windows_without_sessions_are_not_told(monkeypatch):
    assert windows(monkeypatch, lambda _: asyncio.sleep(0.6), sessions=lambda: 0) == []


def test_lateness_and_what_the_receive_path_says_are_passed_on(monkeypatch):
    class Received:
        delays_s = (0.001, 0.002, 0.05)
        dropped = 4

    async def late(sampling):
        sampling.late(0.25)
        await asyncio.sleep(0.5)

    first, *_ = windows(monkeypatch, late, receive=lambda: Received)
    assert first.schedule_delay_p99_s == 0.25
    assert first.kernel_delay_p99_s == 0.05
    assert first.udp_drops == 4


def test_what_nobody_sampled_is_none(monkeypatch):
    first, *_ = windows(monkeypatch, lambda _: asyncio.sleep(0.5))
    assert (first.schedule_delay_p99_s, first.kernel_delay_p99_s) == (None, None)
    assert first.open_files > 0


def test_datagrams_that_this_process_was_too_slow_for_are_counted(monkeypatch):
    async def flood(_):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            slow.bind(("127.0.0.1", 0))
            for _ in range(200):
                sender.sendto(bytes(1_000), slow.getsockname())
            await asyncio.sleep(0.5)

    told = windows(monkeypatch, flood)
    assert 100 < sum(w.udp_drops for w in told) <= 200


def test_quantiles_are_of_the_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, q) for q in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    assert quantile([7.0], 0.99) == 7.0
