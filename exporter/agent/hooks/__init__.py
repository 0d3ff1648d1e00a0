"""The hooks in OpenTalking 0.1, uvicorn and aiortc: which method is wrapped, in which process.

What comes in: a `Watch` to note things with. What goes out: wrapped methods. One module for each
part of OpenTalking; `setting.py` sets what they list. What is wrapped is untyped here: `Any` stays
inside this package.

A wrapper calls the original with what it got, returns or raises what that does, and notes an
instant before or after through the guard. Only a speak task is changed on its way, by one field
(`tasks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from exporter.agent.hooks import (
    backend,
    bus,
    media,
    providers,
    requests,
    runner,
    server,
    tasks,
)
from exporter.agent.hooks.setting import Hook, Hooks, Watch
from exporter.stages import ProcessRole

__all__ = ["HOOKS", "Hook", "Hooks", "Watch"]

_PIPELINE: Final = (
    *runner.HOOKS,
    *providers.HOOKS,
    *media.HOOKS,
    *backend.HOOKS,
    *tasks.HOOKS,
    *server.HOOKS,
)

HOOKS: Final[Mapping[ProcessRole, tuple[Hook, ...]]] = {
    ProcessRole.UNIFIED: (*_PIPELINE, *requests.HOOKS, *bus.HOOKS),
    ProcessRole.WORKER: _PIPELINE,
    ProcessRole.API: (*requests.HOOKS, *server.HOOKS),
}
