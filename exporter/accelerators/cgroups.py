"""Control groups of the kernel → what this process may use at most.

What comes in: /proc/self/cgroup, /proc/self/mountinfo and the groups' own files, of version 1, 2
or both at once. What goes out: `Limits` of the group that this process is in. It must not know
what anybody does with them.

A limit holds for everything below it, so the least of the group's own and its parents' counts, as
far up as they can be seen: in a container that is usually the container's own group alone. "No
limit" is None, and so is a file that is not there (cgroups(7); the kernel's documentation,
admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst, scheduler/sched-bwc.rst).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_NUMBER: Final = re.compile(r"\d{1,20}", re.ASCII)
_MAX: Final = "max"
_V1_NO_MEMORY_LIMIT: Final = 2**63 - 2**16
"""Version 1 writes "no limit" as the largest number of whole pages: 2**63 less one page, of 4 to
64 KiB (PAGE_COUNTER_MAX, include/linux/page_counter.h)."""


class CgroupError(ValueError):
    """A file is not in the kernel's form; the message names it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of this process. A field that is None has no limit, or cannot be seen."""

    cpus: float | None = None
    """CPU seconds a second: 2.5 is two and a half processors' worth."""
    memory_bytes: float | None = None
    memory_used_bytes: float | None = None
    """In use by the group, page cache included."""
    throttled_seconds: float | None = None
    """Time that the group's tasks have waited because the CPU limit was used up."""


@dataclass(frozen=True, slots=True)
class _Mount:
    controllers: frozenset[str] | None
    """None: version 2, which has all in one."""
    root: str
    """The group that the mount point shows."""
    point: str


def read(root: Path = Path("/")) -> Limits:
    """Limits of this process. `root` is where `proc` and the mount points are looked for.

    Raises `CgroupError`. A machine without control groups has no limits.
    """
    groups = _memberships(_text(root / "proc/self/cgroup") or "")
    mounts = _mounts(_text(root / "proc/self/mountinfo") or "")
    cpu_v2, cpu = _folders(root, "cpu", mounts, groups)
    memory_v2, memory = _folders(root, "memory", mounts, groups)
    return Limits(
        cpus=_least(_cpus_v2 if cpu_v2 else _cpus_v1, cpu),
        memory_bytes=_least(_memory_v2 if memory_v2 else _memory_v1, memory),
        memory_used_bytes=_number_in(
            memory[0] / ("memory.current" if memory_v2 else "memory.usage_in_bytes")
        )
        if memory
        else None,
        throttled_seconds=_throttled(cpu, v2=cpu_v2),
    )


def _memberships(text: str) -> dict[str, str]:
    """Controller → path of the group; version 2 under the name ''."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            raise CgroupError(f"/proc/self/cgroup: {line[:60]!r} is not ID:CONTROLLERS:PATH")
        for controller in parts[1].split(","):
            found[controller] = parts[2]
    return found


def _mounts(text: str) -> list[_Mount]:
    """Mounted hierarchies (proc_pid_mountinfo(5))."""
    found: list[_Mount] = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 6 or len(kind) < 3:
            raise CgroupError(f"/proc/self/mountinfo: {line[:60]!r} has no mount point or type")
        if kind[0] == "cgroup":
            found.append(_Mount(frozenset(kind[-1].split(",")), fields[3], fields[4]))
        elif kind[0] == "cgroup2":
            found.append(_Mount(None, fields[3], fields[4]))
    return found


def _folders(
    root: Path, controller: str, mounts: list[_Mount], groups: dict[str, str]
) -> tuple[bool, list[Path]]:
    """Whether it is version 2, and the group's folder with its visible parents' after it."""
    for mount in mounts:
        if mount.controllers is not None and controller in mount.controllers:
            path = groups.get(controller)
            return False, [] if path is None else _chain(root, mount, path)
    # Where both versions are mounted, a controller belongs to only one of them.
    for mount in mounts:
        if mount.controllers is None and "" in groups:
            return True, _chain(root, mount, groups[""])
    return False, []


def _chain(root: Path, mount: _Mount, group: str) -> list[Path]:
    point = root / mount.point.lstrip("/")
    path = PurePosixPath(group)
    # A container may be told a path of the machine, and see only its own group: at the mount.
    inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
    if ".." in inside.parts or not (point / inside).is_dir():
        return [point]
    return [point / part for part in (inside, *inside.parents)]


def _cpus_v2(folder: Path) -> float | None:
    name = folder / "cpu.max"
    text = _text(name)
    if text is None:
        return None
    quota, *period = text.split() or [""]
    if len(period) > 1:
        raise CgroupError(f"{name}: {text.strip()[:60]!r} is not QUOTA PERIOD")
    # The period may be left out, as in what is written to the file.
    return None if quota == _MAX else _ratio(name, quota, period[0] if period else "100000")


def _cpus_v1(folder: Path) -> float | None:
    name = folder / "cpu.cfs_quota_us"
    quota, period = _text(name), _text(folder / "cpu.cfs_period_us")
    if quota is None or quota.strip() == "-1" or period is None:
        return None
    return _ratio(name, quota.strip(), period.strip())


def _ratio(name: Path, quota: str, period: str) -> float:
    part, whole = _number(name, quota), _number(name, period)
    if part <= 0 or whole <= 0:
        raise CgroupError(f"{name}: {quota} µs in {period} µs is no share of time")
    return part / whole


def _memory_v2(folder: Path) -> float | None:
    text = _text(folder / "memory.max")
    if text is None or text.strip() == _MAX:
        return None
    return _number(folder / "memory.max", text.strip())


def _memory_v1(folder: Path) -> float | None:
    limit = _number_in(folder / "memory.limit_in_bytes")
    return None if limit is None or limit >= _V1_NO_MEMORY_LIMIT else limit


def _throttled(folders: list[Path], *, v2: bool) -> float | None:
    """`throttled_usec` of version 2, `throttled_time` in nanoseconds of version 1."""
    key, unit = ("throttled_usec", 1e-6) if v2 else ("throttled_time", 1e-9)
    for folder in folders[:1]:
        for line in (_text(folder / "cpu.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return _number(folder / "cpu.stat", value.strip()) * unit
    return None


def _least(of: Callable[[Path], float | None], folders: Iterable[Path]) -> float | None:
    return min((value for folder in folders if (value := of(folder)) is not None), default=None)


def _number_in(name: Path) -> float | None:
    text = _text(name)
    return None if text is None else _number(name, text.strip())


def _number(name: Path, text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise CgroupError(f"{name}: {text[:60]!r} is not a number")
    return float(text)


def _text(name: Path) -> str | None:
    try:
        return name.read_text(errors="replace")
    except OSError:
        return None
