"""The synthesis backends behind a WebSocket (OmniRT, FlashHead): how many chunks they owe.

What comes in: calls of the clients, by speeches and by idle clips alike. What goes out: the
process's backlog. OmniRT itself exposes none: all its chunks pass one lock, uncounted.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

from exporter.agent.hooks.setting import Hook, Watch


def _generating(original: Any, watch: Watch) -> Any:
    """`generate`: one chunk of audio to the backend, its frames back."""
    levels = watch.levels

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        watch.guard("backlog", levels.chunk_requested)
        try:
            return await original(*arguments, **named)
        finally:
            watch.guard("backlog", levels.chunk_returned)

    return wrapper


HOOKS: Final = (
    Hook(
        "opentalking.providers.synthesis.flashtalk.ws_client",
        "FlashTalkWSClient.generate",
        ("audio_pcm",),
        inspect.iscoroutinefunction,
        _generating,
        "the backlog of OmniRT's realtime stream",
    ),
    Hook(
        "opentalking.providers.synthesis.flashhead.ws_client",
        "FlashHeadWSClient.generate",
        ("audio_pcm",),
        inspect.iscoroutinefunction,
        _generating,
        "the backlog of FlashHead's realtime stream",
    ),
)
