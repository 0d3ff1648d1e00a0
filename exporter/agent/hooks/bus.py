"""The bus of unified mode: published messages in, `event` items out.

It must not know what an event means.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, Final

from exporter import steady_clock
from exporter.agent.events import PublishedEvent
from exporter.agent.hooks.setting import Hook, Watch


def _publishing(original: Any, watch: Watch) -> Any:
    """`publish`."""
    keys = importlib.import_module("opentalking.core.redis_keys")
    prefix = str(keys.events_channel(""))

    @functools.wraps(original)
    async def wrapper(self: Any, channel: str, message: str) -> Any:
        watch.guard("event", _relay, channel, message, prefix, watch)
        return await original(self, channel, message)

    return wrapper


def _relay(channel: str, message: str, prefix: str, watch: Watch) -> None:
    if channel.startswith(prefix):
        watch.take(PublishedEvent(channel.removeprefix(prefix), steady_clock.now(), message))


HOOKS: Final = (
    Hook(
        "opentalking.core.in_memory_redis",
        "InMemoryRedis.publish",
        ("channel", "message"),
        inspect.iscoroutinefunction,
        _publishing,
        "the events of unified mode",
    ),
)
