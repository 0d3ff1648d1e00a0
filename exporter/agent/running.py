"""The agent of this process: settings and its role in, hooks set and a courier at work.

There is one at most, whichever way it was started: `python -m exporter.agent` and
`opentelemetry-instrument` may meet.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from exporter.agent.courier import Courier
from exporter.agent.guard import Guard
from exporter.agent.hooks import HOOKS, Hooks, Watch
from exporter.agent.process import Lag, Levels, LoopProbe, read
from exporter.agent.settings import Settings
from exporter.stages import ProcessRole

FLUSH_S: Final = 2.0
"""How long the end of the process may wait for what is still to be sent."""

SCRIPTS: Final[Mapping[str, ProcessRole]] = MappingProxyType(
    {
        "opentalking-unified": ProcessRole.UNIFIED,
        "opentalking-worker": ProcessRole.WORKER,
        "opentalking-api": ProcessRole.API,
    }
)
"""OpenTalking's console scripts, and what each runs."""
_MODULES: Final = {
    "apps.unified.main": ProcessRole.UNIFIED,
    "opentalking.runtime.main": ProcessRole.WORKER,
    "opentalking.runtime.server": ProcessRole.WORKER,
    "apps.api.main": ProcessRole.API,
}


def role_of(command: Sequence[str]) -> ProcessRole | None:
    """What a command line runs: a console script, a module, or uvicorn with a factory's name."""
    for argument in command:
        script, module = PurePath(argument).name, argument.split(":")[0]
        role = SCRIPTS.get(script) or _MODULES.get(module)
        if role is not None:
            return role
    return None


class Agent:
    """Hooks, probe and courier, working together."""

    def __init__(self, settings: Settings, role: ProcessRole) -> None:
        self.role = role
        self.guard = Guard()
        self.courier = Courier(settings, self.guard)
        self.hooks = Hooks()
        self.levels = Levels()
        self._probe = LoopProbe(lambda lag: self.guard("reading the process", self._report, lag))

    def start(self) -> None:
        """Set the hooks, which imports OpenTalking, and begin to send."""
        watch = Watch(self.courier.take, self.guard, self.levels, self._probe.start, self.flush)
        self.hooks.set(HOOKS[self.role], watch)
        self.courier.start()
        atexit.register(self.stop)

    def flush(self) -> None:
        """Send what there is, and nothing afterwards: the server has stopped."""
        self._probe.stop()
        self.courier.close(FLUSH_S)

    def stop(self) -> None:
        """Take the hooks away and send what there is."""
        atexit.unregister(self.stop)
        self.hooks.remove()
        self.flush()

    def _report(self, lag: Lag | None) -> None:
        self.courier.take(read(self.role, self.levels, lag, self._losses))

    def _losses(self) -> Mapping[str, int]:
        delivery = self.courier.delivery
        return {
            "dropped": delivery.dropped,
            "refused": delivery.refused,
            "failures": sum(self.guard.faults.values()),
        }


_lock = threading.Lock()
_agent: Agent | None = None


def start(settings: Settings, role: ProcessRole) -> Agent:
    """Start the process's agent, or return the one that runs."""
    global _agent
    with _lock:
        if _agent is None:
            _agent = Agent(settings, role)
            _agent.start()
        return _agent


def stop() -> None:
    """Stop the process's agent, if there is one."""
    global _agent
    with _lock:
        if _agent is not None:
            _agent.stop()
            _agent = None
