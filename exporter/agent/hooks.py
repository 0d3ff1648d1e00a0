"""The hooks in OpenTalking 0.1 and aiortc: which method is wrapped, and what each wrapper notes.

What comes in: a `Watch` to note things with. What goes out: wrapped methods, and the hooks that
could not be set because OpenTalking or aiortc is not of the shape they were written for. Those
two are untyped here: `Any` stays inside this module.

A wrapper calls the original with what it got, returns or raises what that does, and notes an
instant before or after through the guard. The speech that a call belongs to is found in a
context variable that `speak` sets: asyncio hands it on to the tasks that work for the speech.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from exporter import stages
from exporter.agent.courier import Item
from exporter.agent.events import PublishedEvent
from exporter.agent.guard import Guard
from exporter.agent.speech import MediaKind, Speech

log = logging.getLogger("talkscope.agent")

_RUNNER: Final = "opentalking.pipeline.speak.synthesis_runner"
_ENTERED: Final = "_speak_t0_wall"
_MILESTONES: Final = "_speak_milestones"
_SENT_TIMESTAMP: Final = "_RTCRtpSender__rtp_timestamp"
_SENDING_STATE: Final = "_talkscope_sending"


@dataclass(frozen=True, slots=True)
class Watch:
    """What the wrappers need: somebody who takes items, and the guard."""

    take: Callable[[Item], None]
    guard: Guard


@dataclass(slots=True)
class _Live:
    """A speech while its runner works on it."""

    speech: Speech
    runner: Any
    called: float
    milestones: Any = None

    def enter(self) -> None:
        """Take over when OpenTalking itself says that it began, as its own figures do."""
        if self.speech.entered is not None:
            return
        began = getattr(self.runner, _ENTERED, None)
        self.speech.enter(self.called if began is None else float(began))
        self.milestones = getattr(self.runner, _MILESTONES, None)


@dataclass(slots=True)
class _Sending:
    """One RTP sender: the speech whose first frame or sample it is about to send."""

    kind: MediaKind
    carries: Speech | None = None
    encoded: bool = False


_live: ContextVar[_Live | None] = ContextVar("talkscope_live", default=None)
_sending: ContextVar[_Sending | None] = ContextVar("talkscope_sending", default=None)


def _note(watch: Watch, mark: str, at: float) -> None:
    live = _live.get()
    if live is not None:
        watch.guard(mark, _mark, live, mark, at)


def _mark(live: _Live, mark: str, at: float) -> None:
    live.enter()
    live.speech.mark(mark, at)


# --- the runner ----------------------------------------------------------------------------


def _speaking(original: Any, watch: Watch) -> Any:
    """`speak` and `speak_uploaded_pcm`: the whole of a speech."""

    @functools.wraps(original)
    async def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        live: list[_Live] = []
        watch.guard("speech begins", _begin, live, self, named)
        token = _live.set(live[0] if live else None)
        error: BaseException | None = None
        try:
            return await original(self, *arguments, **named)
        except BaseException as caught:
            error = caught
            raise
        finally:
            _live.reset(token)
            if live:
                watch.guard("speech ends", _end, live[0], error, watch)

    return wrapper


def _begin(live: list[_Live], runner: Any, named: dict[str, Any]) -> None:
    enqueued = named.get("enqueue_unix")
    speech = Speech(str(runner.session_id), None if enqueued is None else float(enqueued))
    live.append(_Live(speech, runner, time.perf_counter()))


def _end(live: _Live, error: BaseException | None, watch: Watch) -> None:
    now, speech = time.perf_counter(), live.speech
    interrupted = bool(live.runner._interrupt.is_set())
    if error is not None and not isinstance(error, Exception):
        # asyncio.CancelledError: how OpenTalking interrupts.
        interrupted = True
    elif error is not None:
        speech.failed("SPEAK_FAILED", error)
    generated = None
    if error is None and not interrupted:
        # What follows generation (events, memory) belongs to the call but not to the stage.
        told = live.milestones.get("speak_wall_ms") if live.milestones is not None else None
        entered = speech.entered
        generated = now if told is None or entered is None else entered + float(told) / 1000.0
    speech.end(generated=generated, interrupted=interrupted, raised=error is not None)
    if speech.entered is not None:
        watch.take(speech)


def _opening(original: Any, watch: Watch) -> Any:
    """`_select_tts_opener`: its canned greeting is not the answer's first sentence."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        live = _live.get()
        if live is not None:
            watch.guard("speech enters", live.enter)
        token = _live.set(None)
        try:
            return await original(*arguments, **named)
        finally:
            _live.reset(token)

    return wrapper


def _rendering(original: Any, watch: Watch) -> Any:
    """`_generate_flashtalk_frames`: one chunk of the synthesis backend."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        requested = time.perf_counter()
        _note(watch, stages.AVATAR_REQUESTED, requested)
        try:
            frames = await original(*arguments, **named)
        except Exception as error:
            _note_failure(watch, "AVATAR_FAILED", error)
            raise
        live, returned = _live.get(), time.perf_counter()
        if live is not None:
            watch.guard("chunk", live.speech.chunk, requested, returned)
        return frames

    return wrapper


def _queueing(original: Any, watch: Watch) -> Any:
    """`_queue_av_chunk`: frames and audio of one chunk go to WebRTC."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        _note(watch, stages.MEDIA_QUEUED, time.perf_counter())
        return await original(*arguments, **named)

    return wrapper


