"""OpenTalking's HTTP endpoints, polled → health, models and queue levels.

What comes in: the target's base URL. What goes out: which backend serves which model, whether
it is connected, queue levels, and that the target has just started. It must not know turns.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from exporter import gauges, steady_clock, upstream
from exporter.health import SourceHealth
from exporter.observations import (
    BackendsSeen,
    LanguageModelSeen,
    Reading,
    Readings,
    TargetStarted,
)
from exporter.sources import Emit

POLL_S = 2.0
TIMEOUT_S = 5.0


class OpenTalkingHttpSource:
    """Polls `/health`, `/models` and `/queue/status`.

    `read_queue`: use the queue status; off where Redis is read, which cannot mistake a broken
    queue for an empty one. `poll_s` may change while it runs.
    """

    def __init__(self, url: str, *, read_queue: bool, poll_s: float = POLL_S) -> None:
        self.health = SourceHealth("http")
        self.poll_s = poll_s
        self.url = url.rstrip("/")
        self.target_health: dict[str, Any] = {}
        self.models: list[dict[str, Any]] = []
        self.mode: str | None = None
        self._read_queue = read_queue

    async def run(self, emit: Emit) -> None:
        """Poll until cancelled."""
        async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S) as client:
            while True:
                await self.poll(client, emit)
                await asyncio.sleep(self.poll_s)

    async def poll(self, client: httpx.AsyncClient, emit: Emit) -> None:
        """Read every endpoint once."""
        started = time.monotonic()
        was_down = not self.health.up and self.health.last_seen is not None
        try:
            health = await _get(client, "/health")
            models = await _get(client, "/models")
            queue = await _get(client, "/queue/status") if self._read_queue else {}
            if self.mode is None:
                self.mode = await _mode(client)
        except (httpx.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            self.health.failed(f"OpenTalking at {self.url}: {reason}")
            emit(Readings(steady_clock.now(), self.health.name))
            return
        self.target_health = _without_secrets(health)
        self.models = [m for m in models.get("statuses") or [] if isinstance(m, dict)]
        now = steady_clock.now()
        if was_down:
            emit(TargetStarted(now))
        emit(BackendsSeen(now, {str(m.get("id")): str(m.get("backend")) for m in self.models}))
        told = self.target_health
        model, provider = told.get("llm_model") or None, told.get("llm_provider") or None
        emit(LanguageModelSeen(now, model, provider))
        readings = (*self._about(), *self._connected(), *_queue_levels(queue))
        emit(Readings(now, self.health.name, readings))
        self.health.succeeded(time.time(), events=1, duration=time.monotonic() - started)

    def _about(self) -> list[Reading]:
        if self.mode is None:
            return []
        return [Reading(gauges.TARGET_INFO.name, 1.0, {"mode": self.mode})]

    def _connected(self) -> list[Reading]:
        return [
            Reading(
                gauges.MODEL_CONNECTED.name,
                float(bool(m.get("connected"))),
                {"model": str(m.get("id")), "backend": str(m.get("backend"))},
            )
            for m in self.models
        ]


async def _get(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.get(path)
    response.raise_for_status()
    content = response.json()
    if not isinstance(content, dict):
        raise ValueError(f"{path} did not answer with a JSON object")
    return content


async def _mode(client: httpx.AsyncClient) -> str | None:
    info = (await _get(client, "/openapi.json")).get("info")
    title = info.get("title") if isinstance(info, dict) else None
    return upstream.MODE_BY_API_TITLE.get(str(title))


def _queue_levels(queue: dict[str, Any]) -> list[Reading]:
    readings = []
    size, occupied = queue.get("queue_size"), queue.get("slot_occupied")
    if isinstance(size, int) and not isinstance(size, bool):
        readings.append(Reading(gauges.QUEUE_LEVEL.name, float(size), {"queue": "flashtalk_slot"}))
    if isinstance(occupied, bool):
        readings.append(Reading(gauges.SLOT_OCCUPIED.name, float(occupied)))
    return readings


def _without_secrets(health: dict[str, Any]) -> dict[str, Any]:
    """Status and provider names. Keys, URLs and paths stay where they are."""
    kept = {"status", "default_model"}
    kept |= {f"{part}_{what}" for part in ("llm", "tts", "stt") for what in ("provider", "model")}
    return {k: v for k, v in health.items() if k in kept and isinstance(v, str)}
