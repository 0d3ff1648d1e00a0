"""How this worker keeps up: samples of its event loop, CPU and sockets in, `Window`s out.

It runs inside the event loop that receives the media, because that loop's lateness is what
spoils figures. It must not know limits (`verdict` does) nor who is told.
"""

from __future__ import annotations

import asyncio
import math
import re
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from loadgen.load.verdict import WINDOW_S, Window
from loadgen.media.datagrams import next_look

_BEHIND_S: Final = 0.0005
"""The loop's lag is sampled so long after each time that sockets are looked at: in the midst of
that work, if there is any, and without waking the process up once more, which costs 0.1 ms."""
_UDP: Final = (Path("/proc/net/udp"), Path("/proc/net/udp6"))
_DESCRIPTORS: Final = Path("/proc/self/fd")
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class ReceiveWindow(Protocol):
    """What the receive path says of the time since it was last asked."""

    @property
    def delays_s(self) -> Sequence[float]:
        """From the kernel's receipt of a datagram to its handler, seconds."""

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel dropped because nobody took them in time."""


Receive = Callable[[], ReceiveWindow | None]
"""Asks the receive path; None where it does not know, as with stock aiortc."""


class Health:
    """Samples one worker. `run` it in the loop; `on_window` hears of each window there."""

    def __init__(
        self, sessions: Callable[[], int], receive: Receive, on_window: Callable[[Window], None]
    ) -> None:
        """`sessions`: how many there are now. Windows without any are not told."""
        self._sessions = sessions
        self._receive = receive
        self._on_window = on_window
        self._lags: list[float] = []
        self._late: list[float] = []
        self._most_sessions = 0
        self._drops = _SocketDrops()

    def late(self, seconds: float) -> None:
        """Something was begun so much after the moment that was planned."""
        self._late.append(seconds)

    async def run(self) -> None:
        """Sample until cancelled; the last, unfinished window is told then."""
        loop = asyncio.get_running_loop()
        begun = _Instant.now()
        self._sample_next(loop)
        try:
            while True:
                await asyncio.sleep(begun.monotonic + WINDOW_S - time.monotonic())
                begun = self._close_window(begun)
        finally:
            self._sampling.cancel()
            if time.monotonic() - begun.monotonic >= WINDOW_S / 2:
                self._close_window(begun)

    def _sample_next(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not a task that sleeps: it would cost the loop one more round each time.
        due = next_look(loop.time()) + _BEHIND_S
        self._sampling = loop.call_at(due, self._sample, loop, due)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lags.append(max(0.0, loop.time() - due))
        self._most_sessions = max(self._most_sessions, self._sessions())
        self._sample_next(loop)

    def _close_window(self, begun: _Instant) -> _Instant:
        end = _Instant.now()
        seconds = end.monotonic - begun.monotonic
        received = self._receive()
        # Both may have counted the same; only the receive path knows of sockets closed since.
        drops = max(self._drops.since_last(), received.dropped if received is not None else 0)
        lags = sorted(self._lags)
        if self._most_sessions and lags:
            self._on_window(
                Window(
                    started_unix=begun.unix,
                    seconds=seconds,
                    sessions=self._most_sessions,
                    loop_lag_p50_s=quantile(lags, 0.50),
                    loop_lag_p99_s=quantile(lags, 0.99),
                    loop_lag_max_s=lags[-1],
                    loop_cpu=(end.thread_cpu - begun.thread_cpu) / seconds,
                    process_cpu=(end.process_cpu - begun.process_cpu) / seconds,
                    schedule_delay_p99_s=_p99(self._late),
                    kernel_delay_p99_s=_p99(received.delays_s) if received is not None else None,
                    udp_drops=drops,
                    open_files=sum(1 for _ in _DESCRIPTORS.iterdir()),
                    open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                )
            )
        self._lags.clear()
        self._late.clear()
        self._most_sessions = self._sessions()
        return end


class _Instant:
    """All clocks at once; `thread_cpu` is the calling thread's."""

    def __init__(self) -> None:
        self.unix = time.time()
        self.monotonic = time.monotonic()
        self.thread_cpu = time.thread_time()
        self.process_cpu = time.process_time()

    @classmethod
    def now(cls) -> _Instant:
        return cls()


class _SocketDrops:
    """Datagrams dropped at this process's own UDP sockets (column `drops` of /proc/net/udp).

    /proc/net/snmp would count other processes' sockets as well. A socket that was closed since
    the last look takes its last seconds' count with it.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def since_last(self) -> int:
        """Datagrams since the last call; a new socket counts from zero."""
        drops = _drops_by_inode()
        own = {inode: drops[inode] for inode in _own_sockets() if inode in drops}
        fresh = sum(count - self._known.get(inode, 0) for inode, count in own.items())
        self._known = own
        return max(0, fresh)


def _drops_by_inode() -> dict[int, int]:
    found: dict[int, int] = {}
    for path in _UDP:
        with suppress(OSError):
            for line in path.read_text().splitlines()[1:]:
                columns = line.split()
                found[int(columns[9])] = int(columns[12])
    return found


def _own_sockets() -> set[int]:
    inodes = set()
    for entry in _DESCRIPTORS.iterdir():
        with suppress(OSError):
            if match := _SOCKET.fullmatch(str(entry.readlink())):
                inodes.add(int(match[1]))
    return inodes


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below or at which `share` of a sorted sequence lies (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _p99(values: Sequence[float]) -> float | None:
    return quantile(sorted(values), 0.99) if values else None
