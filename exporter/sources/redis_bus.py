"""OpenTalking's Redis (split mode) → events, sessions, queue levels, and gaps in all of it.

What comes in: a Redis URL. What goes out: every event of every session, what each session's
hash says of its model, avatar and state, the length of the queues, and when nobody listened.
It must not know turns.

Four tasks share a connection pool, so that nothing waits for another's round trip: one takes
events off the subscription, one looks sessions up, one polls the queues, and one looks after the
sessions that are known, since no event says that one has ended.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from exporter import gauges, stages, steady_clock, upstream
from exporter.health import SourceHealth
from exporter.observations import BusGap, BusLost, Reading, Readings, SessionSeen, TargetEvent
from exporter.sources import Emit

_T = TypeVar("_T")

POLL_S: Final = 1.0
ANSWER_S: Final = 5.0
"""The longest a command may take; a Redis that is slower counts as away."""

SILENCE_S: Final = 10.0
"""A subscription that brings nothing for this long, not even answers to pings, is dead: a
firewall that forgot the connection closes it on neither end."""

FIRST_RETRY_S: Final = 0.2
LONGEST_RETRY_S: Final = 10.0

STATES_S: Final = 10.0
"""Between two looks at the states of the known sessions: one HGET each, some 10 µs of Redis."""

STATES_A_PAGE: Final = 100
"""Few, so that events and scrapes wait for a millisecond at most."""

SESSIONS_REMEMBERED: Final = 50_000
KEYS_A_PAGE: Final = 500


class RedisBusSource:
    """Subscribes to OpenTalking's event channels, scans its sessions and polls its queues.

    `poll_s` may change while it runs.
    """

    def __init__(self, url: str, *, poll_s: float = POLL_S) -> None:
        self.health = SourceHealth("bus")
        self.poll_s = poll_s
        self._url = url
        self._known: OrderedDict[str, bool] = OrderedDict()
        """Sessions, and whether they have had a hash."""
        self._asked: set[str] = set()
        self._ask = asyncio.Event()
        self._heard: float | None = None
        self._heard_monotonic = 0.0
        self._retry_s = FIRST_RETRY_S

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled; reconnect with jittered, growing pauses."""
        while True:
            try:
                async with Redis.from_url(
                    self._url,
                    decode_responses=True,
                    socket_connect_timeout=ANSWER_S,
                    socket_keepalive=True,
                    # The client would reconnect by itself and hide that events were lost.
                    retry=Retry(NoBackoff(), 0),
                ) as redis:
                    await self._connected(redis, emit)
            except* (RedisError, OSError) as group:
                self.health.failed(f"Redis at {without_password(self._url)}: {_first(group)}")
                if self._heard is not None:
                    emit(BusLost(self._heard))
                emit(Readings(steady_clock.now(), self.health.name))
            await asyncio.sleep(self._retry_s * random.uniform(0.5, 1.5))
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)

    async def _connected(self, redis: Redis, emit: Emit) -> None:
        async with redis.pubsub() as pubsub:
            await pubsub.psubscribe(upstream.EVENT_CHANNEL_PATTERN)
            async with asyncio.timeout(ANSWER_S):
                await pubsub.parse_response()
            self._now_listening(emit)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(pubsub, emit))
                tasks.create_task(self._look_up(redis, emit))
                tasks.create_task(self._poll(redis, pubsub, emit))
                tasks.create_task(self._look_after(redis, emit))

    def _now_listening(self, emit: Emit) -> None:
        now = steady_clock.now()
        if self._heard is not None:
            self.health.gaps += 1
            emit(BusGap(self._heard, now))
            # What was known of the sessions may have changed meanwhile.
            self._known.clear()
        self._retry_s = FIRST_RETRY_S
        self._noted(now)

    def _noted(self, now: float) -> None:
        self._heard, self._heard_monotonic = now, time.monotonic()

    async def _listen(self, pubsub: PubSub, emit: Emit) -> None:
        while True:
            # Not `listen()`: what it does to each message costs more than reading it.
            response = await pubsub.parse_response()
            if response is None:
                # The answer to a health check, if the URL asks for them.
                continue
            kind, *rest = response
            now = steady_clock.now()
            self._noted(now)
            if kind == "pmessage":
                _, channel, payload = rest
                self._message(channel, payload, now, emit)

    def _message(self, channel: str, payload: str, at: float, emit: Emit) -> None:
        session = channel.removeprefix(upstream.EVENT_CHANNEL_PREFIX)
        try:
            message = json.loads(payload)
            name, data = message["event"], message["data"]
            if not isinstance(name, str) or not isinstance(data, dict):
                raise TypeError("event or data has the wrong type")
        except (ValueError, KeyError, TypeError, RecursionError):
            self.health.drop("malformed")
            return
        if session in self._known:
            self._known.move_to_end(session)
        else:
            self._asked.add(session)
            self._ask.set()
            self._remember(session, has_hash=False)
        emit(TargetEvent(at, stages.Source.BUS, session, name, data))
        self.health.succeeded(time.time(), events=1)

    async def _look_up(self, redis: Redis, emit: Emit) -> None:
        """Tell of the sessions there are, then of each new one, many to a round trip."""
        # Events that came between two connections may have changed any session.
        cursor: int = 0
        while True:
            async with asyncio.timeout(ANSWER_S):
                cursor, keys = await redis.scan(
                    cursor, match=upstream.SESSION_KEY_PREFIX + "*", count=KEYS_A_PAGE
                )
            found = {key.removeprefix(upstream.SESSION_KEY_PREFIX) for key in keys}
            await self._tell(redis, found, emit)
            if cursor == 0:
                break
        while True:
            await self._ask.wait()
            self._ask.clear()
            asked, self._asked = self._asked, set()
            try:
                await self._tell(redis, asked, emit)
            except BaseException:
                self._asked |= asked
                self._ask.set()
                raise

    async def _tell(self, redis: Redis, sessions: Iterable[str], emit: Emit) -> None:
        names = list(sessions)
        for begin in range(0, len(names), KEYS_A_PAGE):
            page = names[begin : begin + KEYS_A_PAGE]
            async with redis.pipeline(transaction=False) as pipeline:
                for session in page:
                    pipeline.hgetall(upstream.SESSION_KEY_PREFIX + session)
                async with asyncio.timeout(ANSWER_S):
                    replies: list[Any] = await pipeline.execute(raise_on_error=False)
            now = steady_clock.now()
            for session, fields in zip(page, replies, strict=True):
                # Gone meanwhile, or another kind of key under the same prefix.
                if not isinstance(fields, dict) or not fields:
                    continue
                self._remember(session, has_hash=True)
                emit(
                    SessionSeen(
                        now,
                        session,
                        model=fields.get("model"),
                        avatar=fields.get("avatar_id"),
                        state=fields.get("state"),
                    )
                )

    async def _look_after(self, redis: Redis, emit: Emit) -> None:
        """Tell of known sessions that have ended, and forget them."""
        while True:
            await asyncio.sleep(STATES_S)
            names = [name for name, has_hash in self._known.items() if has_hash]
            for begin in range(0, len(names), STATES_A_PAGE):
                page = names[begin : begin + STATES_A_PAGE]
                async with redis.pipeline(transaction=False) as pipeline:
                    for session in page:
                        pipeline.hget(upstream.SESSION_KEY_PREFIX + session, upstream.STATE_FIELD)
                    async with asyncio.timeout(ANSWER_S):
                        states: list[Any] = await pipeline.execute(raise_on_error=False)
                now = steady_clock.now()
                for session, state in zip(page, states, strict=True):
                    # None: the hash has expired.
                    gone = upstream.CLOSED_STATE if state is None else state
                    if gone in upstream.GONE_STATES:
                        self._known.pop(session, None)
                        emit(SessionSeen(now, session, state=gone))

    def _remember(self, session: str, *, has_hash: bool) -> None:
        self._known[session] = has_hash
        self._known.move_to_end(session)
        while len(self._known) > SESSIONS_REMEMBERED:
            self._known.popitem(last=False)

    async def _poll(self, redis: Redis, pubsub: PubSub, emit: Emit) -> None:
        while True:
            started = time.monotonic()
            if started - self._heard_monotonic > SILENCE_S + 2 * self.poll_s:
                raise TimeoutError("the subscription is silent")
            async with asyncio.timeout(ANSWER_S):
                await pubsub.ping()
                waiting = await answer(redis.llen(upstream.TASK_QUEUE_KEY))
                slot = await answer(redis.hgetall(upstream.SLOT_STATUS_KEY))
            emit(Readings(steady_clock.now(), self.health.name, tuple(_levels(waiting, slot))))
            self.health.succeeded(time.time(), duration=time.monotonic() - started)
            await asyncio.sleep(self.poll_s)


async def answer(reply: Awaitable[_T] | _T) -> _T:
    """A command's reply: redis-py types each as perhaps not awaitable, asyncio's always is."""
    return await reply if isinstance(reply, Awaitable) else reply


def _levels(waiting: int, slot: dict[str, str]) -> list[Reading]:
    readings = [_depth("tasks", float(waiting))]
    if slot.get("queue_size", "").isdigit():
        readings.append(_depth("flashtalk_slot", float(slot["queue_size"])))
    if slot.get("slot_occupied", "").isdigit():
        readings.append(Reading(gauges.SLOT_OCCUPIED.name, float(slot["slot_occupied"])))
    return readings


def _depth(queue: str, value: float) -> Reading:
    return Reading(gauges.QUEUE_LEVEL.name, value, {"queue": queue})


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The first cause in words; a timeout has none of its own."""
    cause: BaseException = group
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause) or f"no answer within {ANSWER_S:.0f} s"


def without_password(url: str) -> str:
    """The URL without credentials and options, which may hold some, fit for a log."""
    url = url.partition("?")[0]
    before, at, host = url.rpartition("@")
    return f"{before.partition('://')[0]}://***@{host}" if at else url
