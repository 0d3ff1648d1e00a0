"""OpenTalking 0.1.0's API as this client uses it: method calls in, requests and answers out.

What goes out is typed answers, or `TargetError` whose message names cause and fix. It must not
know WebRTC, marks or what a turn is. Everything that a new OpenTalking version renames on the
wire is adapted here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import websockets

from exporter import stages
from loadgen import sse
from loadgen.errors import Cause, TargetError
from loadgen.loopback import is_loopback

SAMPLE_RATE: Final = 16_000
"""Samples a second of the speech that the WebSocket takes (s16le, mono)."""

CHUNK_S: Final = 0.1
"""Length of one WebSocket message of speech, in seconds of audio."""

_BYTES_PER_SAMPLE = 2
_CONNECT_TIMEOUT_S = 5.0

# uvicorn closes an idle connection after 5 s, and a request sent at that very moment fails.
_KEEPALIVE_S = 2.0


class EventName(StrEnum):
    """Events of a session's stream that this client reacts to."""

    SPEECH_STARTED = "speech.started"
    MEDIA_STARTED = "speech.media_started"
    # The catalogue named these marks after the events.
    SPEECH_TIMING = "speech.timing"
    SPEECH_ENDED = stages.SPEECH_ENDED
    ERROR = "error"
    SESSION_QUEUED = "session.queued"
    SESSION_EXPIRED = "session.expired"


