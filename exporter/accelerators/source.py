"""A vendor's library → readings, again and again.

What comes in: a `Library`, whose calls may block. What goes out: `Readings` of memory at every
interval and of the rest at most once a second, the devices' identities, and the source's health.
It must not know a vendor, turns, nor who takes the readings.

A device that cannot be read is left out, and the health says why; so is the whole library. Both
are tried anew every `RETRY_S`, with a new session: the old one would repeat its answer for ever.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from exporter import steady_clock
from exporter.accelerators.groups import Grouping
from exporter.accelerators.readings import (
    Device,
    Library,
    LibraryError,
    NoDeviceError,
    info_readings,
    memory_readings,
    state_readings,
)
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings
from exporter.sources import Emit

INTERVAL_S: Final = 1.0
STATE_S: Final = 1.0
"""Utilisation is itself an average over 1/6 to 1 s (nvmlUtilization_t): faster tells nothing."""
RETRY_S: Final = 30.0

NO_ACCELERATOR: Final = "no accelerator"


class AcceleratorSource:
    """Reads every device of one library. `interval` may change meanwhile (seconds)."""

    def __init__(
        self,
        library: Library,
        grouping: Grouping,
        *,
        baseline: Mapping[str, float] | None = None,
        interval: float = INTERVAL_S,
        retry: float = RETRY_S,
    ) -> None:
        self.health = SourceHealth(library.name)
        self.interval = interval
        self.devices: tuple[Device, ...] = ()
        """What was there when it could last be read."""
        self.nothing_there: str | None = None
        """Why there is no device at all; None when there is one, or when it cannot be told."""
        self._library = library
        self._grouping = grouping
        self._baseline = baseline or {}
        self._retry = retry
        self._opened_at: float | None = None
        self._states_at: float | None = None
        self._down = False
        self._lock = threading.Lock()

    async def run(self, emit: Emit) -> None:
        """Read until cancelled. The library is called in another thread, as it may hang."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                for seen in await asyncio.to_thread(self.read):
                    emit(seen)
                interval = max(self.interval, self._library.least_interval)
                pause = self._retry if self._down else interval
                due = max(due + pause, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            await asyncio.to_thread(self.close)
            for nothing in self._withdrawn(steady_clock.now()):
                emit(nothing)

    def read(self) -> list[Readings]:
        """Read every device once. Never raises: what cannot be read is the health's reason."""
        with self._lock:
            started = time.monotonic()
            try:
                told = self._collect(started)
            except LibraryError as error:
                return self._failed(error)
            finally:
                self._count_malformed()
            if self.health.up:
                self.health.succeeded(time.time(), events=1, duration=time.monotonic() - started)
            return told

    def close(self) -> None:
        """End the library's session."""
        with self._lock:
            self._library.close()
            self._opened_at = None

    def _collect(self, now: float) -> list[Readings]:
        told: list[Readings] = []
        if self._opened_at is None:
            self.devices = self._library.open()
            self._opened_at, self._states_at, self.nothing_there = now, None, None
            told.append(self._told("identity", info_readings(self.devices)))
        collected = self._library.memory()
        self._down = False
        memory = memory_readings(collected.devices, self._grouping.group_of, self._baseline)
        told.append(self._told("memory", memory))
        if self._states_at is None or now - self._states_at >= STATE_S:
            self._states_at = now
            told.append(self._told("state", state_readings(self._library.states())))
        if collected.lost:
            self._say("; ".join(f"device {d}: {why}" for d, why in collected.lost.items()))
            if now - self._opened_at >= self._retry:
                self._library.close()
                self._opened_at = None
        else:
            self.health.up, self.health.reason = True, None
        return told

    def _failed(self, error: LibraryError) -> list[Readings]:
        self._down = True
        nothing = isinstance(error, NoDeviceError)
        self.nothing_there = str(error) if nothing else None
        self._say(f"{NO_ACCELERATOR}: {error}" if nothing else str(error))
        self._library.close()
        self._opened_at = None
        return self._withdrawn(steady_clock.now())

    def _say(self, reason: str) -> None:
        """One failure is one failure, however often it is looked at."""
        if self.health.up or self.health.reason != reason:
            self.health.failed(reason)

    def _count_malformed(self) -> None:
        if self._grouping.malformed:
            self.health.drop("proc_malformed", self._grouping.malformed)
            self._grouping.malformed = 0
        for query, count in self._library.unreadable.items():
            self.health.drop(query, count)
        self._library.unreadable.clear()

    def _told(self, kind: str, readings: Iterable[Reading]) -> Readings:
        return Readings(steady_clock.now(), f"{self.health.name}:{kind}", tuple(readings))

    def _withdrawn(self, at: float) -> list[Readings]:
        kinds = ("identity", "memory", "state")
        return [Readings(at, f"{self.health.name}:{kind}") for kind in kinds]


def absent(sources: Sequence[AcceleratorSource]) -> str | None:
    """Why there is no device in any of them, in one line; None when one is there."""
    if any(source.devices for source in sources):
        return None
    if all(source.nothing_there for source in sources):
        return f"{NO_ACCELERATOR}: {'; '.join(str(s.nothing_there) for s in sources)}"
    return "; ".join(s.health.reason for s in sources if s.health.reason and not s.nothing_there)
