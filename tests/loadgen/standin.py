"""A stand-in for OpenTalking: its API, events and media, small and obedient.

It answers with recorded answers of OpenTalking 0.1.0 and can be told to misbehave in the ways
the real one was seen to. It runs in a thread of its own, on loopback; media goes through a real
aiortc sender. Tests that need the real server's behaviour use the real server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame, VideoFrame
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from loadgen.media import ice

SESSION = "sess_ade6ca110268"
TEXT = "Hello there."

HEALTH = {"status": "ok", "llm_provider": "openai_compatible", "default_model": "mock"}
MODELS = {
    "models": ["mock", "flashtalk", "wav2lip"],
    "statuses": [
        {"id": "mock", "backend": "mock", "connected": True, "reason": "local_self_test"},
        {"id": "flashtalk", "backend": "omnirt", "connected": False, "reason": "not_configured"},
        {"id": "wav2lip", "backend": "omnirt", "connected": True, "reason": "omnirt"},
    ],
    "default_model": "mock",
}
AVATARS = [{"id": "tall", "model_type": "mock"}, {"id": "testbot", "model_type": "mock"}]

WIDTH, HEIGHT, FPS = 128, 96, 25


@dataclass
class Say:
    """A step of an answer: wait, publish an event, and let sound and moving pictures begin."""

    after: float = 0.0
    event: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    sound: float = 0.0
    """Seconds of sound to send from here on."""
    pictures_late: float = 0.0
    """Seconds by which its pictures come after it."""
    hang_up: bool = False
    """Close the WebRTC connection."""


def answer(seconds: float = 0.4) -> list[Say]:
    """An answer as it should be."""
    return [
        Say(0.05, "speech.started", {"text": TEXT}),
        Say(0.05, "speech.media_started", sound=seconds),
        Say(0.05, "speech.timing", {"ttfa_ms": 457.0, "chunk_latency_ms": [0.2, 0.3]}),
        Say(0.0, "speech.ended", {"text": TEXT}),
    ]


@dataclass
class Behaviour:
    """What the stand-in does; the default is what OpenTalking does when all is well."""

    health: Any = None
    models: Any = None
    avatars: Any = None
    create_after: float = 0.0
    create_answer: Response | None = None
    states: list[str] = field(default_factory=lambda: ["worker_ready"])
    """Answers of `GET /sessions/{id}` in turn; the last one stays."""
    queue_news: list[dict[str, Any]] = field(default_factory=list)
    offer_after: float = 0.0
    unreachable_media: bool = False
    video: bool = True
    answers: list[list[Say]] = field(default_factory=lambda: [answer()])
    """One for each input in turn; the last one stays."""
    speak_answer: Response | None = None
    transcript: dict[str, Any] | None = field(default_factory=lambda: {"text": TEXT})
    """What the speech WebSocket replies; None drops it without a reply."""
    delete_answers: list[Response] = field(default_factory=list)
    """Answers of `DELETE` before it succeeds."""
    end_events_after: float | None = None


def refusal(status: int, detail: Any) -> JSONResponse:
    """An error answer as FastAPI writes it."""
    return JSONResponse({"detail": detail}, status_code=status)


class _Face(MediaStreamTrack):
    kind = "video"

    def __init__(self, numbers: _Numbers, visible: bool) -> None:
        super().__init__()
        self._numbers = numbers
        self._visible = visible
        self._count = 0
        self._begun = 0.0

    async def recv(self) -> VideoFrame:
        loop = asyncio.get_running_loop()
        if not self._visible:
            await asyncio.Event().wait()
        self._begun = self._begun or loop.time()
        await asyncio.sleep(max(0.0, self._begun + self._count / FPS - loop.time()))
        frame = VideoFrame.from_ndarray(_picture(self._numbers.next()), format="gray")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = self._count, fractions.Fraction(1, FPS)
        self._count += 1
        return frame


class _Voice(MediaStreamTrack):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.packets: asyncio.Queue[None] = asyncio.Queue()
        self._count = 0
        self._due = 0.0

    async def recv(self) -> AudioFrame:
        await self.packets.get()
        now = asyncio.get_running_loop().time()
        self._due = max(now, self._due + 0.02)
        await asyncio.sleep(self._due - now)
        frame = AudioFrame(format="s16", layout="mono", samples=320)
        frame.planes[0].update(bytes(640))
        frame.sample_rate, frame.time_base = 16_000, fractions.Fraction(1, 16_000)
        frame.pts = 320 * self._count
        self._count += 1
        return frame


class _Numbers:
    """Frame numbers as the synthetic avatar draws them: none before the first speech."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._left = 0

    def talk(self, frames: int) -> None:
        self._left = frames

    def next(self) -> int | None:
        if self._left:
            self._left -= 1
            self._last = 0 if self._last is None else self._last + 1
        return self._last


