"""How the process does as a whole: levels and the event loop's lag in, `process` records out.

It must not know OpenTalking: hooks tell the levels. They and the probe run in the event loop;
the record is made in the courier's thread.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter import steady_clock
from exporter.stages import ProcessRole

REPORT_S: Final = 5.0
"""Between two records."""
BEAT_S: Final = 0.1
"""Between two looks at the event loop: fifty of them make the statistics of a record."""

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Levels:
    """What waits in this process; None while nobody can tell."""

    media: Callable[[], Mapping[str, int]] | None = None
    """Reads kind → items that wait for WebRTC, over all sessions."""
    backlog: int | None = None
    """Audio chunks that a synthesis backend was asked for and has not returned."""

    def chunk_requested(self) -> None:
        """One more waits for the backend."""
        self.backlog = (self.backlog or 0) + 1

    def chunk_returned(self) -> None:
        """It came, or failed."""
        self.backlog = max(0, (self.backlog or 0) - 1)


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the event loop ran its timers (seconds)."""

    p50: float
    p99: float
    max: float


def lag_of(seconds: Sequence[float]) -> Lag | None:
    """Quantiles by nearest rank; None when there are no values."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    p50, p99 = (ranked[math.ceil(q * len(ranked)) - 1] for q in (0.5, 0.99))
    return Lag(p50, p99, ranked[-1])


class LoopProbe:
    """Looks at a loop every `BEAT_S`, and calls `report` with its lag, now and every `REPORT_S`."""

    def __init__(self, report: Callable[[Lag | None], None]) -> None:
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._due = self._report_at = 0.0
        self._lags: list[float] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin in `loop`, from which it is called; leave another loop, if there was one."""
        self.stop()
        self._loop = loop
        # The first report comes with the first beat: it tells the exporter that we are here.
        self._report_at = time.monotonic()
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _wait(self) -> None:
        assert self._loop is not None
        # Not the loop's own clock: uvloop's counts whole milliseconds.
        self._due = time.monotonic() + BEAT_S
        self._next = self._loop.call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        self._lags.append(max(0.0, now - self._due))
        if now >= self._report_at:
            lags, self._lags = self._lags, []
            self._report_at = now + REPORT_S
            self._report(lag_of(lags))
        self._wait()


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One reading. `losses` is asked when the record is made."""

    role: ProcessRole
    unix: float
    lag: Lag | None
    media: Mapping[str, int] | None
    backlog: int | None
    losses: Callable[[], Mapping[str, int]]

    def ready(self) -> bool:
        """A reading has nothing to wait for."""
        return True

    def record(self) -> dict[str, Any] | None:
        """The record without its sequence."""
        record: dict[str, Any] = {
            "kind": "process",
            "unix": self.unix,
            "role": self.role.value,
            "agent": dict(self.losses()),
        }
        resident = _resident_bytes()
        if resident is not None:
            record["rss_bytes"] = resident
        if self.lag is not None:
            lag = self.lag
            record["event_loop_lag_seconds"] = {"p50": lag.p50, "p99": lag.p99, "max": lag.max}
        if self.media is not None:
            record["media_queue"] = dict(self.media)
        if self.backlog is not None:
            record["realtime_backlog"] = self.backlog
        return record


def read(
    role: ProcessRole, levels: Levels, lag: Lag | None, losses: Callable[[], Mapping[str, int]]
) -> ProcessReading:
    """Read the levels now, in the event loop, where they do not move meanwhile."""
    media = levels.media() if levels.media is not None else None
    return ProcessReading(role, steady_clock.now(), lag, media, levels.backlog, losses)


def _resident_bytes() -> int | None:
    """Second field of /proc/self/statm (proc_pid_statm(5)); None where there is no such file."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
