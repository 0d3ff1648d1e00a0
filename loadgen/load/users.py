"""Locust's users: each lives visits, one after the other.

Closed model: a user comes back after the scenario's pause. Open model: a user is a place, taken
by the next arrival.
"""

from __future__ import annotations

from typing import ClassVar, Final

import gevent
from gevent.event import AsyncResult
from locust import User, task

from loadgen.load.worker_node import WorkerNode

_PATIENCE_S: Final = 0.5
"""How long a place waits for an arrival before it looks whether Locust wants it to stop."""


class Viewer(User):
    """Somebody who talks to an avatar."""

    joined: ClassVar[AsyncResult] = AsyncResult()
    """This process's `WorkerNode`. Locust may start users before the process has one."""

    node: WorkerNode
    _pause = 0.0

    def on_start(self) -> None:
        """Wait until this process is warm; then not all of a second's users at once."""
        self.node = self.joined.get()
        self.node.worker.ready.wait()
        if not self.node.open_model:
            gevent.sleep(self.node.worker.stagger())

    def wait_time(self) -> float:
        """Seconds until the next visit."""
        return self._pause

    @task
    def visit(self) -> None:
        """One visit, from the arrival to the deletion of its session."""
        intended = None
        if self.node.open_model:
            intended = self.node.next_arrival(_PATIENCE_S)
            if intended is None:
                return
        scenario = self.node.worker.next_scenario()
        self.node.worker.visit(scenario, intended)
        self._pause = 0.0 if self.node.open_model else self.node.worker.pause(scenario)