def _picture(number: int | None) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH), 100, np.uint8)
    if number is not None:
        bits = np.array([number >> (15 - i) & 1 for i in range(16)], np.uint8)
        cells = np.repeat(bits, WIDTH // 16) * 255
        picture[0:16], picture[16:32] = cells, 255 - cells
    return picture


class StandIn:
    """The server; `behave` may be changed while it runs."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[str] = []
        self.bodies: dict[str, Any] = {}
        self.speech = b""
        self.url = ""
        self._inputs = 0
        self._events: list[asyncio.Queue[str]] = []
        self._numbers = _Numbers()
        self._voice: _Voice | None = None
        self._peer: RTCPeerConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def deleted(self) -> int:
        """How many times the session's deletion was asked for."""
        return self.requests.count(f"DELETE /sessions/{SESSION}")

    # --- the API ---------------------------------------------------------------------------

    def app(self) -> Starlette:
        sessions = f"/sessions/{SESSION}"
        routes = [
            Route("/health", self._fixed("health", HEALTH)),
            Route("/models", self._fixed("models", MODELS)),
            Route("/avatars", self._fixed("avatars", AVATARS)),
            Route("/sessions", self._create, methods=["POST"]),
            Route(sessions, self._state),
            Route(sessions, self._delete, methods=["DELETE"]),
            Route(sessions + "/events", self._stream),
            Route(sessions + "/webrtc/offer", self._offer, methods=["POST"]),
            Route(sessions + "/speak", self._speak, methods=["POST"]),
            Route(sessions + "/speak_audio", self._speak, methods=["POST"]),
            Route(sessions + "/interrupt", self._interrupt, methods=["POST"]),
            WebSocketRoute(sessions + "/speak_audio_stream", self._hear),
        ]
        return Starlette(routes=routes)

    def _note(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url.path}")

    def _fixed(self, name: str, usual: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            self._note(request)
            chosen = getattr(self.behave, name)
            if isinstance(chosen, Response):
                return chosen
            return JSONResponse(usual if chosen is None else chosen)

        return endpoint

    async def _create(self, request: Request) -> Response:
        self._note(request)
        self.bodies["create"] = await request.json()
        await asyncio.sleep(self.behave.create_after)
        return self.behave.create_answer or JSONResponse(
            {"session_id": SESSION, "status": "created"}
        )

    async def _state(self, request: Request) -> Response:
        self._note(request)
        if self.behave.queue_news:
            self.publish("session.queued", self.behave.queue_news.pop(0))
        states = self.behave.states
        state = states.pop(0) if len(states) > 1 else states[0]
        return JSONResponse({"session_id": SESSION, "state": state})

    async def _delete(self, request: Request) -> Response:
        self._note(request)
        if self.behave.delete_answers:
            return self.behave.delete_answers.pop(0)
        return JSONResponse({"session_id": SESSION, "status": "closed"})

    async def _stream(self, request: Request) -> Response:
        self._note(request)
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._events.append(queue)

        async def stream() -> Any:
            yield "event: ping\ndata: {}\n\n"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.behave.end_events_after):
                    while True:
                        yield await queue.get()

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _offer(self, request: Request) -> Response:
        self._note(request)
        offer = await request.json()
        await asyncio.sleep(self.behave.offer_after)
        self._voice = _Voice()
        peer = self._peer = RTCPeerConnection(ice.configuration())
        await peer.setRemoteDescription(RTCSessionDescription(offer["sdp"], offer["type"]))
        peer.addTrack(_Face(self._numbers, self.behave.video))
        peer.addTrack(self._voice)
        ice.offer_only(peer, ice.LOOPBACK)
        await peer.setLocalDescription(await peer.createAnswer())
        sdp, kind = peer.localDescription.sdp, peer.localDescription.type
        if self.behave.unreachable_media:
            await peer.close()
        return JSONResponse({"sdp": sdp, "type": kind})

    async def _speak(self, request: Request) -> Response:
        self._note(request)
        self.bodies["speak"] = await request.body()
        if self.behave.speak_answer is not None:
            return self.behave.speak_answer
        self._begin_answer()
        return JSONResponse({"session_id": SESSION, "status": "queued", "text": TEXT})

    async def _interrupt(self, request: Request) -> Response:
        self._note(request)
        for task in self._tasks:
            task.cancel()
        self._silence()
        self.publish("speech.ended", {})
        return JSONResponse({"session_id": SESSION, "status": "interrupted"})

    async def _hear(self, socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, KeyError):
            assert json.loads((await socket.receive())["text"]) == {"type": "meta"}
            while data := (await socket.receive()).get("bytes"):
                self.speech += data
            if self.behave.transcript is not None:
                if "text" in self.behave.transcript:
                    self._begin_answer()
                await socket.send_json(self.behave.transcript)
        # The real server drops the connection here without a close frame, as uvicorn does when
        # an endpoint returns without closing.

    # --- answers ---------------------------------------------------------------------------

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Publish an event of the session."""
        body = json.dumps({"session_id": SESSION, **data}, ensure_ascii=False)
        for queue in self._events:
            queue.put_nowait(f"event: {event}\ndata: {body}\n\n")

    def _begin_answer(self) -> None:
        answers = self.behave.answers
        steps = answers[min(self._inputs, len(answers) - 1)]
        self._inputs += 1
        task = asyncio.get_running_loop().create_task(self._answer(steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, steps: list[Say]) -> None:
        for step in steps:
            await asyncio.sleep(step.after)
            if step.sound and self._voice is not None:
                asyncio.get_running_loop().call_later(
                    step.pictures_late, self._numbers.talk, round(step.sound * FPS)
                )
                for _ in range(round(step.sound / 0.02)):
                    self._voice.packets.put_nowait(None)
            if step.event is not None:
                self.publish(step.event, step.data)
            if step.hang_up and self._peer is not None:
                await self._peer.close()

    def _silence(self) -> None:
        self._numbers.talk(0)
        while self._voice is not None and not self._voice.packets.empty():
            self._voice.packets.get_nowait()

    async def put_away(self) -> None:
        """Close what the sessions left open."""
        for task in self._tasks:
            task.cancel()
        if self._peer is not None:
            await self._peer.close()


class _Server(uvicorn.Server):
    def __init__(self, standin: StandIn) -> None:
        config = uvicorn.Config(
            standin.app(), lifespan="off", log_level="error", timeout_graceful_shutdown=1
        )
        super().__init__(config)
        self._standin = standin

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._standin.put_away()
        await super().shutdown(sockets)


@contextlib.contextmanager
def running(**behaviour: Any) -> Iterator[StandIn]:
    """A stand-in on a free loopback port."""
    standin = StandIn(Behaviour(**behaviour))
    server = _Server(standin)
    # asyncio sets TCP_NODELAY only on sockets that say TCP; without it answers take 40 ms more.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        standin.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield standin
        finally:
            server.should_exit = True
            thread.join(10)


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what another thread does; fail when it does not."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


PLAIN = PlainTextResponse("<html>nginx</html>")
