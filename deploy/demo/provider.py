"""A STAND-IN for the LLM, TTS and STT services that OpenTalking calls: nothing here is a model.

What comes in: requests in OpenAI's API. What goes out: a fixed text, a tone and a fixed transcript,
each after delays that are set by knobs and kept to a deadline, so that a measurement of OpenTalking
has a known truth to be checked against. It must not know of OpenTalking, nor of who measures.

    POST /v1/chat/completions       streamed (server-sent events) or whole
    POST /v1/audio/speech           raw PCM, 16 bit little endian, mono, 16 kHz
    POST /v1/audio/transcriptions   JSON
    GET  /v1/models
    GET, PUT /knobs                 knobs.ProviderKnobs; also TALKSCOPE_PROVIDER_* at start
    GET  /counters                  requests per endpoint since start

Runs inside OpenTalking's environment: it needs FastAPI and uvicorn.
"""

import argparse
import array
import asyncio
import json
import math
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from knob_routes import KnobHolder, knob_router
from knobs import ProviderKnobs, from_environment

MODEL = "talkscope-stand-in"
ENDPOINTS = ("chat_completions", "audio_speech", "audio_transcriptions", "models")

SAMPLE_RATE = 16_000
BYTES_PER_SECOND = 2 * SAMPLE_RATE
# PCM leaves in pieces of this much audio, as from a streaming synthesiser.
PIECE_SECONDS = 0.1
SHORTEST_SPEECH_SECONDS = 0.4
TONE_HZ = 220
SYLLABLES_PER_SECOND = 4
LOUDNESS = 0.3


def _syllable() -> bytes:
    """Return one swell of a tone; repeated, it is speech enough to open and shut a mouth."""
    count = SAMPLE_RATE // SYLLABLES_PER_SECOND
    # A whole number of tone periods, so that repeats join without a click.
    samples = (
        math.sin(2 * math.pi * TONE_HZ * i / SAMPLE_RATE) * math.sin(math.pi * i / count)
        for i in range(count)
    )
    pcm = array.array("h", (round(LOUDNESS * 32767 * sample) for sample in samples))
    return pcm.tobytes()


SYLLABLE = _syllable()


