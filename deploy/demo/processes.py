"""A crew of child processes that starts, is watched, is logged and ends as one.

What comes in: commands with their environments, and probes that say whether a child is ready. What
goes out: running children, their logs, and errors that say which child failed, how, and what it
last wrote. It must not know what the children are.

Each child gets a session and process group of its own, so that a Ctrl-C in the terminal reaches the
supervisor only and the crew is stopped in one place. Nothing survives the supervisor: children get
SIGKILL from the kernel when it dies, and the guardian (guardian.py) kills what they had started.

Log files have one line per line that a child writes to stdout or stderr, prefixed with the time at
which the line arrived and one space, in this format and no other::

    2026-11-22T16:12:02.340123Z INFO:opentalking.pipeline:...

that is ISO 8601, UTC, microseconds, always 27 characters. Lines that arrive in one read share a
time. Every line is in the file at once: nothing is buffered.

Linux and the standard library only. Every fork comes from the main thread.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.025
STOP_SECONDS = 5.0
# A child's output ends with the child, unless something it started keeps the pipe open.
LAST_OUTPUT_SECONDS = 1.0
LOG_TAIL_LINES = 15

Probe = Callable[[], Awaitable[str | None]]
"""Returns None when the child is ready, else what is still missing, in words."""

_PR_SET_PDEATHSIG = 1
# Looked up before any fork: a forked child should do as little as possible.
_prctl = ctypes.CDLL(None).prctl


class ChildError(Exception):
    """A child ended, or was not ready in time; the message says which, how, and its last words."""


class EndedError(ChildError):
    """A child ended by itself."""

    def __init__(self, child: "Child", message: str) -> None:
        super().__init__(message)
        self.child = child


class LogFile:
    """A child's log: bytes as they come in, timestamped lines in the file."""

    def __init__(self, path: Path, *, go_on: bool = False) -> None:
        self.path = path
        self._file = path.open("ab" if go_on else "wb", buffering=0)
        self._rest = b""

    def feed(self, data: bytes, unix: float) -> None:
        """Take in output that arrived at this Unix time."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            prefix = _timestamp(unix)
            self._file.write(b"".join(prefix + line + b"\n" for line in lines))

    def close(self, unix: float) -> None:
        """Write what is left of a line that never ended, and close the file."""
        if self._rest:
            self.feed(b"\n", unix)
        self._file.close()

    def tail(self) -> str:
        """Return the last lines, indented, for an error message."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])


@dataclass(eq=False)
class Child:
    """A started child. `ready_unix` is None until it is ready."""

    name: str
    process: Process
    log: LogFile
    started_unix: float
    stop_last: bool
    ready_unix: float | None = None
    watch: asyncio.Task[None] = field(init=False)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the child's process group."""
        return self.process.pid

    def failure(self, what: str) -> ChildError:
        """Return an error that says what happened and ends with the tail of the log."""
        return ChildError(self._with_last_words(what))

    def ended(self) -> EndedError:
        """Return an error that says how and when it ended, and ends with the tail of the log."""
        when = "while the target was running" if self.ready_unix else "before it was ready"
        return EndedError(self, self._with_last_words(f"{_ending(self.process)} {when}"))

    def _with_last_words(self, what: str) -> str:
        tail = self.log.tail()
        last_words = f"the last lines of {self.log.path}:\n{tail}" if tail else "it wrote nothing"
        return f"{self.name} {what}; {last_words}"


class Crew:
    """Starts children, and ends them all when its `async with` block ends, however it ends."""

    def __init__(self, log_directory: Path) -> None:
        log_directory.mkdir(parents=True, exist_ok=True)
        self._logs = log_directory
        self._guardian = _Guardian()
        self._children: list[Child] = []
        self._ended: asyncio.Queue[Child] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop([child for child in self._children if not child.stop_last])
        await self._stop([child for child in self._children if child.stop_last])
        self._guardian.dismiss()

    async def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        *,
        stop_last: bool = False,
        again: bool = False,
    ) -> Child:
        """Start a child in `directory` with exactly this environment; log to `<name>.log`.

        With `stop_last` it is stopped after the others, for they would complain of its absence.
        With `again` the log of the one before it goes on.
        """
        log = LogFile(self._logs / f"{name}.log", go_on=again)
        supervisor = os.getpid()
        started_unix = time.time()
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            cwd=directory,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _die_with(supervisor),
        )
        self._guardian.watch(process.pid)
        child = Child(name, process, log, started_unix, stop_last)
        child.watch = asyncio.create_task(self._watch(child))
        self._children.append(child)
        return child

    async def until_ready(self, child: Child, probe: Probe, timeout: float) -> None:
        """Wait until the probe finds nothing missing, and note when that was.

        Raises ChildError if `timeout` seconds pass. That the child may end first is for
        `until_one_ends` to notice, beside this.
        """
        deadline = time.monotonic() + timeout
        while (missing := await probe()) is not None:
            if time.monotonic() > deadline:
                raise child.failure(f"was not ready after {timeout:g} s ({missing})")
            await asyncio.sleep(POLL_SECONDS)
        child.ready_unix = time.time()

    async def until_one_ends(self) -> EndedError:
        """Wait until any child ends by itself; return the error that says so."""
        return (await self._ended.get()).ended()

    async def dismiss(self, child: Child) -> None:
        """Forget a child that has ended, with all that it had started."""
        await self._stop([child])
        self._children.remove(child)

    async def _watch(self, child: Child) -> None:
        output = asyncio.create_task(_copy(child.process, child.log))
        await child.process.wait()
        await asyncio.wait({output}, timeout=LAST_OUTPUT_SECONDS)
        output.cancel()
        child.log.close(time.time())
        self._ended.put_nowait(child)

    async def _stop(self, children: Sequence[Child]) -> None:
        if not children:
            return
        _signal_groups(children, signal.SIGTERM)
        await asyncio.wait([child.watch for child in children], timeout=STOP_SECONDS)
        # Also those that ended in good order: they may have left children of their own.
        _signal_groups(children, signal.SIGKILL)
        await asyncio.gather(*(child.watch for child in children))
        for child in children:
            self._guardian.forget(child.pid)


class _Guardian:
    """Our end of the pipe to guardian.py, in a session of its own so that no Ctrl-C reaches it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-IS", str(Path(__file__).with_name("guardian.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def dismiss(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # Without its guardian the crew still dies with the supervisor, by the kernel's doing.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def _die_with(supervisor: int) -> None:
    # The kernel sends the signal when the forking THREAD ends: the main one outlives all others.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # If the supervisor died before the line above, no signal is coming.
    if os.getppid() != supervisor:
        os._exit(1)


def _signal_groups(children: Sequence[Child], number: signal.Signals) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _ending(process: Process) -> str:
    status = process.returncode
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"


async def _copy(process: Process, log: LogFile) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(65536):
        log.feed(data, time.time())


def _timestamp(unix: float) -> bytes:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
