"""OpenTalking's Redis (split mode) → events, sessions and queue levels.

What comes in: a Redis URL. What goes out: every event of every session, what the session's
hash says of its model and avatar, and the length of the queues. It must not know turns.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from exporter import stages, upstream
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings, SessionSeen, TargetEvent
from exporter.sources import Emit

_T = TypeVar("_T")

POLL_S = 1.0
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 10.0


class RedisBusSource:
    """Subscribes to OpenTalking's event channels and polls its queues."""

    def __init__(self, url: str) -> None:
        self.health = SourceHealth("bus")
        self._url = url
        self._known_sessions: set[str] = set()

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled; reconnect with jittered, growing pauses."""
        retry = FIRST_RETRY_S
        while True:
            try:
                async with Redis.from_url(
                    self._url, decode_responses=True, socket_connect_timeout=5
                ) as redis:
                    await self._listen(redis, emit)
            except (RedisError, OSError) as error:
                self.health.failed(f"Redis at {without_password(self._url)}: {error}")
                emit(Readings(time.time(), self.health.name))
            else:
                retry = FIRST_RETRY_S
            await asyncio.sleep(retry * random.uniform(0.5, 1.5))
            retry = min(retry * 2, LONGEST_RETRY_S)

    async def _listen(self, redis: Redis, emit: Emit) -> None:
        async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe(upstream.EVENT_CHANNEL_PATTERN)
            next_poll = 0.0
            while True:
                if time.monotonic() >= next_poll:
                    await self._poll(redis, emit)
                    next_poll = time.monotonic() + POLL_S
                timeout = max(0.0, next_poll - time.monotonic())
                message = await pubsub.get_message(timeout=timeout)
                if message is not None:
                    await self._message(redis, message["channel"], message["data"], emit)

    async def _poll(self, redis: Redis, emit: Emit) -> None:
        started = time.monotonic()
        waiting = await answer(redis.llen(upstream.TASK_QUEUE_KEY))
        slot = await answer(redis.hgetall(upstream.SLOT_STATUS_KEY))
        readings = [_depth("tasks", float(waiting))]
        if slot.get("queue_size", "").isdigit():
            readings.append(_depth("flashtalk_slot", float(slot["queue_size"])))
        if slot.get("slot_occupied", "").isdigit():
            readings.append(Reading(stages.SLOT_OCCUPIED.name, float(slot["slot_occupied"])))
        emit(Readings(time.time(), self.health.name, tuple(readings)))
        self.health.succeeded(time.time(), duration=time.monotonic() - started)

    async def _message(self, redis: Redis, channel: str, payload: str, emit: Emit) -> None:
        at = time.time()
        session = channel.removeprefix(upstream.EVENT_CHANNEL_PREFIX)
        try:
            message = json.loads(payload)
            name, data = message["event"], message["data"]
            if not isinstance(name, str) or not isinstance(data, dict):
                raise TypeError("event or data has the wrong type")
        except (ValueError, KeyError, TypeError):
            self.health.dropped += 1
            return
        if session not in self._known_sessions:
            fields = await answer(redis.hgetall(upstream.SESSION_KEY_PREFIX + session))
            self._known_sessions.add(session)
            emit(
                SessionSeen(
                    at,
                    session,
                    model=fields.get("model"),
                    avatar=fields.get("avatar_id"),
                    state=fields.get("state"),
                )
            )
        emit(TargetEvent(at, stages.Source.BUS, session, name, data))
        self.health.succeeded(at, events=1)


async def answer(reply: Awaitable[_T] | _T) -> _T:
    """A command's reply: redis-py types each as perhaps not awaitable, asyncio's always is."""
    return await reply if isinstance(reply, Awaitable) else reply


def _depth(queue: str, value: float) -> Reading:
    return Reading(stages.QUEUE_LEVEL.name, value, {"queue": queue})


def without_password(url: str) -> str:
    """The URL with its credentials blotted out, fit for a log."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))