def speech_pcm(text: str, chars_per_second: float) -> bytes:
    """Return PCM as long as it takes to say `text`."""
    seconds = max(SHORTEST_SPEECH_SECONDS, len(text) / chars_per_second)
    length = 2 * round(SAMPLE_RATE * seconds)
    return (SYLLABLE * (length // len(SYLLABLE) + 1))[:length]


def tokens(text: str) -> list[str]:
    """Split a text into words that keep the space after them."""
    return re.findall(r"\S+\s*", text)


async def _sleep_until(deadline: float) -> None:
    # Deadlines, not durations: the work between two sleeps must not add up to a slower stream.
    await asyncio.sleep(deadline - asyncio.get_running_loop().time())


async def _sleep_exactly_until(deadline: float) -> None:
    # asyncio rounds sleeps up to whole milliseconds, so the last one is spent going round the loop.
    # That keeps a processor busy: good for the first token that tests measure, not for every one.
    await _sleep_until(deadline - 0.001)
    while asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - only the clock tells.
        await asyncio.sleep(0)


class ArrivalStamp:
    """ASGI middleware that notes when a request's head was read, before any of our own work."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["arrived"] = asyncio.get_running_loop().time()
        await self._app(scope, receive, send)


def _arrived(request: Request) -> float:
    arrived: float = request.scope["arrived"]
    return arrived


def _unavailable(service: str) -> JSONResponse:
    message = f"the stand-in's {service} is switched to fail (knob {service.lower()}_fail)"
    return JSONResponse({"error": {"message": message, "type": "server_error"}}, status_code=503)


def _bad_request(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error"}
    return JSONResponse({"error": error}, status_code=400)


class Provider:
    """The endpoints, over one set of knobs and one set of counters."""

    def __init__(self, knobs: KnobHolder[ProviderKnobs]) -> None:
        self._knobs = knobs
        self._counters: Counter[str] = Counter()

    async def counters(self) -> dict[str, int]:
        """Say how many requests each endpoint has had."""
        return {endpoint: self._counters[endpoint] for endpoint in ENDPOINTS}

    async def models(self) -> dict[str, object]:
        """List the one model there is."""
        self._counters["models"] += 1
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    async def chat_completions(self, request: Request) -> Response:
        """Answer any chat with the knob `llm_text`, one word at a time if asked to stream."""
        self._counters["chat_completions"] += 1
        knobs = self._knobs.current
        body = await request.json()
        if knobs.llm_fail:
            return _unavailable("LLM")
        first = _arrived(request) + knobs.llm_first_token_ms / 1000
        if body.get("stream"):
            return StreamingResponse(_chat_stream(knobs, first), media_type="text/event-stream")
        words = tokens(knobs.llm_text)
        await _sleep_until(first + (len(words) - 1) * knobs.llm_token_ms / 1000)
        message = {"role": "assistant", "content": knobs.llm_text}
        return JSONResponse(_completion("chat.completion", {"message": message}, "stop"))

    async def audio_speech(self, request: Request) -> Response:
        """Answer any text with a tone as long as saying it would take."""
        self._counters["audio_speech"] += 1
        knobs = self._knobs.current
        body = await request.json()
        if knobs.tts_fail:
            return _unavailable("TTS")
        if body.get("response_format") != "pcm":
            return _bad_request("response_format: the stand-in gives pcm only")
        pcm = speech_pcm(str(body.get("input", "")), knobs.tts_chars_per_second)
        first = _arrived(request) + knobs.tts_first_pcm_ms / 1000
        return StreamingResponse(_speech_stream(knobs, pcm, first), media_type="audio/pcm")

    async def audio_transcriptions(self, request: Request) -> Response:
        """Answer any recording with the knob `stt_text`."""
        self._counters["audio_transcriptions"] += 1
        await request.body()
        received = asyncio.get_running_loop().time()
        knobs = self._knobs.current
        if knobs.stt_fail:
            return _unavailable("STT")
        await _sleep_until(received + knobs.stt_ms / 1000)
        return JSONResponse({"text": knobs.stt_text})


def _completion(kind: str, choice: dict[str, object], finish: str | None) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, **choice, "finish_reason": finish}],
    }


async def _chat_stream(knobs: ProviderKnobs, first: float) -> AsyncIterator[str]:
    def event(delta: dict[str, str], finish: str | None = None) -> str:
        chunk = _completion("chat.completion.chunk", {"delta": delta}, finish)
        return f"data: {json.dumps(chunk)}\n\n"

    await _sleep_exactly_until(first)
    for index, token in enumerate(tokens(knobs.llm_text)):
        await _sleep_until(first + index * knobs.llm_token_ms / 1000)
        yield event({"role": "assistant", "content": token} if index == 0 else {"content": token})
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


async def _speech_stream(knobs: ProviderKnobs, pcm: bytes, first: float) -> AsyncIterator[bytes]:
    await _sleep_exactly_until(first)
    size = int(BYTES_PER_SECOND * PIECE_SECONDS)
    for index, start in enumerate(range(0, len(pcm), size)):
        await _sleep_until(first + index * PIECE_SECONDS * knobs.tts_rtf)
        yield pcm[start : start + size]


def create_app(knobs: ProviderKnobs) -> FastAPI:
    """Return the provider as an ASGI application."""
    holder = KnobHolder(knobs)
    provider = Provider(holder)
    app = FastAPI(title="Talkscope stand-in for LLM, TTS and STT")
    app.add_middleware(ArrivalStamp)
    app.include_router(knob_router("/knobs", holder))
    app.add_api_route("/counters", provider.counters, methods=["GET"])
    app.add_api_route("/v1/models", provider.models, methods=["GET"])
    for endpoint in (
        provider.chat_completions,
        provider.audio_speech,
        provider.audio_transcriptions,
    ):
        path = "/v1/" + endpoint.__name__.replace("_", "/")
        app.add_api_route(path, endpoint, methods=["POST"], response_model=None)
    return app


def main() -> None:
    """Serve on loopback with the knobs of the environment."""
    parser = argparse.ArgumentParser(description="Stand-in for the LLM, TTS and STT services.")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    # asyncio's own loop rather than uvloop: libuv's timers have whole milliseconds.
    uvicorn.run(
        create_app(from_environment(ProviderKnobs, os.environ)),
        host="127.0.0.1",
        port=options.port,
        loop="asyncio",
        log_level="warning",
    )


if __name__ == "__main__":
    main()
