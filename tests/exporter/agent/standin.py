"""OpenTalking's modules in miniature: the names and shapes that the hooks expect, nothing else.

The sender is the real aiortc. Install with `install(monkeypatch)`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from types import ModuleType, SimpleNamespace

from exporter.agent.hooks import HOOKS

RUNNER = "opentalking.pipeline.speak.synthesis_runner"
MODULES = (
    "opentalking.pipeline.speak",
    "opentalking.providers.llm.openai_compatible",
    "opentalking.providers.rtc.aiortc",
    "opentalking.core",
)
CHUNK = [0] * 640
ENQUEUED_BEFORE_S = 0.25


class WebRTCSession:
    def __init__(self):
        self.video = SimpleNamespace(_queue=asyncio.Queue(maxsize=256))
        self.audio = SimpleNamespace(_queue=asyncio.Queue(maxsize=512))


class InMemoryRedis:
    async def publish(self, channel, message):
        return (channel, message)


class OpenAICompatibleLLMClient:
    failing = False

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
}


def install(monkeypatch):
    """Make the modules importable for one test; the classes are put back as they were."""
    for name, content in CONTENT.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for hook in HOOKS:
        owner = importlib.import_module(hook.module)
        *owners, name = hook.path.split(".")
        for step in owners:
            owner = getattr(owner, step)
        monkeypatch.setattr(owner, name, getattr(owner, name))
