"""A worker among Locust's nodes: messages and events in, calls of `Worker` and reports out."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

import gevent
from gevent.queue import Empty, Queue
from locust.env import Environment
from locust.runners import STATE_INIT, Runner

from loadgen.load import protocol
from loadgen.load.arrivals import LeastDelay
from loadgen.load.settings import Setup
from loadgen.load.verdict import SCHEDULE_DELAY_P99_S
from loadgen.load.worker import Worker

_log = logging.getLogger(__name__)


class WorkerNode:
    """Connects a `Worker` with the run's master, which may be the same process."""

    def __init__(self, environment: Environment, runner: Runner, worker: Worker) -> None:
        self.worker = worker
        self.open_model = False
        self._runner = runner
        self._running = False
        self._arrivals: Queue = Queue()
        self._clock = LeastDelay()
        self._set_up = gevent.event.Event()
        self._reporting: gevent.Greenlet | None = None
        runner.register_message(protocol.SETUP, self._on_setup)
        runner.register_message(protocol.ARRIVALS, self._on_arrivals)
        # Not beside Locust's own messages: a `stop` that overtook it would stop twice at once.
        runner.register_message(protocol.LEAVE, self._on_leave)
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stopping.add_listener(self._on_test_stopping)
        environment.events.test_stop.add_listener(self._on_test_stop)
        if getattr(runner, "worker_state", STATE_INIT) != STATE_INIT:
            # The master did not wait for us to be warm.
            self._on_test_start()

    def say_hello(self) -> None:
        """Tell the master that this process is ready."""
        self._send(protocol.HELLO, {"host": socket.gethostname(), "pid": os.getpid()})

    def next_arrival(self, patience: float) -> float | None:
        """The next intended start (monotonic), or None when there was none for so many seconds."""
        try:
            instant: float = self._arrivals.get(timeout=patience)
        except Empty:
            return None
        return instant

    def leave(self) -> None:
        """Stop all visits, if there are any, and tell the master."""
        if self._running:
            self._runner.stop()

    # --- messages --------------------------------------------------------------------------

    def _on_setup(self, *, msg: Any, **_: object) -> None:
        setup = Setup.from_message(msg.data["setup"])
        self.open_model = setup.open_model
        self.worker.set_up(setup, msg.data["index"])
        self._set_up.set()

    def _on_arrivals(self, *, msg: Any, **_: object) -> None:
        received = time.monotonic()
        for instant in msg.data["instants"]:
            self._arrivals.put(self._clock.place(instant, msg.data["sent"], received))

    def _on_leave(self, **_: object) -> None:
        self.leave()

    # --- events ----------------------------------------------------------------------------

    def _on_test_start(self, **_: object) -> None:
        if self._running:
            return
        self._running = True
        self._arrivals = Queue()
        self._reporting = gevent.spawn(self._run)

    def _run(self) -> None:
        self._set_up.wait()
        self.worker.begin()
        while True:
            self.worker.urgent.wait(protocol.REPORT_EVERY_S)
            self.worker.urgent.clear()
            self._send(protocol.REPORT, self._report())

    def _on_test_stopping(self, **_: object) -> None:
        self.worker.ask_to_leave()

    def _on_test_stop(self, **_: object) -> None:
        if not self._running:
            return
        self._running = False
        if self._reporting is not None:
            self._reporting.kill()
        unsaid = self.worker.end()
        unsaid["never_begun"] += self._overdue()
        self._send(protocol.FINISHED, self._report() | unsaid)

    def _overdue(self) -> int:
        """Arrivals that found no free place before the run ended."""
        due = time.monotonic() - SCHEDULE_DELAY_P99_S
        return sum(self._arrivals.get_nowait() < due for _ in range(self._arrivals.qsize()))

    def _report(self) -> dict[str, Any]:
        sequence, entries = self.worker.drain()
        return {
            "sequence": sequence,
            "entries": entries,
            "sessions": self.worker.sessions,
            "speaking": self.worker.speaking,
        }

    def _send(self, message: str, content: dict[str, Any]) -> None:
        self._runner.send_message(message, content)
