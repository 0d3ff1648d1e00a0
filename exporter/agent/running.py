"""The agent of this process: settings in, hooks set and a courier at work.

There is one at most, whichever way it was started: `python -m exporter.agent` and
`opentelemetry-instrument` may meet.
"""

from __future__ import annotations

import atexit
import threading
from typing import Final

from exporter.agent.courier import Courier
from exporter.agent.guard import Guard
from exporter.agent.hooks import HOOKS, Hooks, Watch
from exporter.agent.settings import Settings

FLUSH_S: Final = 2.0
"""How long the end of the process may wait for what is still to be sent."""


class Agent:
    """Hooks and courier, working together."""

    def __init__(self, settings: Settings) -> None:
        self.guard = Guard()
        self.courier = Courier(settings, self.guard)
        self.hooks = Hooks()

    def start(self) -> None:
        """Set the hooks, which imports OpenTalking, and begin to send."""
        self.hooks.set(HOOKS, Watch(self.courier.take, self.guard))
        self.courier.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Take the hooks away and send what there is."""
        atexit.unregister(self.stop)
        self.hooks.remove()
        self.courier.close(FLUSH_S)


_lock = threading.Lock()
_agent: Agent | None = None


def start(settings: Settings) -> Agent:
    """Start the process's agent, or return the one that runs."""
    global _agent
    with _lock:
        if _agent is None:
            _agent = Agent(settings)
            _agent.start()
        return _agent


def stop() -> None:
    """Stop the process's agent, if there is one."""
    global _agent
    with _lock:
        if _agent is not None:
            _agent.stop()
            _agent = None
