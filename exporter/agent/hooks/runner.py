"""OpenTalking's runners: the beginning and end of a speech, its chunks, its way to WebRTC.

What comes in: calls of their methods. What goes out: notes on the speech, and at its end its
record. It must not know providers, media or the bus.

Every model that OpenTalking 0.1 ships, on every backend, runs in `FlashTalkRunner`. `SessionRunner`
is reached by a third party's adapter alone, registered under a listed model whose backend is
`local`; it has neither `speech.timing` nor uploaded audio.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import Any, Final

from exporter import stages
from exporter.agent.hooks.live import Live, live_speech, note, note_failure
from exporter.agent.hooks.setting import Hook, Watch
from exporter.agent.hooks.tasks import asked_for
from exporter.agent.speech import Speech

FLASHTALK_RUNNER: Final = "opentalking.pipeline.speak.synthesis_runner"
SESSION_RUNNER: Final = "opentalking.pipeline.session.runner"


def _speaking(original: Any, watch: Watch) -> Any:
    """`speak` and its like: the whole of a speech."""

    @functools.wraps(original)
    async def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        begun: list[Live] = []
        watch.guard("speech begins", _begin, begun, self, named)
        token = live_speech.set(begun[0] if begun else None)
        error: BaseException | None = None
        try:
            return await original(self, *arguments, **named)
        except BaseException as caught:
            error = caught
            raise
        finally:
            live_speech.reset(token)
            if begun:
                watch.guard("speech ends", _end, begun[0], error, watch)

    return wrapper


def _begin(begun: list[Live], runner: Any, named: dict[str, Any]) -> None:
    enqueued = named.get("enqueue_unix")
    speech = Speech(
        str(runner.session_id), None if enqueued is None else float(enqueued), asked_for.get()
    )
    begun.append(Live(speech, runner, time.perf_counter()))


def _end(live: Live, error: BaseException | None, watch: Watch) -> None:
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
        live = live_speech.get()
        if live is not None:
            watch.guard("speech enters", live.enter)
        token = live_speech.set(None)
        try:
            return await original(*arguments, **named)
        finally:
            live_speech.reset(token)

    return wrapper


def _rendering(original: Any, watch: Watch) -> Any:
    """`_generate_flashtalk_frames` and its like: one chunk of the synthesis backend."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        requested = time.perf_counter()
        note(watch, stages.AVATAR_REQUESTED, requested)
        try:
            frames = await original(*arguments, **named)
        except Exception as error:
            note_failure(watch, "AVATAR_FAILED", error)
            raise
        live, returned = live_speech.get(), time.perf_counter()
        if live is not None:
            watch.guard("chunk", live.speech.chunk, requested, returned)
        return frames

    return wrapper


def _queueing(original: Any, watch: Watch) -> Any:
    """`_queue_av_chunk` and its like: frames go to WebRTC."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        note(watch, stages.MEDIA_QUEUED, time.perf_counter())
        return await original(*arguments, **named)

    return wrapper


_THIRD_PARTY: Final = "of adapters by third parties"
_CHUNKS: Final = (
    f"{stages.AVATAR_REQUESTED}, {stages.AVATAR_FIRST_FRAME} and the time of each chunk"
)
_QUEUED: Final = f"{stages.MEDIA_QUEUED} and the RTP timestamps of each speech's beginning"

HOOKS: Final = (
    Hook(
        FLASHTALK_RUNNER,
        "FlashTalkRunner.speak",
        ("text", "enqueue_unix"),
        inspect.iscoroutinefunction,
        _speaking,
        "every mark of spoken answers",
    ),
    Hook(
        FLASHTALK_RUNNER,
        "FlashTalkRunner.speak_uploaded_pcm",
        ("pcm", "enqueue_unix"),
        inspect.iscoroutinefunction,
        _speaking,
        "every mark of uploaded audio",
    ),
    Hook(
        FLASHTALK_RUNNER,
        "FlashTalkRunner._select_tts_opener",
        (),
        inspect.iscoroutinefunction,
        _opening,
        f"{stages.SPEAK_ENTERED} before the request to the language model",
    ),
    Hook(
        FLASHTALK_RUNNER,
        "FlashTalkRunner._generate_flashtalk_frames",
        ("pcm_chunk",),
        inspect.iscoroutinefunction,
        _rendering,
        _CHUNKS,
    ),
    Hook(
        FLASHTALK_RUNNER,
        "FlashTalkRunner._queue_av_chunk",
        ("pcm_chunk", "frames"),
        inspect.iscoroutinefunction,
        _queueing,
        _QUEUED,
    ),
    Hook(
        SESSION_RUNNER,
        "SessionRunner.chat",
        ("prompt", "enqueue_unix"),
        inspect.iscoroutinefunction,
        _speaking,
        f"every mark of answers {_THIRD_PARTY}",
    ),
    Hook(
        SESSION_RUNNER,
        "SessionRunner._render_chunk_frames",
        ("chunk",),
        inspect.iscoroutinefunction,
        _rendering,
        f"{_CHUNKS} {_THIRD_PARTY}",
    ),
    Hook(
        SESSION_RUNNER,
        "SessionRunner._video_sink",
        ("frame",),
        inspect.iscoroutinefunction,
        _queueing,
        f"{_QUEUED} {_THIRD_PARTY}",
    ),
)