def _note_failure(watch: Watch, code: str, error: BaseException) -> None:
    live = _live.get()
    if live is not None:
        watch.guard(code, live.speech.failed, code, error)


# --- providers -----------------------------------------------------------------------------


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
    live = _live.get()
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
    from_runner = importlib.import_module(_RUNNER)
    # OpenTalking counts a token from when it is not blank without its emoji.
    strip: Callable[[str], str] = getattr(from_runner, "strip_emoji", str)

    @functools.wraps(original)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        _note(watch, stages.LLM_REQUESTED, time.perf_counter())
        return _watched(
            original(*arguments, **named),
            watch,
            first=stages.LLM_FIRST_TOKEN,
            failure="LLM_FAILED",
            has=lambda text: strip(text).strip(),
        )

    return wrapper


def _voicing(original: Any, watch: Watch) -> Any:
    """`create_tts_adapter`: the adapter it makes tells of its sentences."""

    @functools.wraps(original)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        adapter = original(*arguments, **named)
        if _live.get() is not None:
            watch.guard("speech synthesis", _watch_adapter, adapter, watch)
        return adapter

    return wrapper


def _watch_adapter(adapter: Any, watch: Watch) -> None:
    synthesize = adapter.synthesize_stream

    @functools.wraps(synthesize)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        _note(watch, stages.TTS_REQUESTED, time.perf_counter())
        return _watched(
            synthesize(*arguments, **named),
            watch,
            first=stages.TTS_FIRST_PCM,
            failure="TTS_FAILED",
            has=lambda chunk: len(chunk.data),
        )

    adapter.synthesize_stream = wrapper


# --- media ---------------------------------------------------------------------------------


