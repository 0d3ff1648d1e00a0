"""One file for each way of seeing a deployment.

A source yields observations (`exporter.observations`) through the callback it is given, reports
its own health, and knows nothing of Prometheus, OpenTelemetry or turns. It never raises out of
`run`: what it cannot read is its health's reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from exporter.health import SourceHealth
from exporter.observations import Observation

Emit = Callable[[Observation], None]
"""Takes one observation, at once and without blocking."""


class SourceTask(Protocol):
    """What the service runs: until cancelled, observations go to the callback."""

    health: SourceHealth

    async def run(self, emit: Emit) -> None:
        """Read for ever. Cancellation is the only way out."""
        ...
