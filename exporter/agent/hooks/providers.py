"""The providers of a speech: the language model's stream and the voice's.

What comes in: calls of OpenTalking's clients. What goes out: notes on the speech. It must not
know runners.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from exporter import stages
from exporter.agent.hooks.live import live_speech, note
from exporter.agent.hooks.runner import FLASHTALK_RUNNER, SESSION_RUNNER
from exporter.agent.hooks.setting import Hook, Watch


class _WatchedStream:
    """An asynchronous generator, seen: each item and each failure is told before it is passed."""

    def __init__(
        self, inner: Any, seen: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        self._inner = inner
        self._seen = seen
        self._failed = failed

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._failed(error)
            raise
        self._seen(item)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _watched(inner: Any, watch: Watch, *, first: str, failure: str, has: Any) -> Any:
    """A stream whose first item that `has` content is noted as `first`."""
    live = live_speech.get()
    if live is None or not hasattr(inner, "__anext__"):
        return inner

    def seen(item: Any) -> None:
        now = time.perf_counter()
        if not live.speech.has(first) and has(item):
            live.speech.mark(first, now)

    return _WatchedStream(
        inner,
        lambda item: watch.guard(first, seen, item),
        lambda error: watch.guard(failure, live.speech.failed, failure, error),
    )


def _answering(original: Any, watch: Watch) -> Any:
    """`chat_stream` of the language model's client."""
    from_runner = importlib.import_module(FLASHTALK_RUNNER)
    # OpenTalking counts a token from when it is not blank without its emoji.
    strip: Callable[[str], str] = getattr(from_runner, "strip_emoji", str)

    @functools.wraps(original)
    def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        note(watch, stages.LLM_REQUESTED, time.perf_counter())
        watch.guard("the model's name", _name_model, self)
        return _watched(
            original(self, *arguments, **named),
            watch,
            first=stages.LLM_FIRST_TOKEN,
            failure="LLM_FAILED",
            has=lambda text: strip(text).strip(),
        )

    return wrapper


def _name_model(client: Any) -> None:
    live = live_speech.get()
    if live is not None:
        live.speech.llm_model = str(client.model) or None


def _voicing(original: Any, watch: Watch) -> Any:
    """`create_tts_adapter`: the adapter it makes tells of its sentences."""

    @functools.wraps(original)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        adapter = original(*arguments, **named)
        if live_speech.get() is not None:
            watch.guard("speech synthesis", _watch_adapter, adapter, watch)
        return adapter

    return wrapper


def _watch_adapter(adapter: Any, watch: Watch) -> None:
    synthesize = adapter.synthesize_stream

    @functools.wraps(synthesize)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        note(watch, stages.TTS_REQUESTED, time.perf_counter())
        return _watched(
            synthesize(*arguments, **named),
            watch,
            first=stages.TTS_FIRST_PCM,
            failure="TTS_FAILED",
            has=lambda chunk: len(chunk.data),
        )

    adapter.synthesize_stream = wrapper


_VOICE: Final = f"{stages.TTS_REQUESTED} and {stages.TTS_FIRST_PCM}"

HOOKS: Final = (
    Hook(
        "opentalking.providers.llm.openai_compatible.adapter",
        "OpenAICompatibleLLMClient.chat_stream",
        ("messages",),
        inspect.isasyncgenfunction,
        _answering,
        f"{stages.LLM_REQUESTED} and {stages.LLM_FIRST_TOKEN}",
    ),
    Hook(FLASHTALK_RUNNER, "create_tts_adapter", ("sample_rate",), callable, _voicing, _VOICE),
    Hook(
        SESSION_RUNNER,
        "build_tts_adapter",
        ("sample_rate",),
        callable,
        _voicing,
        f"{_VOICE} of adapters by third parties",
    ),
)