READY_STATES: Final = frozenset({"worker_ready", "ready", "speaking"})
FAILED_STATE: Final = "error"
GONE_STATES: Final = frozenset({"closing", "closed"})


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One row of `GET /models`."""

    id: str
    backend: str
    connected: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Models:
    """`GET /models`: what the deployment knows and which of it can be used."""

    statuses: tuple[ModelStatus, ...]
    default: str | None

    @property
    def connected(self) -> tuple[ModelStatus, ...]:
        """The models a session can be created with."""
        return tuple(s for s in self.statuses if s.connected)


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """Answer of `POST /sessions`; `status` is created, initializing or queued."""

    session: str
    status: str


@dataclass(frozen=True, slots=True)
class Description:
    """An SDP session description (RFC 8866)."""

    sdp: str
    type: str


class OpenTalking:
    """HTTP client of one deployment. `url` is its API's base, e.g. `http://127.0.0.1:8000`.

    Use as an async context manager. Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        if not _is_http_url(url):
            raise ValueError(f"{url!r} is not an http:// or https:// URL of an OpenTalking API")
        self.url = url.rstrip("/")
        # A proxy from the environment would carry requests to a loopback target elsewhere.
        self.on_loopback = is_loopback(url)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_S),
            trust_env=not self.on_loopback,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    # --- the deployment --------------------------------------------------------------------

    async def health(self) -> Mapping[str, Any]:
        """`GET /health`: status and provider names."""
        return await self._object("GET", "/health")

    async def models(self) -> Models:
        """`GET /models`."""
        answer = await self._object("GET", "/models")
        try:
            statuses = tuple(
                ModelStatus(
                    id=str(row["id"]),
                    backend=str(row.get("backend") or ""),
                    connected=bool(row["connected"]),
                    reason=str(row.get("reason") or ""),
                )
                for row in answer["statuses"]
            )
        except (KeyError, TypeError) as error:
            raise self._not_opentalking("GET /models", answer) from error
        default = answer.get("default_model")
        return Models(statuses, str(default) if default else None)

    async def avatars(self) -> tuple[str, ...]:
        """`GET /avatars`: ids, in the target's order."""
        answer = await self._json("GET", "/avatars")
        try:
            return tuple(str(row["id"]) for row in answer)
        except (KeyError, TypeError) as error:
            raise self._not_opentalking("GET /avatars", answer) from error

    # --- a session -------------------------------------------------------------------------

    async def create_session(
        self, *, avatar: str, model: str, timeout: float | None = None
    ) -> CreatedSession:
        """`POST /sessions`, without knowledge base and agent: they would add unmeasured work.

        OpenTalking answers at once or, for a model in its own process, when the model is
        loaded; a worker that cannot start shows as 503 after about 90 s.
        """
        body = {
            "avatar_id": avatar,
            "model": model,
            "knowledge_enabled": False,
            "agent_enabled": False,
        }
        answer = await self._object("POST", "/sessions", json=body, timeout=timeout)
        session = answer.get("session_id")
        if not isinstance(session, str) or not session:
            raise self._not_opentalking("POST /sessions", answer)
        return CreatedSession(session, str(answer.get("status") or ""))

    async def get_session(self, session: str) -> Mapping[str, Any]:
        """`GET /sessions/{id}`: the session's record, with `state`."""
        return await self._object("GET", f"/sessions/{session}")

    @asynccontextmanager
    async def events(self, session: str) -> AsyncIterator[AsyncGenerator[sse.Event, None]]:
        """Subscribe to `GET /sessions/{id}/events`; entered when the target has answered.

        Events published before that are lost, `session.queued` among them.
        """
        where = f"GET /sessions/{session}/events"
        timeout = httpx.Timeout(sse.SILENCE_LIMIT_S, connect=_CONNECT_TIMEOUT_S)
        request = self._http.build_request(
            "GET",
            f"/sessions/{session}/events",
            headers={"Accept": "text/event-stream", "Cache-Control": "no-store"},
            timeout=timeout,
        )
        response = await self._send(request, where, stream=True)
        try:
            if response.is_error:
                await response.aread()
                raise self._refusal(where, response)
            async with aclosing(sse.events(response)) as stream:
                yield stream
        finally:
            await response.aclose()

    async def offer(
        self, session: str, description: Description, *, timeout: float | None = None
    ) -> Description:
        """`POST /sessions/{id}/webrtc/offer`: an SDP offer in, the answer out."""
        answer = await self._object(
            "POST",
            f"/sessions/{session}/webrtc/offer",
            json={"sdp": description.sdp, "type": description.type},
            timeout=timeout,
        )
        sdp, kind = answer.get("sdp"), answer.get("type")
        if not isinstance(sdp, str) or not isinstance(kind, str):
            raise self._not_opentalking("POST /webrtc/offer", answer)
        return Description(sdp, kind)

    async def speak(self, session: str, text: str) -> None:
        """`POST /sessions/{id}/speak`: 200 means queued, not spoken."""
        await self._object("POST", f"/sessions/{session}/speak", json={"text": text})

    async def speak_audio(
        self, session: str, audio: bytes, *, filename: str, timeout: float | None = None
    ) -> str:
        """`POST /sessions/{id}/speak_audio`: upload recorded speech; returns its transcript."""
        answer = await self._object(
            "POST",
            f"/sessions/{session}/speak_audio",
            files={"file": (filename, audio, "application/octet-stream")},
            timeout=timeout,
        )
        return str(answer.get("text") or "")

    async def speak_audio_stream(
        self,
        session: str,
        pcm: bytes,
        *,
        on_first_audio: Callable[[float], None],
        on_last_audio: Callable[[float], None],
        timeout: float,
    ) -> str:
        """`WS /sessions/{id}/speak_audio_stream`: stream speech as it is said, get its transcript.

        `pcm` is s16le, 16 kHz, mono; it is sent in 100 ms messages at the pace of a microphone.
        The callbacks get the monotonic time at which the first and the last message were sent.
        `timeout` bounds the wait for the transcript, in seconds.

        OpenTalking sends one JSON reply and then drops the connection without a close frame.
        """
        url = "ws" + self.url.removeprefix("http") + f"/sessions/{session}/speak_audio_stream"
        try:
            async with (
                asyncio.timeout(_CONNECT_TIMEOUT_S + len(pcm) / _PCM_BYTES_PER_S + timeout),
                websockets.connect(
                    url,
                    open_timeout=_CONNECT_TIMEOUT_S,
                    close_timeout=1.0,
                    proxy=None if self.on_loopback else True,
                ) as socket,
            ):
                # A refusal may come before the end of the speech; it is read below.
                with suppress(websockets.ConnectionClosed):
                    await _stream(socket, pcm, on_first_audio, on_last_audio)
                reply = await socket.recv()
        except websockets.ConnectionClosed as error:
            raise TargetError(
                "the target dropped the speech WebSocket without a reply: see its log for the "
                "speech recognition's error",
                Cause.BAD_ANSWER,
            ) from error
        except TimeoutError as error:
            raise TargetError(
                f"no transcript within {timeout:.0f} s of the end of the speech: "
                "the speech recognition (STT) provider hangs",
                Cause.TIMEOUT,
            ) from error
        except (OSError, websockets.InvalidHandshake) as error:
            raise TargetError(
                f"the speech WebSocket cannot be opened at {url}: {error}", Cause.UNREACHABLE
            ) from error
        return _transcript(reply)

    async def interrupt(self, session: str) -> None:
        """`POST /sessions/{id}/interrupt`: stop the running speech."""
        await self._object("POST", f"/sessions/{session}/interrupt")

    async def delete(self, session: str, *, timeout: float | None = None) -> None:
        """`DELETE /sessions/{id}`; a session that is gone already counts as deleted."""
        try:
            await self._object("DELETE", f"/sessions/{session}", timeout=timeout)
        except TargetError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    async def delete_again(self, session: str, *, timeout: float | None = None) -> bool:
        """Delete a session unless it is gone or going; return whether it was still there.

        For one that may have been deleted already: OpenTalking sets the state `closing` before it
        looks whether there is anything to close, so a second DELETE would leave it so for ever.
        """
        try:
            record = await self._object("GET", f"/sessions/{session}", timeout=timeout)
        except TargetError:
            # The deletion says better what is wrong.
            record = {}
        if record.get("state") in GONE_STATES:
            return False
        await self.delete(session, timeout=timeout)
        return True

    # --- requests --------------------------------------------------------------------------

    async def _object(
        self, method: str, path: str, *, timeout: float | None = None, **content: Any
    ) -> Mapping[str, Any]:
        answer = await self._json(method, path, timeout=timeout, **content)
        if not isinstance(answer, dict):
            raise self._not_opentalking(f"{method} {path}", answer)
        return answer

    async def _json(
        self, method: str, path: str, *, timeout: float | None = None, **content: Any
    ) -> Any:
        where = f"{method} {path}"
        if timeout is not None:
            content["timeout"] = httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT_S)
        response = await self._send(self._http.build_request(method, path, **content), where)
        if response.is_error:
            raise self._refusal(where, response)
        try:
            return response.json()
        except ValueError as error:
            raise self._not_opentalking(where, response.text) from error

    async def _send(
        self, request: httpx.Request, where: str, *, stream: bool = False
    ) -> httpx.Response:
        try:
            return await self._http.send(request, stream=stream)
        except httpx.ConnectTimeout as error:
            raise TargetError(
                f"{self.url} does not accept connections within {_CONNECT_TIMEOUT_S:.0f} s: "
                "wrong address, or a firewall between",
                Cause.UNREACHABLE,
            ) from error
        except httpx.TimeoutException as error:
            seconds = request.extensions["timeout"]["read"]
            raise TargetError(
                f"{where} had no answer within {seconds:.0f} s: the target hangs or is overloaded",
                Cause.TIMEOUT,
            ) from error
        except httpx.ConnectError as error:
            raise TargetError(
                f"nothing answers at {self.url} ({error}): is OpenTalking running there?",
                Cause.UNREACHABLE,
            ) from error
        except httpx.HTTPError as error:
            raise TargetError(
                f"{where} broke off ({type(error).__name__}: {error}): "
                "the target stopped while answering",
                Cause.UNREACHABLE,
            ) from error

    def _refusal(self, where: str, response: httpx.Response) -> TargetError:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = response.text.strip()[:200] or response.reason_phrase
        if detail == _NO_SUCH_PATH:
            detail += f" (no such path: is {self.url} an OpenTalking API?)"
        return TargetError(
            f"{where}: HTTP {response.status_code}: {detail}",
            Cause.HTTP_STATUS,
            status=response.status_code,
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )

    def _not_opentalking(self, where: str, answer: object) -> TargetError:
        return TargetError(
            f"{where} at {self.url} answered what OpenTalking does not: {str(answer)[:200]!r}. "
            "Is this the URL of an OpenTalking API?",
            Cause.BAD_ANSWER,
        )


