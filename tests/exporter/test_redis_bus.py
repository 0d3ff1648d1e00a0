import asyncio
import contextlib
import json

import pytest
from redis.asyncio import Redis

from exporter import stages, upstream
from exporter.observations import Readings, SessionSeen, TargetEvent
from exporter.sources.redis_bus import RedisBusSource, without_password
from tests.processes import free_port, redis_server
from tests.recordings import redis_messages


@pytest.fixture
def redis_url(tmp_path):
    with redis_server(tmp_path) as (url, _):
        yield url


async def until(condition, timeout=10.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def listening(url):
    source, seen = RedisBusSource(url), []
    task = asyncio.create_task(source.run(seen.append))
    try:
        yield source, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_every_recorded_event_is_seen_once_and_in_order(redis_url):
    messages = redis_messages("split_omnirt_synth.redis_psubscribe.txt")

    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            for channel, payload in messages:
                await redis.publish(channel, payload)
            await until(lambda: sum(isinstance(o, TargetEvent) for o in seen) == len(messages))
            return [o for o in seen if isinstance(o, TargetEvent)], source.health.events

    events, counted = asyncio.run(run())
    assert [e.name for e in events] == [json.loads(p)["event"] for _, p in messages]
    assert {e.session for e in events} == {
        c.removeprefix(upstream.EVENT_CHANNEL_PREFIX) for c, _ in messages
    }
    assert counted == len(messages) > 5


def test_a_sessions_hash_tells_model_and_avatar(redis_url):
    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            fields = {"model": "wav2lip", "avatar_id": "demo", "state": "ready"}
            await redis.hset(upstream.SESSION_KEY_PREFIX + "s1", mapping=fields)
            for _ in range(3):
                await redis.publish(
                    upstream.EVENT_CHANNEL_PREFIX + "s1", '{"event": "ping", "data": {}}'
                )
            await until(lambda: sum(isinstance(o, TargetEvent) for o in seen) == 3)
            return [o for o in seen if isinstance(o, SessionSeen)]

    [seen] = asyncio.run(run())
    assert (seen.session, seen.model, seen.avatar, seen.state) == ("s1", "wav2lip", "demo", "ready")


def test_queue_levels_are_those_of_redis(redis_url):
    async def run():
        async with Redis.from_url(redis_url) as redis:
            await redis.rpush(upstream.TASK_QUEUE_KEY, "a", "b", "c")
            await redis.hset(
                upstream.SLOT_STATUS_KEY, mapping={"slot_occupied": 1, "queue_size": 2}
            )
            async with listening(redis_url) as (_, seen):
                await until(lambda: any(isinstance(o, Readings) for o in seen))
                return next(o for o in seen if isinstance(o, Readings))

    readings = asyncio.run(run()).readings
    assert {(r.name, r.labels.get("queue")): r.value for r in readings} == {
        (stages.QUEUE_LEVEL.name, "tasks"): 3.0,
        (stages.QUEUE_LEVEL.name, "flashtalk_slot"): 2.0,
        (stages.SLOT_OCCUPIED.name, None): 1.0,
    }


def test_foreign_messages_are_counted_and_skipped(redis_url):
    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            for payload in ("not json", "[]", '{"event": 3, "data": {}}', '{"event": "x"}'):
                await redis.publish(upstream.EVENT_CHANNEL_PREFIX + "s", payload)
            await redis.publish(
                upstream.EVENT_CHANNEL_PREFIX + "s", '{"event": "ping", "data": {}}'
            )
            await until(lambda: any(isinstance(o, TargetEvent) for o in seen))
            return source.health.dropped

    assert asyncio.run(run()) == 4


def test_a_redis_that_goes_away_and_comes_back(tmp_path):
    port = free_port()

    async def run():
        url = f"redis://127.0.0.1:{port}/0"
        async with listening(url) as (source, seen):
            await until(lambda: source.health.failures)
            assert not source.health.up
            assert f"127.0.0.1:{port}" in source.health.reason
            with redis_server(tmp_path, port):
                await until(lambda: source.health.up)
                async with Redis.from_url(url) as redis:
                    await redis.publish(
                        upstream.EVENT_CHANNEL_PREFIX + "s", '{"event": "ping", "data": {}}'
                    )
                await until(lambda: any(isinstance(o, TargetEvent) for o in seen))
            await until(lambda: not source.health.up)
            # Its levels are withdrawn, not kept.
            assert [o for o in seen if isinstance(o, Readings)][-1].readings == ()

    asyncio.run(run())


def test_a_password_does_not_reach_the_log():
    assert without_password("redis://me:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("redis://host:6379/0") == "redis://host:6379/0"
