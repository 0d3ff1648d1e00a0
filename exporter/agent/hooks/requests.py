"""The API's requests: what they say of the session or the speech that they ask for.

What comes in: HTTP and WebSocket requests as the application is given them, and the calls made
for them. What goes out: created sessions, and one field more in a speak task, which carries a
request's trace context and its speech recognition to the pipeline (`tasks.py`), in another process
or in this. It must not know the pipeline.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from exporter import stages, steady_clock
from exporter.agent.asked import Asked, traceparent_of
from exporter.agent.hooks.setting import Hook, Watch
from exporter.agent.hooks.tasks import FIELD
from exporter.agent.session import SessionCreated
from exporter.agent.transcripts import Transcripts

_SPEAKING: Final = frozenset({"speak", "speak_flashtalk_audio"})
"""Commands of the tasks that start a speech."""


@dataclass(slots=True)
class _Request:
    """One request while the application works on it."""

    path: tuple[str, ...]
    traceparent: str | None
    began_unix: float
    began: float
    heard: dict[str, float] = field(default_factory=dict)
    """Marks of its speech recognition."""
    created: tuple[str, str | None, str | None] | None = None
    """The session that was created for it, with its model and avatar."""
    answered: float | None = None
    """When its answer, if it was no error, was sent whole."""

    @property
    def only_transcribes(self) -> bool:
        """Whether the client itself may ask for the speech afterwards."""
        return len(self.path) >= 2 and self.path[-1] == "transcribe"


_request: ContextVar[_Request | None] = ContextVar("talkscope_request", default=None)


def _serving(original: Any, watch: Watch) -> Any:
    """`FastAPI.__call__`: the whole of a request, around whatever the application does."""

    @functools.wraps(original)
    async def wrapper(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        begun: list[_Request] = []
        watch.guard("request begins", _begin, scope, begun)
        if not begun:
            return await original(self, scope, receive, send)
        request = begun[0]
        sending = send
        if request.path[-1:] == ("sessions",):
            sending = _answering(send, request, watch)
        token = _request.set(request)
        try:
            return await original(self, scope, receive, sending)
        finally:
            _request.reset(token)
            watch.guard("request ends", _end, request, watch)

    return wrapper


def _begin(scope: Mapping[str, Any], begun: list[_Request]) -> None:
    if scope["type"] not in ("http", "websocket"):
        return
    found = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    path = tuple(scope["path"].strip("/").split("/"))
    traceparent = traceparent_of(found.decode("latin-1"))
    begun.append(_Request(path, traceparent, steady_clock.now(), time.perf_counter()))


def _answering(send: Any, request: _Request, watch: Watch) -> Any:
    """A `send` that notes when the answer is out."""
    good: list[bool] = []

    def sent(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            good.append(message["status"] < 400)
        elif message["type"] == "http.response.body" and not message.get("more_body") and all(good):
            request.answered = time.perf_counter()

    async def wrapper(message: Any) -> None:
        await send(message)
        watch.guard("answer", sent, message)

    return wrapper


def _end(request: _Request, watch: Watch) -> None:
    if request.created is not None and request.answered is not None:
        session, model, avatar = request.created
        seconds = request.answered - request.began
        watch.take(SessionCreated(session, request.began_unix, seconds, model, avatar))


def _creating(original: Any, watch: Watch) -> Any:
    """`create_session`, which gives the session its name."""

    @functools.wraps(original)
    async def wrapper(*arguments: Any, **named: Any) -> Any:
        session = await original(*arguments, **named)
        watch.guard("session", _created, session, named)
        return session

    return wrapper


def _created(session: Any, named: Mapping[str, Any]) -> None:
    request = _request.get()
    if request is not None:
        request.created = (str(session), named.get("model"), named.get("avatar_id"))


_transcripts = Transcripts()


def _recognizing(original: Any, watch: Watch) -> Any:
    """`transcribe_…_sync`: called in a thread, which has its request's context."""

    @functools.wraps(original)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        watch.guard("speech recognition", _recognized, result, steady_clock.now())
        return result

    return wrapper


def _recognized(result: tuple[str, float], now: float) -> None:
    """OpenTalking's own duration is taken over: around it lie files and threads."""
    request = _request.get()
    if request is None:
        return
    text, milliseconds = result
    request.heard = {
        stages.STT_REQUESTED: now - float(milliseconds) / 1000.0,
        stages.STT_TRANSCRIBED: now,
    }
    if request.only_transcribes:
        _transcripts.keep(request.path[-2], text, request.heard)


def _pushing(original: Any, watch: Watch) -> Any:
    """`_push_task`: where every task enters the queue."""

    @functools.wraps(original)
    async def wrapper(r: Any, task: Any) -> Any:
        carrying = [task]
        watch.guard("task", _carry, task, carrying)
        return await original(r, carrying[-1])

    return wrapper


def _carry(task: Mapping[str, Any], carrying: list[Any]) -> None:
    request = _request.get()
    if request is None or task["cmd"] not in _SPEAKING:
        return
    heard = request.heard or _transcripts.take(task["session_id"], task.get("text", ""))
    marks = {name: steady_clock.to_wall(at) for name, at in heard.items()}
    told = Asked(request.traceparent, marks).to_json()
    if told:
        carrying.append({**task, FIELD: told})


_RECOGNITION: Final = f"{stages.STT_REQUESTED} and {stages.STT_TRANSCRIBED}"

HOOKS: Final = (
    Hook(
        "fastapi",
        "FastAPI.__call__",
        ("scope", "receive", "send"),
        inspect.iscoroutinefunction,
        _serving,
        "the trace context of each speech, its speech recognition, the creation of sessions",
    ),
    Hook(
        "apps.api.services.session_service",
        "create_session",
        ("model", "avatar_id"),
        inspect.iscoroutinefunction,
        _creating,
        "the creation of sessions",
    ),
    Hook(
        "apps.api.services.session_service",
        "_push_task",
        ("r", "task"),
        inspect.iscoroutinefunction,
        _pushing,
        "the trace context and the speech recognition of each speech",
    ),
    Hook(
        "apps.api.routes.sessions",
        "transcribe_wav_path_sync",
        ("wav_path",),
        callable,
        _recognizing,
        f"{_RECOGNITION} of uploaded speech",
    ),
    Hook(
        "apps.api.routes.sessions",
        "transcribe_pcm_chunk_queue_sync",
        ("chunk_queue",),
        callable,
        _recognizing,
        f"{_RECOGNITION} of streamed speech",
    ),
)
