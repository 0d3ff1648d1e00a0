"""Real servers for tests: started on a free loopback port, stopped whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent

STARTUP_S = 30.0


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    condition: Callable[[], object], what: str, timeout: float = STARTUP_S, *, pause: float = 0.02
) -> None:
    """Wait for a condition; fail with what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        time.sleep(pause)


@contextlib.contextmanager
def process(
    command: list[str], *, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process whose output goes to a file; SIGTERM, then SIGKILL, at the end."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment, cwd=ROOT
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def synthetic_sender(media: Path, *shape: int, prefix: Sequence[str] = ()) -> Iterator[str]:
    """`tests.loadgen.sender` as a process of its own; yields its URL.

    `shape` is width, height and seconds of the media; `prefix` the command that runs it.
    """
    command = [*prefix, sys.executable, "-m", "tests.loadgen.sender", str(media), *map(str, shape)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            assert child.stdout is not None
            yield child.stdout.readline().strip()
        finally:
            child.kill()


@contextlib.contextmanager
def hogs(core: str, count: int) -> Iterator[None]:
    """So many processes that take a core away from whoever else is on it."""
    spin = ["taskset", "-c", core, sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def program(name: str, package: str) -> str:
    """Path of a program; fails with the way to get it."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; apt-get install {package}")
    return found


def redis_binary() -> str:
    """Path of redis-server; fails with the way to get it."""
    return program("redis-server", "redis-server")


class WallClock:
    """The wall clock of a child, for tests that step it; its monotonic clock stays as it is."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            raise RuntimeError("libfaketime is not installed; apt-get install faketime")
        self._file = folder / "wall-clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: float) -> None:
        """From now on it is ahead of the true time by this much."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{ahead_s:+g}")
        draft.replace(self._file)


@contextlib.contextmanager
def redis_server(
    folder: Path, port: int | None = None, *, options: tuple[str, ...] = ()
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real Redis without persistence; yields its URL and process."""
    port = port or free_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with process([*command, "--dir", str(folder), *options], log=folder / "redis.log") as child:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(answers, "redis-server")
        yield f"redis://127.0.0.1:{port}/0", child


@contextlib.contextmanager
def exporter(
    folder: Path, *arguments: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real exporter process; yields its URL and process."""
    ready = folder / "exporter.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "exporter", "--listen", "127.0.0.1:0"]
    command += ["--ready-file", str(ready), *arguments]
    with process(command, log=folder / "exporter.log", **environment) as child:
        wait_until(lambda: ready.exists() or child.poll() is not None, "the exporter")
        if child.poll() is not None:
            raise RuntimeError((folder / "exporter.log").read_text())
        yield json.loads(ready.read_text())["url"], child
