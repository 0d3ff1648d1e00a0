"""What an outage costs is stated and counted, and nothing else is lost. All with real processes."""

import asyncio
import contextlib
import json
import signal
from http.server import ThreadingHTTPServer

import httpx
import pytest
import redis as redis_client

from exporter import upstream
from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from tests.otlp_receiver import OtlpReceiver
from tests.processes import exporter, free_port, redis_server, wait_until
from tests.recordings import redis_messages, sse_events

pytestmark = pytest.mark.e2e

NOWHERE = "http://127.0.0.1:9"
MODEL = "wav2lip"
RECORDED = redis_messages("split_omnirt_synth.redis_psubscribe.txt")


def source(url, name):
    return httpx.get(f"{url}/v1/target").json()["sources"][name]


def turns_counted(url):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(s.split()[-1]) for s in lines if s.startswith("opentalking_turns_total{"))


def turns_of(bundle):
    return [json.loads(line) for line in (bundle / "turns.jsonl").read_text().splitlines()]


def up_to(name):
    """The recorded turn up to the first event of this name, that one included."""
    for number, (_, payload) in enumerate(RECORDED, 1):
        if json.loads(payload)["event"] == name:
            return RECORDED[:number]
    raise ValueError(f"no {name} in the recording")


BEGINNING = up_to(upstream.SPEECH_MEDIA_STARTED)
WHOLE_TURN = up_to(upstream.SPEECH_ENDED)


def publish(port, messages):
    with redis_client.Redis(port=port) as client:
        for channel, payload in messages:
            client.publish(channel, payload)


def test_redis_is_killed_and_restarted_in_the_middle_of_a_turn(tmp_path):
    port = free_port()
    session = RECORDED[0][0].removeprefix(upstream.EVENT_CHANNEL_PREFIX)
    bundle = tmp_path / "b"
    url_of_redis = f"redis://127.0.0.1:{port}/0"
    arguments = ["--target", NOWHERE, "--redis", url_of_redis, "--bundle", str(bundle)]
    with exporter(tmp_path, *arguments) as (url, child):
        with redis_server(tmp_path, port) as (_, server):
            wait_until(lambda: source(url, "bus")["up"], "the first connection")
            publish(port, BEGINNING)
            wait_until(
                lambda: source(url, "bus")["events"] == len(BEGINNING), "the turn's beginning"
            )
            server.kill()
            wait_until(lambda: not source(url, "bus")["up"], "the loss to be noticed")
        assert "opentalking_queue_depth{" not in httpx.get(f"{url}/metrics").text
        with redis_server(tmp_path, port):
            with redis_client.Redis(port=port) as client:
                fields = {"model": MODEL, "avatar_id": "demo", "state": "ready"}
                client.hset(upstream.SESSION_KEY_PREFIX + session, mapping=fields)
            wait_until(lambda: source(url, "bus")["up"], "the reconnection")
            # Any event of the session makes the exporter look how it stands.
            publish(port, [(RECORDED[0][0], '{"event": "ping", "data": {}}')])
            wait_until(lambda: turns_counted(url) == 1, "the interrupted turn")
            publish(port, WHOLE_TURN)
            wait_until(lambda: turns_counted(url) == 2, "the turn after it")
        bus = source(url, "bus")
        child.terminate()
        assert child.wait(20) == 0
    assert (bus["gaps"], bus["dropped"]) == (1, 0)
    assert bus["events"] == len(BEGINNING) + 1 + len(WHOLE_TURN)
    interrupted, after = turns_of(bundle)
    assert interrupted["outcome"] == Outcome.INCOMPLETE
    assert interrupted["error"]["code"] == "BUS_GAP"
    assert after["outcome"] == Outcome.COMPLETED
    assert (after["model"], after["avatar"]) == (MODEL, "demo")
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()


class ReceiverAt(OtlpReceiver):
    """A receiver on a port that others know already."""

    def __init__(self, port):
        super().__init__()
        handler = self._http.RequestHandlerClass
        self._http.server_close()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.http_url = f"http://127.0.0.1:{port}"


def relay_turn(url, origin, session):
    """One recorded turn, as a client of this name relays it."""
    records = [
        {
            "kind": "event",
            "sequence": number,
            "session": session,
            "unix": at,
            "event": name,
            "data": data,
        }
        for number, (at, name, data) in enumerate(sse_events("unified_wav2lip_synth.sse.txt"), 1)
    ]
    body = {"version": 1, "origin": origin, "records": records}
    httpx.post(f"{url}/v1/marks", json=body).raise_for_status()


