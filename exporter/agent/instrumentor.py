"""The agent as an OpenTelemetry instrumentor: for `opentelemetry-instrument opentalking-unified`.

What comes in: OpenTelemetry's wish to instrument. What goes out: the same agent that
`python -m exporter.agent` starts. Without the package `opentelemetry-instrumentation` the class
is there all the same, with nobody to call it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

from exporter.agent import running
from exporter.agent.settings import SettingsError, from_environment

log = logging.getLogger("talkscope.agent")


def _base() -> Any:
    try:
        return import_module("opentelemetry.instrumentation.instrumentor").BaseInstrumentor
    except ImportError:
        return object


_Base: Any = _base()


class TalkscopeInstrumentor(_Base):  # type: ignore[misc]
    """Starts and stops the process's agent."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """OpenTelemetry calls the instrumentor where this is installed."""
        return ["opentalking >= 0.1, < 0.2"]

    def _instrument(self, **_: Any) -> None:
        # OpenTelemetry calls while the interpreter starts, before `sys.argv` is the script's own.
        role = running.role_of(sys.orig_argv)
        if role is None:
            log.debug("talkscope agent: not started: this is none of OpenTalking's processes")
            return
        try:
            running.start(from_environment(os.environ), role)
        except SettingsError as error:
            log.warning("talkscope agent: not started: %s", error)

    def _uninstrument(self, **_: Any) -> None:
        running.stop()