def _retry_after(told: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date (RFC 9110, 10.2.3)."""
    if told is None:
        return None
    if told.strip().isdecimal():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


_PCM_BYTES_PER_S = SAMPLE_RATE * _BYTES_PER_SAMPLE
_NO_SUCH_PATH = "Not Found"


async def _stream(
    socket: websockets.ClientConnection,
    pcm: bytes,
    on_first_audio: Callable[[float], None],
    on_last_audio: Callable[[float], None],
) -> None:
    """Send the speech as a microphone would give it."""
    size = int(_PCM_BYTES_PER_S * CHUNK_S)
    await socket.send(json.dumps({"type": "meta"}))
    begin = time.monotonic()
    on_first_audio(begin)
    for index, offset in enumerate(range(0, len(pcm), size)):
        await asyncio.sleep(max(0.0, begin + index * CHUNK_S - time.monotonic()))
        await socket.send(pcm[offset : offset + size])
    on_last_audio(time.monotonic())
    await socket.send(json.dumps({"type": "end"}))


def _transcript(reply: str | bytes) -> str:
    try:
        answer = json.loads(reply)
        if "error" in answer:
            raise TargetError(f"the target refused the speech: {answer['error']}", Cause.REFUSED)
        return str(answer["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(
            f"the speech WebSocket answered what OpenTalking does not: {reply[:200]!r}",
            Cause.BAD_ANSWER,
        ) from error
