"""The pipeline's log, followed like `tail -F` → `LogLine` observations.

What comes in: the path of the log of the process that runs the pipeline. What goes out: its
measuring lines, with their own time where they have one. It must not know turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

from exporter import upstream
from exporter.health import SourceHealth
from exporter.observations import LogLine
from exporter.sources import Emit

POLL_S = 0.02
"""The age a line can reach before it is read; lines without a time of their own are dated then."""

LONGEST_LINE = 64 * 1024


class LogSource:
    """Follows one log file from its present end, across truncation and rotation."""

    def __init__(self, path: Path) -> None:
        self.health = SourceHealth("log")
        self._path = path
        self._file: BinaryIO | None = None
        self._inode = -1
        self._rest = b""
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
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > LONGEST_LINE:
                self._rest = b""
                self.health.dropped += 1
            for raw in whole:
                lines += self._line(raw, emit)
        self.health.succeeded(time.time(), events=lines)

    def _line(self, raw: bytes, emit: Emit) -> bool:
        text = raw.decode("utf-8", errors="replace")
        line = upstream.parse_line(text)
        if line is None:
            return False
        own = upstream.line_time(text)
        emit(LogLine(own if own is not None else time.time(), line, stamped=own is not None))
        return True

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
        self._rest = b""
        if not self._from_start:
            self._file.seek(0, os.SEEK_END)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