def test_an_otlp_endpoint_goes_away_and_comes_back(tmp_path):
    port = free_port()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with exporter(tmp_path, "--target", NOWHERE, **environment) as (url, child):

        def otlp():
            return source(url, "otlp")

        with ReceiverAt(port) as before:
            relay_turn(url, "a", "before")
            wait_until(lambda: otlp()["events"], "the first trace")
            spans_a_turn = otlp()["events"]
        relay_turn(url, "b", "during")
        wait_until(lambda: otlp()["dropped"], "the loss to be counted")
        assert not otlp()["up"]
        with ReceiverAt(port) as after:
            relay_turn(url, "c", "after")
            wait_until(lambda: otlp()["up"], "the endpoint's return")
            told = otlp()
            child.terminate()
            assert child.wait(20) == 0
    # Every span of three turns is accounted for: sent, or counted as lost.
    assert told["dropped_by"] == {"not_delivered": spans_a_turn}
    assert told["events"] == 2 * spans_a_turn
    assert sessions_of(before) == {"before"}
    assert sessions_of(after) == {"after"}
    assert len(before.spans) == len(after.spans) == spans_a_turn


def sessions_of(receiver):
    roots = [span for span in receiver.spans if not span.parent_span_id]
    told = [{a.key: a.value.string_value for a in root.attributes} for root in roots]
    return {value for attributes in told for key, value in attributes.items() if "session" in key}


@contextlib.asynccontextmanager
async def talking(target):
    """A real session with media; speaks when asked."""
    async with OpenTalking(target.url) as client:
        config = SessionConfig(model=MODEL, avatar=(await client.avatars())[0])
        async with Session(client, config, NullSink()) as session:
            yield session


async def speak(session):
    result = await session.turn(TextInput("Hello"))
    assert result.outcome is Outcome.COMPLETED
    return session.report.session


async def in_thread(condition, what):
    """Wait without holding up the media of the sessions on this loop."""
    await asyncio.to_thread(wait_until, condition, what)


def test_sessions_from_before_and_after_the_start_are_seen(split, tmp_path):
    bundle = tmp_path / "b"
    arguments = ["--target", split.url, "--redis", split.redis, "--bundle", str(bundle)]
    arguments += ["--omnirt", split.facts["omnirt"]["url"]]

    async def run():
        async with talking(split) as early:
            with exporter(tmp_path, *arguments) as (url, child):
                await in_thread(lambda: source(url, "bus")["up"], "the bus")
                async with talking(split) as late:
                    names = {await speak(early), await speak(late)}
                    await in_thread(lambda: turns_counted(url) == 2, "both turns")
                    metrics = (await asyncio.to_thread(httpx.get, f"{url}/metrics")).text
                child.terminate()
                assert await asyncio.to_thread(child.wait, 20) == 0
        return names, metrics

    names, metrics = asyncio.run(run())
    turns = turns_of(bundle)
    assert {turn["session"] for turn in turns} == names
    assert len(names) == len(turns) == 2
    assert {turn["model"] for turn in turns} == {MODEL}
    assert all(turn["avatar"] for turn in turns)
    # The real backend's own series, withdrawn from nobody and ours untouched.
    assert "\nomnirt_queue_depth{" in metrics
    assert 'talkscope_omnirt_model_connected{backend_instance="127.0.0.1:' in metrics


def test_a_killed_exporter_sees_the_sessions_again(split, tmp_path):
    arguments = ["--target", split.url, "--redis", split.redis]
    bundles = [tmp_path / "first", tmp_path / "second"]

    async def run():
        async with talking(split) as session:
            with exporter(tmp_path, *arguments, "--bundle", str(bundles[0])) as (url, child):
                await in_thread(lambda: source(url, "bus")["up"], "the bus")
                await speak(session)
                await in_thread(lambda: turns_counted(url) == 1, "the first turn")
                child.send_signal(signal.SIGKILL)
                await asyncio.to_thread(child.wait)
            with exporter(tmp_path, *arguments, "--bundle", str(bundles[1])) as (url, child):
                await in_thread(lambda: source(url, "bus")["up"], "the bus again")
                name = await speak(session)
                await in_thread(lambda: turns_counted(url) == 1, "the second turn")
                child.terminate()
                assert await asyncio.to_thread(child.wait, 20) == 0
            return name

    name = asyncio.run(run())
    # What was finished before the kill is on disk; what came after is complete.
    for bundle in bundles:
        [turn] = turns_of(bundle)
        assert (turn["session"], turn["model"]) == (name, MODEL)
        assert turn["avatar"]
        assert turn["outcome"] == Outcome.COMPLETED
    assert json.loads((bundles[0] / "manifest.json").read_text())["complete"] is False
    assert json.loads((bundles[1] / "manifest.json").read_text())["complete"] is True