def _connecting(original: Any, watch: Watch) -> Any:
    """`WebRTCSession.__init__`: its two queues tell what is put into and taken out of them."""

    @functools.wraps(original)
    def wrapper(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        watch.guard("video queue", _watch_queue, self.video._queue, "video", watch)
        watch.guard("audio queue", _watch_queue, self.audio._queue, "audio", watch)

    return wrapper


def _watch_queue(queue: Any, kind: MediaKind, watch: Watch) -> None:
    """Follow the first item that a speech puts in until its sender takes it out.

    asyncio.Queue's `put` and `get` end in the methods that are replaced here.
    """
    put, get = queue.put_nowait, queue.get_nowait
    followed: list[tuple[Speech, Any]] = []

    def has_come(item: Any) -> None:
        live = _live.get()
        if live is not None and item is not None and live.speech.expect(kind):
            followed[:] = [(live.speech, item)]

    def has_gone(item: Any) -> None:
        sending = _sending.get()
        # Whoever else takes an item out throws it away.
        if sending is not None and followed and item is followed[0][1]:
            sending.carries, sending.encoded = followed[0][0], False
            followed.clear()

    def put_nowait(item: Any) -> None:
        put(item)
        watch.guard("media put", has_come, item)

    def get_nowait() -> Any:
        item = get()
        watch.guard("media taken", has_gone, item)
        return item

    queue.put_nowait, queue.get_nowait = put_nowait, get_nowait


def _encoding(original: Any, watch: Watch) -> Any:
    """`_next_encoded_frame` of aiortc's sender.

    The sender calls it again as soon as the packets of the frame before have left, and says then
    which RTP timestamp they bore. The encoder may hold sound back: what counts is the first
    packet that leaves once the speech's first samples are with the encoder.
    """

    @functools.wraps(original)
    async def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        watch.guard("media sent", _has_sent, self)
        token = _sending.set(getattr(self, _SENDING_STATE, None))
        try:
            frame = await original(self, *arguments, **named)
        finally:
            _sending.reset(token)
        watch.guard("media encoded", _has_encoded, self, frame)
        return frame

    return wrapper


def _has_sent(sender: Any) -> None:
    state: _Sending | None = getattr(sender, _SENDING_STATE, None)
    if state is None:
        setattr(sender, _SENDING_STATE, _Sending(sender.kind))
    elif state.carries is not None and state.encoded:
        state.carries.sent(state.kind, getattr(sender, _SENT_TIMESTAMP))
        state.carries = None


def _has_encoded(sender: Any, frame: Any) -> None:
    state: _Sending = getattr(sender, _SENDING_STATE)
    if frame is not None and frame.payloads:
        state.encoded = True


# --- the bus -------------------------------------------------------------------------------


def _publishing(original: Any, watch: Watch) -> Any:
    """`publish` of unified mode's bus."""
    keys = importlib.import_module("opentalking.core.redis_keys")
    prefix = str(keys.events_channel(""))

    @functools.wraps(original)
    async def wrapper(self: Any, channel: str, message: str) -> Any:
        watch.guard("event", _relay, channel, message, prefix, watch)
        return await original(self, channel, message)

    return wrapper


def _relay(channel: str, message: str, prefix: str, watch: Watch) -> None:
    if channel.startswith(prefix):
        watch.take(PublishedEvent(channel.removeprefix(prefix), time.time(), message))


# --- setting them --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hook:
    """One method to wrap, the shape it must have, and what cannot be told without it."""

    module: str
    path: str
    parameters: tuple[str, ...]
    check: Callable[[Any], bool]
    wrap: Callable[[Any, Watch], Any]
    loses: str

    @property
    def place(self) -> str:
        """The name for people."""
        return f"{self.module}.{self.path}"


@dataclass(slots=True)
class Hooks:
    """The hooks that have been set, and what each of the others would have told."""

    missing: dict[str, str] = field(default_factory=dict)
    _originals: list[tuple[Any, str, Any]] = field(default_factory=list)

    def set(self, hooks: Sequence[Hook], watch: Watch) -> None:
        """Set each hook whose target is there; one line says what the others cost."""
        for hook in hooks:
            try:
                self._set(hook, watch)
            except Exception as error:
                self.missing[hook.place] = hook.loses
                log.warning(
                    "talkscope agent: %s is not as expected (%s): missing from now on: %s",
                    hook.place,
                    error,
                    hook.loses,
                )

    def _set(self, hook: Hook, watch: Watch) -> None:
        owner: Any = importlib.import_module(hook.module)
        *owners, name = hook.path.split(".")
        for step in owners:
            owner = getattr(owner, step)
        original = getattr(owner, name)
        signature = inspect.signature(original).parameters
        lacking = [p for p in hook.parameters if p not in signature]
        if lacking:
            raise TypeError(f"it has no parameter {', '.join(lacking)}")
        if not hook.check(original):
            raise TypeError("it works in another way")
        setattr(owner, name, hook.wrap(original, watch))
        self._originals.append((owner, name, original))

    def remove(self) -> None:
        """Put everything back as it was."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)


def _names_sent_timestamp(original: Any) -> bool:
    """Whether the sender still keeps the timestamp it sent last where `_has_sent` reads it."""
    sender = importlib.import_module(original.__module__).RTCRtpSender
    return (
        inspect.iscoroutinefunction(original)
        and _SENT_TIMESTAMP in sender._run_rtp.__code__.co_names
    )


_RTP: Final = "RTP timestamps of each speech's first talking frame and first audio sample"

HOOKS: Final = (
    Hook(
        _RUNNER,
        "FlashTalkRunner.speak",
        ("text", "enqueue_unix"),
        inspect.iscoroutinefunction,
        _speaking,
        "every mark of spoken answers",
    ),
    Hook(
        _RUNNER,
        "FlashTalkRunner.speak_uploaded_pcm",
        ("pcm", "enqueue_unix"),
        inspect.iscoroutinefunction,
        _speaking,
        "every mark of uploaded audio",
    ),
    Hook(
        _RUNNER,
        "FlashTalkRunner._select_tts_opener",
        (),
        inspect.iscoroutinefunction,
        _opening,
        f"{stages.SPEAK_ENTERED} before the request to the language model",
    ),
    Hook(
        _RUNNER,
        "FlashTalkRunner._generate_flashtalk_frames",
        ("pcm_chunk",),
        inspect.iscoroutinefunction,
        _rendering,
        f"{stages.AVATAR_REQUESTED}, {stages.AVATAR_FIRST_FRAME} and the time of each chunk",
    ),
    Hook(
        _RUNNER,
        "FlashTalkRunner._queue_av_chunk",
        ("pcm_chunk", "frames"),
        inspect.iscoroutinefunction,
        _queueing,
        f"{stages.MEDIA_QUEUED} and {_RTP}",
    ),
    Hook(
        "opentalking.providers.llm.openai_compatible.adapter",
        "OpenAICompatibleLLMClient.chat_stream",
        ("messages",),
        inspect.isasyncgenfunction,
        _answering,
        f"{stages.LLM_REQUESTED} and {stages.LLM_FIRST_TOKEN}",
    ),
    Hook(
        _RUNNER,
        "create_tts_adapter",
        ("sample_rate",),
        callable,
        _voicing,
        f"{stages.TTS_REQUESTED} and {stages.TTS_FIRST_PCM}",
    ),
    Hook(
        "opentalking.providers.rtc.aiortc.adapter",
        "WebRTCSession.__init__",
        (),
        callable,
        _connecting,
        _RTP,
    ),
    Hook(
        "aiortc.rtcrtpsender",
        "RTCRtpSender._next_encoded_frame",
        ("codec",),
        _names_sent_timestamp,
        _encoding,
        _RTP,
    ),
    Hook(
        "opentalking.core.in_memory_redis",
        "InMemoryRedis.publish",
        ("channel", "message"),
        inspect.iscoroutinefunction,
        _publishing,
        "the events of unified mode",
    ),
)
