"""The machine the exporter runs on, and what this process may use of it.

What comes in: the operating system's own words in /proc, and the control groups' limits. What
goes out: the identity lines of a report, and levels of processors and memory. It must not know
devices. In a container the machine's figures are still the machine's; the limits are those of the
control group that the exporter is in, which is the target's where both run in one.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from exporter import gauges, steady_clock
from exporter.accelerators import cgroups
from exporter.accelerators.cgroups import CgroupError, Limits
from exporter.gauges import Gauge
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings
from exporter.sources import Emit

INTERVAL_S: Final = 5.0

_ROOT: Final = Path("/")
_KIB: Final = 1024.0
_TIMES: Final = 8
"""Columns of /proc/stat that add up to all time; guests' time is within the first two
(proc_stat(5))."""


class HostError(ValueError):
    """A file of /proc is not in the form that proc(5) describes; the message names it."""


class HostSource:
    """Reads /proc and the control groups every few seconds: a dozen small files."""

    def __init__(self, root: Path = _ROOT) -> None:
        self.health = SourceHealth("host")
        self._root = root
        self._before: tuple[float, float] | None = None

    async def run(self, emit: Emit) -> None:
        """Read until cancelled."""
        while True:
            emit(self.read())
            await asyncio.sleep(INTERVAL_S)

    def read(self) -> Readings:
        """Everything that can be read now. What cannot is absent, counted and the reason."""
        started = time.monotonic()
        readings: list[Reading] = []
        refused: list[str] = []
        for part in (self._processors, self._memory, self._limits):
            try:
                readings.extend(Reading(g.name, v) for g, v in part() if v is not None)
            except (HostError, CgroupError) as error:
                refused.append(str(error))
                self.health.drop("malformed")
        if refused:
            self.health.failed("; ".join(refused))
        else:
            self.health.succeeded(time.time(), events=1, duration=time.monotonic() - started)
        return Readings(steady_clock.now(), self.health.name, tuple(readings))

    def _processors(self) -> Iterator[tuple[Gauge, float | None]]:
        count, busy, total = parse_stat(_text(self._root / "proc/stat"))
        yield gauges.HOST_CPUS, float(count)
        before, self._before = self._before, (busy, total)
        if before is not None and total > before[1] and busy >= before[0]:
            yield gauges.HOST_CPU_BUSY, (busy - before[0]) / (total - before[1])

    def _memory(self) -> Iterator[tuple[Gauge, float | None]]:
        told = parse_meminfo(_text(self._root / "proc/meminfo"))
        yield gauges.HOST_MEMORY, told.get("MemTotal")
        yield gauges.HOST_MEMORY_AVAILABLE, told.get("MemAvailable")

    def _limits(self) -> Iterator[tuple[Gauge, float | None]]:
        limits = cgroups.read(self._root)
        yield gauges.CPU_LIMIT, limits.cpus
        yield gauges.CPU_THROTTLED, limits.throttled_seconds
        yield gauges.MEMORY_LIMIT, limits.memory_bytes
        yield gauges.MEMORY_IN_GROUP, limits.memory_used_bytes


def identity(root: Path = _ROOT) -> dict[str, Any]:
    """`host` of the bundle's `target.json` (docs/bundle.md); None for what cannot be told."""
    try:
        limits = cgroups.read(root)
    except CgroupError:
        limits = Limits()
    return {
        "os": os_name(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory_bytes(root),
        "cpu_limit": limits.cpus,
        "memory_limit_bytes": limits.memory_bytes,
    }


def os_name(release: str | None = None) -> str:
    """The page's OS cell. `release` is the kernel's, which says whether this is WSL2."""
    libc = "".join(platform.libc_ver())
    release = release if release is not None else platform.release()
    if "microsoft" in release.lower():
        return f"WSL2 {libc}".strip()
    return f"{platform.system()} {platform.machine()} {libc}".strip()


def parse_stat(text: str) -> tuple[int, float, float]:
    """/proc/stat → processors, and busy and all time of them together (ticks since boot).

    Raises `HostError`.
    """
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    if not lines or lines[0][0] != "cpu":
        raise HostError("/proc/stat has no line of all processors")
    times = lines[0][1 : 1 + _TIMES]
    if len(times) < 4 or not all(t.isascii() and t.isdecimal() and len(t) < 21 for t in times):
        raise HostError(f"/proc/stat: {' '.join(lines[0])[:60]!r} are no times")
    numbers = [float(text) for text in times]
    # Idle, and idle while something is being read from a disk.
    return len(lines) - 1, sum(numbers) - sum(numbers[3:5]), sum(numbers)


def parse_meminfo(text: str) -> dict[str, float]:
    """/proc/meminfo → bytes by name. Raises `HostError`."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        words = value.split()
        if not colon or not words or not (words[0].isascii() and words[0].isdecimal()):
            raise HostError(f"/proc/meminfo: {line[:60]!r} is not NAME: NUMBER kB")
        if words[1:] == ["kB"] and len(words[0]) < 16:
            found[name] = float(words[0]) * _KIB
    return found


def _memory_bytes(root: Path) -> int | None:
    try:
        total = parse_meminfo(_text(root / "proc/meminfo")).get("MemTotal")
    except HostError:
        return None
    return None if total is None else int(total)


def _text(name: Path) -> str:
    try:
        return name.read_text(errors="replace")
    except OSError as error:
        raise HostError(f"{name} cannot be read: {error.strerror}") from error
