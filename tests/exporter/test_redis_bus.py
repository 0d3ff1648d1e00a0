import asyncio
import contextlib
import json
import subprocess

import pytest
from redis.asyncio import Redis

from exporter import gauges, upstream
from exporter.live import LiveSessions
from exporter.observations import BusGap, BusLost, Readings, SessionSeen, TargetEvent
from exporter.sources import redis_bus
from exporter.sources.redis_bus import RedisBusSource, without_password
from tests.processes import free_port, process, redis_binary, redis_server
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
        (gauges.QUEUE_LEVEL.name, "tasks"): 3.0,
        (gauges.QUEUE_LEVEL.name, "flashtalk_slot"): 2.0,
        (gauges.SLOT_OCCUPIED.name, None): 1.0,
    }


def test_a_session_that_ends_without_an_event_is_told_of(redis_url, monkeypatch):
    """OpenTalking closes a session by its hash alone; a hash expires, and some are just deleted."""
    monkeypatch.setattr(redis_bus, "STATES_S", 0.05)
    ends = {"closes": "closing", "closed": "closed", "fails": "error"}

    async def run():
        async with Redis.from_url(redis_url) as redis:
            for session in (*ends, "expires", "stays"):
                await open_session(redis, session)
            async with listening(redis_url) as (_, seen):
                await until(lambda: len(of(SessionSeen, seen)) == 5)
                for session, state in ends.items():
                    await redis.hset(upstream.SESSION_KEY_PREFIX + session, "state", state)
                await redis.delete(upstream.SESSION_KEY_PREFIX + "expires")
                await until(lambda: len(of(SessionSeen, seen)) == 9)
                # Once is enough.
                await asyncio.sleep(0.2)
                return of(SessionSeen, seen)[5:]

    told = asyncio.run(run())
    assert {s.session: s.state for s in told} == ends | {"expires": "closed"}
    live = LiveSessions()
    for seen in (SessionSeen(1.0, s, state="ready") for s in (*ends, "expires", "stays")):
        live.feed(seen)
    for seen in told:
        live.feed(seen)
    assert sum(live.counts().values()) == 1


def test_a_session_that_never_had_a_hash_is_not_taken_for_ended(redis_url, monkeypatch):
    monkeypatch.setattr(redis_bus, "STATES_S", 0.05)

    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            await redis.publish(upstream.EVENT_CHANNEL_PREFIX + "s", PING)
            await until(lambda: of(TargetEvent, seen))
            await asyncio.sleep(0.3)
            return of(SessionSeen, seen)

    assert asyncio.run(run()) == []


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


PING = '{"event": "ping", "data": {}}'


async def open_session(redis, session, **fields):
    told = {"model": "wav2lip", "avatar_id": "demo", "state": "ready"} | fields
    await redis.hset(upstream.SESSION_KEY_PREFIX + session, mapping=told)


def of(kind, seen):
    return [o for o in seen if isinstance(o, kind)]


def test_sessions_that_were_already_there_are_seen(redis_url):
    async def run():
        async with Redis.from_url(redis_url) as redis:
            for number in range(1_200):
                await open_session(redis, f"s{number}", state="speaking")
            await redis.set(upstream.SESSION_KEY_PREFIX + "foreign", "not a hash")
            async with listening(redis_url) as (_, seen):
                await until(lambda: len(of(SessionSeen, seen)) >= 1_200)
                return of(SessionSeen, seen)

    seen = asyncio.run(run())
    assert {o.session for o in seen} == {f"s{n}" for n in range(1_200)}
    assert {(o.model, o.avatar, o.state) for o in seen} == {("wav2lip", "demo", "speaking")}


def test_events_do_not_wait_for_a_sessions_look_up(redis_url, monkeypatch):
    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            allowed = asyncio.Event()
            tell = source._tell

            async def held_up(*arguments):
                await allowed.wait()
                await tell(*arguments)

            monkeypatch.setattr(source, "_tell", held_up)
            for number in range(5):
                await open_session(redis, f"s{number}")
                await redis.publish(f"{upstream.EVENT_CHANNEL_PREFIX}s{number}", PING)
            await until(lambda: len(of(TargetEvent, seen)) == 5)
            assert of(SessionSeen, seen) == []
            allowed.set()
            await until(lambda: len(of(SessionSeen, seen)) == 5)

    asyncio.run(run())


