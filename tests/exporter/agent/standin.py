"""OpenTalking's modules in miniature: the names and shapes that the hooks expect, nothing else.

The sender is the real aiortc, the application of the API a real FastAPI. Install with
`install(monkeypatch)`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from types import ModuleType, SimpleNamespace

from fastapi import FastAPI, HTTPException

from exporter.agent.hooks import HOOKS
from exporter.stages import ProcessRole

RUNNER = "opentalking.pipeline.speak.synthesis_runner"
SESSION_RUNNER = "opentalking.pipeline.session.runner"
CONSUMER = "opentalking.runtime.task_consumer"
SERVICE = "apps.api.services.session_service"
ROUTES = "apps.api.routes.sessions"
MODULES = (
    "opentalking.pipeline.speak",
    "opentalking.providers.llm.openai_compatible",
    "opentalking.providers.rtc.aiortc",
    "opentalking.core",
)
CHUNK = [0] * 640
ENQUEUED_BEFORE_S = 0.25
STT_S = 0.03
TRANSCRIPT = "How are you?"


class WebRTCSession:
    def __init__(self):
        self.pc = SimpleNamespace(connectionState="connected")
        self.video = SimpleNamespace(_queue=asyncio.Queue(maxsize=256))
        self.audio = SimpleNamespace(_queue=asyncio.Queue(maxsize=512))


class InMemoryRedis:
    async def publish(self, channel, message):
        return (channel, message)


class OpenAICompatibleLLMClient:
    failing = False
    model = "qwen-turbo"

    async def chat_stream(self, messages):
        if self.failing:
            raise ConnectionError("no language model")
        for text in (" ", "😀", "Hello", "."):
            await asyncio.sleep(0.01)
            yield text


class Adapter:
    async def synthesize_stream(self, text):
        for data in ([], CHUNK):
            await asyncio.sleep(0.01)
            yield SimpleNamespace(data=data)


def create_tts_adapter(*, sample_rate, chunk_ms):
    return Adapter()


class FlashTalkRunner:
    """The order of things is that of OpenTalking 0.1.0."""

    def __init__(self):
        self.session_id = "sess_1"
        self.llm = OpenAICompatibleLLMClient()
        self.webrtc = sys.modules[MODULES[2] + ".adapter"].WebRTCSession()
        self._interrupt = asyncio.Event()
        self._speak_t0_wall = None
        self._speak_milestones = None
        self.began = 0.0
        self.chunk_error = None

    async def speak(self, text, *, enqueue_unix=None):
        self.began = self._speak_t0_wall = time.perf_counter()
        self._speak_milestones = milestones = {}
        try:
            await asyncio.gather(self._answer(text), asyncio.sleep(0))
        finally:
            self._speak_t0_wall = self._speak_milestones = None
        milestones["speak_wall_ms"] = (time.perf_counter() - self.began) * 1000.0
        await asyncio.sleep(0.05)
        return text

    async def speak_uploaded_pcm(self, pcm, *, enqueue_unix=None):
        self._speak_t0_wall = time.perf_counter()
        await self._render()
        self._speak_t0_wall = None

    async def _answer(self, text):
        runner = sys.modules[RUNNER]
        tts = runner.create_tts_adapter(sample_rate=16000, chunk_ms=400.0)
        await self._select_tts_opener(text)
        async for _ in self.llm.chat_stream([]):
            pass
        async for _ in tts.synthesize_stream(text):
            pass
        await self._render()
        await self._render()

    async def _render(self):
        frames = await self._generate_flashtalk_frames(CHUNK)
        await self._queue_av_chunk(CHUNK, frames)

    async def _select_tts_opener(self, text):
        opener = sys.modules[RUNNER].create_tts_adapter(sample_rate=16000, chunk_ms=400.0)
        async for _ in opener.synthesize_stream("Hm"):
            pass

    async def _generate_flashtalk_frames(self, pcm_chunk, *, source="live"):
        await asyncio.sleep(0.02)
        if self.chunk_error is not None:
            raise self.chunk_error
        return [SimpleNamespace(), SimpleNamespace()]

    async def _queue_av_chunk(self, pcm_chunk, frames):
        for frame in frames:
            await self.webrtc.video._queue.put(frame)
            await self.webrtc.audio._queue.put(list(pcm_chunk))


class SessionRunner:
    """The runner of third parties' adapters, in the same order of things."""

    def __init__(self):
        self.session_id = "sess_1"
        self.webrtc = sys.modules[MODULES[2] + ".adapter"].WebRTCSession()
        self._interrupt = asyncio.Event()
        self._active_timing = None

    async def chat(self, prompt, *, enqueue_unix=None):
        await asyncio.sleep(0.02)
        self._active_timing = SimpleNamespace(started_at=time.perf_counter())
        tts = sys.modules[SESSION_RUNNER].build_tts_adapter(sample_rate=16000)
        async for _ in OpenAICompatibleLLMClient().chat_stream([]):
            pass
        async for _ in tts.synthesize_stream(prompt):
            pass
        _, frames = await self._render_chunk_frames(CHUNK, frame_index_start=0)
        for frame in frames:
            await self._video_sink(frame)

    async def _render_chunk_frames(self, chunk, *, frame_index_start):
        await asyncio.sleep(0.02)
        return 1, [SimpleNamespace()]

    async def _video_sink(self, frame):
        await self.webrtc.video._queue.put(frame)


