"""Whose process is it? OpenTalking's, OmniRT's, or somebody else's.

What comes in: selectors for each group, and the process table. What goes out: the
`MemoryGroup` of a process id. It must not know devices.

A process belongs to the group of the nearest process, going from itself through its parents,
that a selector names: a worker that a server forks is the server's. Which selector named it does
not matter, unless two groups claim the same process; then a pid file counts before a port, a
port before a cgroup, and a cgroup before a command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from exporter.accelerators.procfs import ProcError, Process, Procfs
from exporter.gauges import MemoryGroup

KINDS: Final = ("pidfile", "port", "cgroup", "command")
"""In the order in which they count."""

KEEP_S: Final = 60.0
"""How long a verdict holds. A process id comes round again only after thousands of others, and
a process keeps its parents' commands."""

LOOK_AGAIN_S: Final = 5.0
"""How long `other` holds: a server may not listen yet, or its pid file may not be written."""

_WORDS: Final = 4
"""Arguments that can name a program: `python -m exporter.agent opentalking-unified`. Later ones
are data, such as the URL of another server."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_DEEP: Final = 64
"""Parents that are looked at; a table that changes meanwhile can show a circle."""


_Held = dict[int, tuple[float, MemoryGroup]]
"""Process id → until when, and what."""


class SelectorError(ValueError):
    """A selector that nobody can apply; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Names processes: by pid file, listening TCP port, part of a cgroup's path, or command."""

    kind: str
    value: str

    def matches(self, process: Process, listening: Callable[[int], frozenset[int]]) -> bool:
        """Whether it names this process itself."""
        match self.kind:
            case "pidfile":
                return _pid_in(Path(self.value)) == process.pid
            case "port":
                return int(self.value) in listening(process.pid)
            case "cgroup":
                return any(self.value in path for path in process.cgroups)
            case _:
                return any(word.startswith(self.value) for word in program_words(process))


def parse_selector(text: str) -> Selector:
    """`port:8000` → a `Selector`. Raises `SelectorError`."""
    kind, separator, value = text.strip().partition(":")
    if kind not in KINDS or not separator or not value:
        raise SelectorError(f"{text!r} is not KIND:VALUE with a KIND of {', '.join(KINDS)}")
    if kind == "port" and not (value.isdecimal() and value.isascii() and 0 < int(value) < 65536):
        raise SelectorError(f"{text!r}: {value!r} is not a port from 1 to 65535")
    return Selector(kind, value)


def usual_selectors(program: str, urls: Iterable[str]) -> tuple[Selector, ...]:
    """A program's command, and the ports of those of its URLs that are on this machine."""
    parts = [urlsplit(url) for url in urls]
    ports = [
        part.port or _DEFAULT_PORTS.get(part.scheme) for part in parts if _is_local(part.hostname)
    ]
    return (
        *(Selector("port", str(port)) for port in ports if port),
        Selector("command", program),
    )


def program_words(process: Process) -> tuple[str, ...]:
    """The words that can name the program: no options, and of a path the last part."""
    named = [word for word in process.arguments[:_WORDS] if not word.startswith("-")]
    return tuple(word.rstrip("/").rpartition("/")[2] for word in named)


class Grouping:
    """Remembers verdicts for a while, since a collection asks for all processes each time."""

    def __init__(
        self,
        selectors: Mapping[MemoryGroup, Sequence[Selector]],
        procfs: Procfs,
        *,
        trust_ids: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trust_ids` false: inside a container a process id must be of a process that holds an
        accelerator, since a driver may mean the machine's process of that number."""
        self.malformed = 0
        """Texts of /proc that could not be understood."""
        self._order = [
            (group, selector)
            for kind in KINDS
            for group, chosen in selectors.items()
            for selector in chosen
            if selector.kind == kind
        ]
        self._procfs = procfs
        self._doubt = not trust_ids and not procfs.in_initial_namespace()
        self._clock = clock
        self._answers: _Held = {}
        self._verdicts: _Held = {}
        """Of parents too, and whether or not a process holds a device."""

    def group_of(self, pid: int) -> MemoryGroup:
        """The group of a process that a driver lists; `other` when it cannot be told."""
        now = self._clock()
        group = _held(self._answers, pid, now)
        if group is not None:
            return group
        if pid <= 0 or (self._doubt and not self._procfs.holds_accelerator(pid)):
            group = MemoryGroup.OTHER
        else:
            group = _held(self._verdicts, pid, now) or self._of_nearest(pid, now)
        self._answers = _fresh(self._answers, now) | {pid: (now + _keep(group), group)}
        return group

    def _of_nearest(self, pid: int, now: float) -> MemoryGroup:
        """Go up from a process. The verdict is that of every process on the way as well: those
        that share their parents are looked up once."""
        way: list[int] = []
        group: MemoryGroup | None = None
        while group is None and pid != 0 and len(way) < _DEEP:
            way.append(pid)
            try:
                process = self._procfs.process(pid)
                group = None if process is None else self._claimed(process)
            except ProcError:
                self.malformed += 1
                break
            if process is None:
                break
            pid = process.parent
            group = group or _held(self._verdicts, pid, now)
        found = group or MemoryGroup.OTHER
        verdict = (now + _keep(found), found)
        self._verdicts = _fresh(self._verdicts, now) | dict.fromkeys(way, verdict)
        return found

    def _claimed(self, process: Process) -> MemoryGroup | None:
        for group, selector in self._order:
            if selector.matches(process, self._procfs.listening):
                return group
        return None


def _held(held: _Held, pid: int, now: float) -> MemoryGroup | None:
    until, group = held.get(pid, (now, None))
    return group if now < until else None


def _fresh(held: _Held, now: float) -> _Held:
    return {pid: entry for pid, entry in held.items() if now < entry[0]}


def _keep(group: MemoryGroup) -> float:
    return LOOK_AGAIN_S if group is MemoryGroup.OTHER else KEEP_S


def _is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _pid_in(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
