"""The pipeline's log, a file or what a command prints → `LogLine` observations.

What comes in: the path of the log of the process that runs the pipeline, followed like
`tail -F`, or a command that prints it, such as `docker logs -f`. What goes out: its measuring
lines, with their own time where they have one. It must not know turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from exporter import steady_clock, upstream
from exporter.health import SourceHealth
from exporter.observations import LogLine
from exporter.sources import Emit

POLL_S = 0.02
"""The age a line can reach before it is read; lines without a time of their own are dated then."""

LONGEST_LINE = 64 * 1024

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0
LONGEST_REASON = 200
STOP_S = 2.0
"""The time a command has to end before it is killed."""


class _Lines:
    """Bytes as they come → whole lines → observations."""

    def __init__(self, health: SourceHealth) -> None:
        self._health = health
        self._rest = b""
        self._skipping = False

    def take(self, chunk: bytes, emit: Emit) -> int:
        """Emit the measuring lines that are whole now; return how many."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if whole and self._skipping:
            self._skipping = False
            del whole[0]
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
            if not self._skipping:
                self._skipping = True
                self._health.drop("too_long")
        return sum(_line(raw, emit) for raw in whole)


def _line(raw: bytes, emit: Emit) -> bool:
    text = raw.decode("utf-8", errors="replace")
    line = upstream.parse_line(text)
    if line is None:
        return False
    own = upstream.line_time(text)
    at = steady_clock.from_wall(own) if own is not None else steady_clock.now()
    emit(LogLine(at, line, stamped=own is not None))
    return True


class LogSource:
    """Follows one log file from its present end, across truncation and rotation."""

    def __init__(self, path: Path) -> None:
        self.health = SourceHealth("log")
        self._path = path
        self._file: BinaryIO | None = None
        self._inode = -1
        self._lines = _Lines(self.health)
        self._from_start = False

    async def run(self, emit: Emit) -> None:
        """Follow the log until cancelled."""
        try:
            while True:
                self.read(emit)
                await asyncio.sleep(POLL_S)
        finally:
            self.read(emit)
            self._close()

    def read(self, emit: Emit) -> None:
        """Read what has been written since the last call."""
        try:
            self._open()
        except OSError as error:
            # A log that appears later was written while we watched: all of it is news.
            self._from_start = True
            if self.health.up or self.health.failures == 0:
                self.health.failed(f"cannot read {self._path}: {error.strerror}")
            return
        assert self._file is not None
        lines = 0
        while chunk := self._file.read(1 << 20):
            lines += self._lines.take(chunk, emit)
        self.health.succeeded(time.time(), events=lines)

    def _open(self) -> None:
        found = self._path.stat()
        if self._file is not None:
            rotated = found.st_ino != self._inode
            truncated = found.st_size < self._file.tell()
            if not rotated and not truncated:
                return
            self._close()
            self._from_start = True
        self._file = self._path.open("rb")
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._lines = _Lines(self.health)
        if not self._from_start:
            self._file.seek(0, os.SEEK_END)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class LogCommandSource:
    """Runs a command that prints the log as it grows, again whenever it ends.

    Its standard output and error are both read, since Python logs to the latter.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.health = SourceHealth("log")
        self._command = tuple(command)

    async def run(self, emit: Emit) -> None:
        """Read until cancelled; the command is stopped then."""
        retry = FIRST_RETRY_S
        while True:
            began = time.monotonic()
            self.health.failed(await self._run_once(emit))
            if time.monotonic() - began > LONGEST_RETRY_S:
                retry = FIRST_RETRY_S
            await asyncio.sleep(retry * random.uniform(0.5, 1.5))
            retry = min(retry * 2, LONGEST_RETRY_S)

    async def _run_once(self, emit: Emit) -> str:
        """Run it to its end; return why it ended."""
        name = self._command[0]
        try:
            # A session of its own, so that stopping it reaches what it has started itself.
            child = await asyncio.create_subprocess_exec(
                *self._command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
        except OSError as error:
            return f"cannot run {name}: {error.strerror}"
        try:
            assert child.stdout is not None
            lines = _Lines(self.health)
            output = b""
            self.health.succeeded(time.time())
            while chunk := await child.stdout.read(LONGEST_LINE):
                output = (output + chunk)[: LONGEST_REASON + 1]
                self.health.succeeded(time.time(), events=lines.take(chunk, emit))
            status = await child.wait()
        finally:
            await _stop(child)
        said = output.decode("utf-8", errors="replace").strip()
        # One short line is the command's complaint. More is the log, whose text is private.
        complains = status != 0 and said and len(output) <= LONGEST_REASON and "\n" not in said
        return f"{name} ended with status {status}" + (f": {said}" if complains else "")


async def _stop(child: Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group may outlive the command that leads it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        if child.returncode is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await child.wait()