def build_tts_adapter(*, sample_rate):
    return Adapter()


class WSClient:
    """Of FlashTalk and FlashHead."""

    def __init__(self):
        self.returns = asyncio.Event()

    async def generate(self, audio_pcm):
        await self.returns.wait()
        return [len(audio_pcm)]


class FlashTalkWSClient(WSClient):
    async def generate(self, audio_pcm):
        return await super().generate(audio_pcm)


class FlashHeadWSClient(WSClient):
    async def generate(self, audio_pcm):
        return await super().generate(audio_pcm)


# --- the API, its queue and the other end of it --------------------------------------------


async def create_session(r, *, avatar_id, model):
    return "sess_1"


async def _push_task(r, task):
    r.append(json.dumps(task))


def transcribe_wav_path_sync(wav_path, *, provider=None):
    time.sleep(STT_S)
    return TRANSCRIPT, STT_S * 1000.0


def transcribe_pcm_chunk_queue_sync(chunk_queue, *, provider=None):
    return transcribe_wav_path_sync("")


async def handle_worker_task(task, r, avatars_root, device, runners):
    runners.append(
        asyncio.create_task(
            FlashTalkRunner().speak(task["text"], enqueue_unix=task["enqueue_unix"])
        )
    )


def application(queue):
    """The API's routes, as far as hooks are in their way."""
    app, service = FastAPI(), sys.modules[SERVICE]

    async def speak_of(session, text):
        await service._push_task(queue, {"cmd": "interrupt", "session_id": session})
        task = {"cmd": "speak", "session_id": session, "text": text}
        await service._push_task(queue, task | {"enqueue_unix": time.time()})

    async def heard():
        recognize = sys.modules[ROUTES].transcribe_wav_path_sync
        text, _ = await asyncio.to_thread(recognize, "speech.wav", provider=None)
        return text

    @app.post("/sessions")
    async def create(model: str, ready: bool = True):
        session = await service.create_session(queue, avatar_id="anna", model=model)
        await asyncio.sleep(0.02)
        if not ready:
            raise HTTPException(503)
        return {"session_id": session}

    @app.post("/sessions/{session}/speak")
    async def speak(session: str, text: str):
        await speak_of(session, text)

    @app.post("/sessions/{session}/speak_audio")
    async def speak_audio(session: str):
        await speak_of(session, await heard())

    @app.post("/sessions/{session}/transcribe")
    async def transcribe(session: str):
        return {"text": await heard()}

    return app


CONTENT = {
    RUNNER: {
        "FlashTalkRunner": FlashTalkRunner,
        "create_tts_adapter": create_tts_adapter,
        "strip_emoji": lambda text: text.replace("😀", ""),
    },
    MODULES[1] + ".adapter": {"OpenAICompatibleLLMClient": OpenAICompatibleLLMClient},
    MODULES[2] + ".adapter": {"WebRTCSession": WebRTCSession},
    MODULES[3] + ".in_memory_redis": {"InMemoryRedis": InMemoryRedis},
    MODULES[3] + ".redis_keys": {"events_channel": lambda sid: f"opentalking:events:{sid}"},
    SESSION_RUNNER: {"SessionRunner": SessionRunner, "build_tts_adapter": build_tts_adapter},
    "opentalking.providers.synthesis.flashtalk.ws_client": {"FlashTalkWSClient": FlashTalkWSClient},
    "opentalking.providers.synthesis.flashhead.ws_client": {"FlashHeadWSClient": FlashHeadWSClient},
    CONSUMER: {"handle_worker_task": handle_worker_task},
    SERVICE: {"create_session": create_session, "_push_task": _push_task},
    ROUTES: {
        "transcribe_wav_path_sync": transcribe_wav_path_sync,
        "transcribe_pcm_chunk_queue_sync": transcribe_pcm_chunk_queue_sync,
    },
}


def install(monkeypatch):
    """Make the modules importable for one test; the classes are put back as they were."""
    for name, content in CONTENT.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for hook in HOOKS[ProcessRole.UNIFIED]:
        owner = importlib.import_module(hook.module)
        *owners, name = hook.path.split(".")
        for step in owners:
            owner = getattr(owner, step)
        monkeypatch.setattr(owner, name, getattr(owner, name))
