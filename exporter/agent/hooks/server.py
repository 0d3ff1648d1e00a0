"""The HTTP server that each of OpenTalking's processes runs in: its start and its end.

What comes in: uvicorn's calls. What goes out: the word that it serves, with its event loop, and
the word that it has stopped. It must not know OpenTalking.

The end matters: having shut down after SIGTERM, uvicorn raises the signal again with its default
action, so the process dies of it without `atexit`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, Final

from exporter.agent.hooks.setting import Hook, Watch


def _starting(original: Any, watch: Watch) -> Any:
    """`startup`."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        watch.guard("server starts", lambda: watch.serving(asyncio.get_running_loop()))
        return result

    return wrapper


def _stopping(original: Any, watch: Watch) -> Any:
    """`shutdown`, which ends OpenTalking's sessions."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        try:
            return await original(*arguments, **named)
        finally:
            watch.guard("server stops", watch.served)

    return wrapper


HOOKS: Final = (
    Hook(
        "uvicorn.server",
        "Server.startup",
        (),
        inspect.iscoroutinefunction,
        _starting,
        "the state of the process",
    ),
    Hook(
        "uvicorn.server",
        "Server.shutdown",
        (),
        inspect.iscoroutinefunction,
        _stopping,
        "what a process that is stopped by SIGTERM has not sent yet",
    ),
)
