"""/proc → what a process is.

What comes in: the texts of /proc (proc(5)). What goes out: a `Process`, and which sockets
listen. It must not know devices nor groups. A process that has ended, or that we may not look
into, is None or empty; a text that is not in proc(5)'s form raises `ProcError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""The kernel's PROC_PID_INIT_INO (include/linux/proc_ns.h): the same on every machine."""

_LISTEN: Final = "0A"
"""TCP_LISTEN in the column `st` of /proc/net/tcp."""

_DEVICE_FILES: Final = ("/dev/nvidia", "/dev/dxg", "/dev/davinci")


class ProcError(ValueError):
    """A text of /proc is not in the form that proc(5) describes."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `started` is in clock ticks since boot: with `pid` it is unique."""

    pid: int
    parent: int
    started: int
    arguments: tuple[str, ...]
    cgroups: tuple[str, ...]


class Procfs:
    """The process table under `root`."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self.root = root

    def process(self, pid: int) -> Process | None:
        """The process, or None when there is none. Raises `ProcError`."""
        folder = self.root / str(pid)
        stat = _read(folder / "stat")
        if stat is None:
            return None
        parent, started = parse_stat(stat)
        return Process(
            pid,
            parent,
            started,
            parse_cmdline(_read(folder / "cmdline") or b""),
            parse_cgroup(_read(folder / "cgroup") or b""),
        )

    def listening(self, pid: int) -> frozenset[int]:
        """TCP ports that the process listens on, as far as we may see. Raises `ProcError`."""
        folder = self.root / str(pid)
        held = {target for target in _links(folder / "fd") if target.startswith("socket:[")}
        if not held:
            return frozenset()
        # Of the process's own network namespace, which in a container is not ours.
        tables = (_read(folder / "net" / name) for name in ("tcp", "tcp6"))
        return frozenset(
            port
            for table in tables
            for port, inode in parse_listeners(table or b"")
            if f"socket:[{inode}]" in held
        )

    def holds_accelerator(self, pid: int) -> bool:
        """Whether the process has a device file of an accelerator open, as far as we may see."""
        return any(link.startswith(_DEVICE_FILES) for link in _links(self.root / str(pid) / "fd"))

    def in_initial_namespace(self) -> bool:
        """Whether our process ids are those of the machine, and not of a container."""
        try:
            return str((self.root / "self/ns/pid").readlink()) == INITIAL_PID_NAMESPACE
        except OSError:
            return False


def parse_stat(text: bytes) -> tuple[int, int]:
    """Parent and start time of /proc/PID/stat. The name in its brackets may hold anything."""
    fields = text.rpartition(b")")[2].split()
    try:
        parent, started = int(fields[1]), int(fields[19])
    except (IndexError, ValueError):
        raise ProcError("stat: no parent (field 4) or no start time (field 22)") from None
    if parent < 0 or started < 0:
        raise ProcError("stat: a negative parent or start time")
    return parent, started


def parse_cmdline(text: bytes) -> tuple[str, ...]:
    """Arguments of /proc/PID/cmdline; a kernel thread has none."""
    words = text.rstrip(b"\0").split(b"\0")
    return tuple(word.decode(errors="replace") for word in words) if text else ()


def parse_cgroup(text: bytes) -> tuple[str, ...]:
    """Paths of /proc/PID/cgroup, of every hierarchy (cgroups(7))."""
    paths = []
    for line in text.decode(errors="replace").split("\n"):
        if not line:
            continue
        parts = line.split(":", 2)
        if len(parts) != 3 or not parts[0].isdecimal():
            raise ProcError(f"cgroup: {line[:40]!r} is not ID:CONTROLLERS:PATH")
        paths.append(parts[2])
    return tuple(dict.fromkeys(paths))


def parse_listeners(text: bytes) -> Iterator[tuple[int, int]]:
    """Port and inode of every listening socket of /proc/PID/net/tcp or tcp6."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if not fields:
            continue
        try:
            local, state, inode = fields[1].decode(), fields[3].decode(), int(fields[9])
            port = int(local.rpartition(":")[2], 16)
        except (IndexError, ValueError):
            raise ProcError("net/tcp: a line without local address, state or inode") from None
        if state == _LISTEN:
            yield port, inode


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _links(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.path for entry in entries]
    except OSError:
        return
    for name in names:
        try:
            yield str(Path(name).readlink())
        except OSError:
            continue
