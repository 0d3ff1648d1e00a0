"""The processes a command runs beside itself: the exporter, and the demo target.

What comes in: how to start them. What goes out: where they answer. Each is in a process group
of its own, so that Ctrl-C reaches this command alone, which stops them in the right order; and
each ends when this command is killed, so that nothing stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from talkscope.status import CommandError

CHECKOUT = Path(__file__).resolve().parent.parent
SUPERVISOR = CHECKOUT / "deploy" / "demo" / "supervisor.py"

EXPORTER_START_S = 30.0
EXPORTER_STOP_S = 15.0
TARGET_STOP_S = 30.0
POLL_S = 0.02
TAIL_LINES = 12

_INGEST_TOKEN = ("TALKSCOPE_INGEST_TOKEN", "TALKSCOPE_INGEST_TOKEN_FILE")

_WATCHED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that gets SIGTERM when its parent dies (prctl(2), PR_SET_PDEATHSIG = 1). In a
program of its own because code between fork and exec may not rely on anything."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A running exporter."""

    url: str
    log: Path


@dataclass(frozen=True, slots=True)
class DemoTarget:
    """A running target: the content of its `target.json`."""

    facts: dict[str, Any]

    @property
    def url(self) -> str:
        """OpenTalking's API."""
        return str(self.facts["opentalking"]["url"])

    @property
    def redis(self) -> str | None:
        """The bus of split mode."""
        redis = self.facts["redis"]
        return str(redis["url"]) if redis else None

    @property
    def log(self) -> Path:
        """The log of the process that runs the pipeline."""
        return Path(self.facts["pipeline_log"])


@contextlib.contextmanager
def exporter(
    arguments: Sequence[str],
    folder: Path,
    *,
    listen: str = "127.0.0.1:0",
    token: str | None = None,
) -> Iterator[Exporter]:
    """Run the exporter, by default on a free loopback port; its bundle is complete when this ends.

    `folder` takes its log; `token` is what it asks senders of marks for. Raises `CommandError` when
    it does not start, or did not end well.
    """
    log, ready = folder / "exporter.log", folder / "exporter-ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "exporter", "--listen", listen]
    command += ["--ready-file", str(ready), *arguments]
    with log.open("wb") as output:
        child = _start(command, output, _with_token(token))
        try:
            deadline = time.monotonic() + EXPORTER_START_S
            while not ready.exists():
                if child.poll() is not None:
                    raise _with_log("the exporter did not start", log)
                if time.monotonic() > deadline:
                    raise CommandError(f"the exporter did not start in {EXPORTER_START_S:.0f} s")
                time.sleep(POLL_S)
            yield Exporter(json.loads(ready.read_text())["url"], log)
            if child.poll() is not None:
                raise _with_log("the exporter ended by itself", log)
        finally:
            status = stop(child, EXPORTER_STOP_S)
            ready.unlink(missing_ok=True)
        if status != 0:
            raise _with_log(f"the exporter did not end well ({status})", log)


@contextlib.contextmanager
def demo_target(arguments: Sequence[str], folder: Path, timeout: float) -> Iterator[DemoTarget]:
    """Run the real OpenTalking and OmniRT on loopback; nothing of them is left when this ends.

    Progress goes to stderr. Raises `CommandError` when the target does not get ready within
    `timeout` seconds.
    """
    if not SUPERVISOR.exists():
        raise CommandError(
            "the demo target is part of a checkout and not of an installed package: clone the "
            "repository and run `make demo` there, or name your own deployment with --target"
        )
    facts = folder / "target.json"
    command = [sys.executable, str(SUPERVISOR), "--dir", str(folder), "--stop-on-stdin-eof"]
    child = subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
    )
    try:
        deadline = time.monotonic() + timeout
        while not facts.exists():
            if child.poll() is not None:
                raise CommandError(
                    "the demo target did not start; the lines above say why", names_logs=True
                )
            if time.monotonic() > deadline:
                logs = folder / "logs"
                raise CommandError(
                    f"the demo target was not ready in {timeout:.0f} s; its logs: {logs}",
                    names_logs=True,
                )
            time.sleep(POLL_S)
        yield DemoTarget(json.loads(facts.read_text()))
    finally:
        # The supervisor takes the end of its input for the wish to stop, and so it also stops
        # when this process is killed.
        assert child.stdin is not None
        child.stdin.close()
        stop(child, TARGET_STOP_S)


@contextlib.contextmanager
def load_generator(arguments: Sequence[str], patience: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run Locust with the load test's users; what it prints goes to stderr.

    It is given `patience` seconds to delete its sessions when this is left before its end.
    """
    child = _start([sys.executable, "-m", "loadgen.load", *arguments], sys.stderr.buffer)
    try:
        yield child
    finally:
        stop(child, patience)


def with_port(listen: str) -> str:
    """HOST:PORT with a free port where it was 0."""
    host, _, port = listen.rpartition(":")
    if port != "0":
        return listen
    with socket.create_server((host, 0)) as free:
        return f"{host}:{free.getsockname()[1]}"


def _with_token(token: str | None) -> dict[str, str]:
    """The environment of an exporter that asks for this token, whatever another one asks for."""
    usual = {n: v for n, v in os.environ.items() if n not in _INGEST_TOKEN}
    return usual if token is None else usual | {_INGEST_TOKEN[0]: token}


def _start(
    command: Sequence[str], output: IO[bytes], environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    watched = [sys.executable, "-c", _WATCHED, str(os.getpid()), *command]
    return subprocess.Popen(
        watched,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        process_group=0,
        env=environment,
    )


def stop(child: subprocess.Popen[bytes], patience: float) -> int:
    """SIGTERM, after `patience` seconds SIGKILL. An impatient Ctrl-C does not shorten it."""
    deadline = time.monotonic() + patience
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    while child.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):
            if time.monotonic() > deadline:
                child.kill()
            time.sleep(POLL_S)
    return child.returncode


def _with_log(problem: str, log: Path) -> CommandError:
    return CommandError(f"{problem}:\n{_tail(log)}\n  log: {log}", names_logs=True)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"  | {line}" for line in lines)
