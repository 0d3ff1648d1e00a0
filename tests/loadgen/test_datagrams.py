"""When sockets are looked at: a loop and a clock of the test's, real sockets."""

from __future__ import annotations

import contextlib
import socket
from types import SimpleNamespace

import pytest

from loadgen.media import datagrams
from loadgen.media.datagrams import HURRY_S, POLL_S, DatagramPoller

MEDIA = b"\x80" + bytes(1_199)


class Loop:
    """Keeps the one timer; `run` lets its time come."""

    def __init__(self):
        self.now = 100.0
        self.due = None

    def time(self):
        return self.now

    def call_at(self, at, callback):
        self.due = at, callback
        return SimpleNamespace(cancel=lambda: None)

    def run(self):
        """Return how long it took."""
        (at, callback), begun = self.due, self.now
        self.now = at
        callback()
        return at - begun


class Taker:
    """Takes what comes; `missing` is what it says of packets."""

    def __init__(self):
        self.missing = False
        self.sizes = []
        self.faults = []

    def on_media(self, buffer, at, length, arrival):
        self.sizes.append(length)

    def on_pass(self, now):
        return self.missing

    def on_fault(self, error):
        self.faults.append(error)


@pytest.fixture
def loop(monkeypatch):
    made = Loop()
    clock = SimpleNamespace(monotonic=made.time, time=made.time)
    monkeypatch.setattr(datagrams, "time", clock)
    return made


@contextlib.contextmanager
def reading(loop, taker):
    """Yields what sends to a socket that is read."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        ours.setblocking(False)
        poller = DatagramPoller(loop)
        poller.add(ours, taker)
        yield lambda: theirs.sendto(MEDIA, ours.getsockname())
        poller.remove(taker)


def test_all_that_has_gathered_is_taken_in_one_look(loop):
    taker = Taker()
    with reading(loop, taker) as send:
        # A key frame of 180 kB, which the kernel's default buffer does not hold.
        for _ in range(150):
            send()
        loop.run()
        assert taker.sizes == [len(MEDIA)] * 150
        assert loop.run() == pytest.approx(POLL_S)


def test_looks_are_more_frequent_for_a_second_after_a_packet_was_missed(loop):
    taker = Taker()
    with reading(loop, taker) as send:
        loop.run()
        assert loop.run() == pytest.approx(POLL_S)
        taker.missing = True
        send()
        loop.run()
        taker.missing = False
        missed = loop.now
        while loop.now + HURRY_S < missed + 1.0:
            send()
            assert loop.run() == pytest.approx(HURRY_S)
        for _ in range(3):
            loop.run()
        assert loop.run() == pytest.approx(POLL_S)
    assert taker.faults == []