def test_the_memory_of_sessions_is_bounded(redis_url, monkeypatch):
    monkeypatch.setattr(redis_bus, "SESSIONS_REMEMBERED", 10)

    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            for number in range(50):
                await redis.publish(f"{upstream.EVENT_CHANNEL_PREFIX}s{number}", PING)
            await until(lambda: len(of(TargetEvent, seen)) == 50)
            return list(source._known)

    assert asyncio.run(run()) == [f"s{n}" for n in range(40, 50)]


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
                    await redis.publish(upstream.EVENT_CHANNEL_PREFIX + "s", PING)
                await until(lambda: of(TargetEvent, seen))
            await until(lambda: not source.health.up)
            # Its levels are withdrawn, not kept.
            assert of(Readings, seen)[-1].readings == ()
            # Before the first connection there was nothing to miss.
            assert of(BusGap, seen) == []
            with redis_server(tmp_path, port):
                async with Redis.from_url(url) as redis:
                    await open_session(redis, "meanwhile")
                await until(lambda: source.health.up)
                await until(lambda: of(SessionSeen, seen))
        return source.health, seen

    health, seen = asyncio.run(run())
    [gap] = of(BusGap, seen)
    # It was told at once, so that relays count meanwhile.
    assert {lost.since for lost in of(BusLost, seen)} == {gap.began}
    assert seen.index(of(BusLost, seen)[0]) < seen.index(gap)
    assert health.gaps == 1
    [event] = of(TargetEvent, seen)
    assert event.at <= gap.began < gap.ended
    [resynchronised] = of(SessionSeen, seen)
    assert resynchronised.session == "meanwhile"
    assert seen.index(gap) < seen.index(resynchronised)


def test_a_connection_that_is_cut_is_a_gap(redis_url):
    """The client library must not heal it behind our back."""

    async def run():
        async with Redis.from_url(redis_url) as redis, listening(redis_url) as (source, seen):
            await until(lambda: source.health.up)
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: of(BusGap, seen))
            await redis.publish(upstream.EVENT_CHANNEL_PREFIX + "s", PING)
            await until(lambda: of(TargetEvent, seen))
            return of(BusGap, seen)

    assert len(asyncio.run(run())) == 1


def test_a_silent_subscription_is_taken_for_dead(redis_url, monkeypatch):
    """The server answers on one connection and is frozen out of the other."""
    monkeypatch.setattr(redis_bus, "SILENCE_S", 0.0)

    async def run():
        async with listening(redis_url) as (source, seen):
            source.poll_s = 0.1
            await until(lambda: source.health.up)
            monkeypatch.setattr(source, "_noted", lambda now: None)
            source._heard_monotonic -= 60
            await until(lambda: not source.health.up)
            assert "silent" in source.health.reason
            monkeypatch.undo()
            await until(lambda: of(BusGap, seen))

    asyncio.run(run())


@pytest.mark.parametrize("user", ["", "watcher"])
def test_user_password_and_database_come_from_the_url(tmp_path, user):
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--requirepass", "s3cret", "--dir", str(tmp_path)]
    command += ["--user", "watcher", "on", ">s3cret", "~*", "&*", "+@all"]
    with process(command, log=tmp_path / "redis.log"):
        told = _queue_length(f"redis://{user}:s3cret@127.0.0.1:{port}/3", database=3)
        assert told == 2.0
        assert _queue_length(f"redis://{user}:s3cret@127.0.0.1:{port}/0") == 0.0

        async def refused():
            async with listening(f"redis://{user}:wr0ng@127.0.0.1:{port}/3") as (source, _):
                await until(lambda: source.health.failures)
                return source.health

        health = asyncio.run(refused())
        assert not health.up
        assert "password" in health.reason
        assert "wr0ng" not in health.reason


def test_tls(tmp_path):
    port = free_port()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    make += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    command = [redis_binary(), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"]
    command += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--save", ""]
    command += ["--tls-auth-clients", "no", "--dir", str(tmp_path)]
    with process(command, log=tmp_path / "redis.log"):
        url = f"rediss://127.0.0.1:{port}/0"
        assert _queue_length(f"{url}?ssl_ca_certs={certificate}") == 0.0

        async def untrusted():
            async with listening(url) as (source, _):
                await until(lambda: source.health.failures)
                return source.health.reason

        assert "certificate" in asyncio.run(untrusted()).lower()


def _queue_length(url, database=None):
    """Length of the task queue as the source reads it, after two tasks if a database is named."""

    async def run():
        async with Redis.from_url(url) as redis, listening(url) as (source, seen):
            await until(lambda: source.health.up)
            if database is not None:
                await redis.rpush(upstream.TASK_QUEUE_KEY, "a", "b")
                seen.clear()
            source.poll_s = 0.1
            await until(lambda: [o for o in of(Readings, seen) if o.readings])
            return of(Readings, seen)[-1].readings[0].value

    return asyncio.run(run())


def test_a_password_does_not_reach_the_log():
    assert without_password("redis://me:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("redis://host:6379/0") == "redis://host:6379/0"
    assert without_password("redis://host/0?password=secret") == "redis://host/0"
