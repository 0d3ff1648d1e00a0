"""What an outage costs is stated and counted, and nothing else is lost. All with real processes."""

import asyncio
import contextlib
import json
import os
import signal
import time
from http.server import ThreadingHTTPServer

import httpx
import pytest
import redis as redis_client

from exporter import stages, upstream
from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from tests.e2e.conftest import running
from tests.e2e.speaking import MODEL, Recorder, Speakers
from tests.otlp_receiver import OtlpReceiver
from tests.processes import WallClock, exporter, free_port, redis_server, wait_until
from tests.recordings import redis_messages, sse_events

pytestmark = pytest.mark.e2e

NOWHERE = "http://127.0.0.1:9"
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


# --- the real OpenTalking under faults: nothing is recorded, relayed or simulated ---------------


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """The real split mode on a host that starts again what dies; yields it and its folder."""
    folder = tmp_path_factory.mktemp("fragile")
    options = ("--restart", "--llm-text", "Hi.", "--width", "64", "--height", "64")
    with running(folder, "split", *options) as target:
        yield target, folder


def kill(folder, name):
    """SIGKILL one process of the target; return when it is up again."""

    def pid():
        return json.loads((folder / "target.json").read_text())[name]["pid"]

    before = pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pid() != before, f"a new {name}")


def counted(url, series):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    [line] = [s for s in lines if s.startswith(series)]
    return float(line.split()[-1])


def speaking_now(url):
    return counted(url, 'opentalking_sessions{state="speaking"}')


def wall_ahead(url):
    """How far the exporter's wall clock is ahead of ours."""
    seen = counted(url, 'talkscope_source_last_seen_timestamp_seconds{source="bus"}')
    return seen - time.time()


def attached(fragile, folder, *arguments, **environment):
    """An exporter on the fragile target's bus."""
    target, _ = fragile
    arguments = ("--target", target.url, "--redis", target.redis, *arguments)
    return exporter(folder, *arguments, **environment)


def test_redis_dies_under_the_real_worker_in_the_middle_of_a_turn(fragile, tmp_path):
    """What is published while Redis is away is lost; here that is nothing, so the turn is whole."""
    target, folder = fragile
    bundle = tmp_path / "b"
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(Recorder(target.redis))
        speakers = stack.enter_context(Speakers(target, before))
        url, child = stack.enter_context(attached(fragile, tmp_path, "--bundle", str(bundle)))
        wait_until(lambda: source(url, "bus")["up"], "the bus")
        [session] = speakers.create()
        with speakers.held():
            speakers.begin([session])
            wait_until(lambda: speaking_now(url) == 1, "the turn")
            kill(folder, "redis")
            wait_until(lambda: source(url, "bus")["gaps"] == 1, "the reconnection")
            assert source(url, "bus")["up"]
            after = stack.enter_context(Recorder(target.redis))
        wait_until(lambda: after.count(upstream.SPEECH_ENDED) == 1, "the end of the turn")
        wait_until(lambda: turns_counted(url) == 1, "the turn to be counted")
        speakers = stack.enter_context(Speakers(target, after))
        speakers.begin([session])
        wait_until(lambda: after.count(upstream.SPEECH_ENDED) == 2, "the turn after it")
        wait_until(lambda: turns_counted(url) == 2, "that to be counted")
        bus = source(url, "bus")
        child.terminate()
        assert child.wait(20) == 0
    assert bus["events"] == len(before.events) + len(after.events)
    assert (bus["gaps"], bus["dropped"]) == (1, 0)
    turns = turns_of(bundle)
    assert [(t["session"], t["outcome"], t["error"], t["model"]) for t in turns] == [
        (session, Outcome.COMPLETED, None, MODEL)
    ] * 2


def test_a_killed_worker_costs_the_turns_it_spoke_and_no_other(fragile, tmp_path):
    """OpenTalking leaves `speaking` in their hashes for ever; `turn_timeout` bounds our wait."""
    target, folder = fragile
    bundle = tmp_path / "b"
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(Recorder(target.redis))
        speakers = stack.enter_context(Speakers(target, bus))
        arguments = ("--bundle", str(bundle), "--turn-timeout", "4")
        url, child = stack.enter_context(attached(fragile, tmp_path, *arguments))
        wait_until(lambda: source(url, "bus")["up"], "the bus")
        lost = speakers.create(2)
        with speakers.held():
            speakers.begin(lost)
            wait_until(lambda: speaking_now(url) == 2, "two turns")
            kill(folder, "worker")
            wait_until(lambda: turns_counted(url) == 2, "their outcomes")
        assert speaking_now(url) == 0
        [session] = speakers.create()
        speakers.begin([session])
        wait_until(lambda: turns_counted(url) == 3, "a turn of the new worker")
        events = source(url, "bus")["events"]
        child.terminate()
        assert child.wait(20) == 0
    told = [(turn["session"], turn["outcome"]) for turn in turns_of(bundle)]
    assert sorted(told[:2]) == sorted((name, Outcome.INCOMPLETE) for name in lost)
    assert told[2:] == [(session, Outcome.COMPLETED)]
    assert events == len(bus.events)


def test_an_exporter_killed_in_the_middle_of_a_turn_loses_that_turn_alone(fragile, tmp_path):
    """The next one sees the session speak, and counts what is left of the turn as ignored."""
    target, _ = fragile
    bundle = tmp_path / "b"
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(Recorder(target.redis))
        speakers = stack.enter_context(Speakers(target, bus))
        [session] = speakers.create()
        with speakers.held():
            with attached(fragile, tmp_path) as (url, child):
                wait_until(lambda: source(url, "bus")["up"], "the bus")
                speakers.begin([session])
                wait_until(lambda: speaking_now(url) == 1, "the turn")
                child.kill()
                child.wait()
            missed = len(bus.events)
            exporting = attached(fragile, tmp_path, "--bundle", str(bundle))
            url, child = stack.enter_context(exporting)
            wait_until(lambda: speaking_now(url) == 1, "the session that was there")
        speakers.until_all_ended()
        left = bus.events[missed:]
        wait_until(lambda: source(url, "bus")["events"] == len(left), "the rest of the turn")
        assert (speaking_now(url), turns_counted(url)) == (0, 0)
        assert counted(url, "talkscope_events_ignored_total ") == sum(
            event.name.startswith("speech.") for event in left
        )
        speakers.speak(session)
        wait_until(lambda: turns_counted(url) == 1, "the turn after it")
        child.terminate()
        assert child.wait(20) == 0
    [turn] = turns_of(bundle)
    assert (turn["session"], turn["outcome"], turn["model"]) == (session, Outcome.COMPLETED, MODEL)


TWO_SENTENCES = "Hello there. I am very well today, and I thank you kindly for asking me."
STEP_S = 30.0
LONGEST_S = 20.0
"""Far more than a turn takes here, far less than a step."""


def test_steps_of_the_wall_clock_in_the_middle_of_turns_change_no_duration(fragile, tmp_path):
    """The first turn sees the clock go forward, the second sees it go back."""
    target, _ = fragile
    bundle = tmp_path / "b"
    clock = WallClock(tmp_path)
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(OtlpReceiver())
        bus = stack.enter_context(Recorder(target.redis))
        speakers = stack.enter_context(Speakers(target, bus))
        environment = clock.environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url}
        exporting = attached(fragile, tmp_path, "--bundle", str(bundle), **environment)
        url, child = stack.enter_context(exporting)
        wait_until(lambda: source(url, "bus")["up"], "the bus")
        [session] = speakers.create()
        stack.enter_context(speakers.provider(llm_text=TWO_SENTENCES, llm_token_ms=100))
        for number, ahead in enumerate((STEP_S, 0.0), 1):
            speakers.begin([session])
            # Between two of the instants that the exporter itself dates.
            wait_until(
                lambda number=number: bus.count(upstream.SPEECH_MEDIA_STARTED) == number, "media"
            )
            with speakers.held():
                assert bus.count(upstream.SPEECH_TIMING) == number - 1
                clock.set(ahead)
                wait_until(
                    lambda ahead=ahead: abs(wall_ahead(url) - ahead) < STEP_S / 2, "the step"
                )
                assert speaking_now(url) == 1
                assert turns_counted(url) == number - 1
            wait_until(lambda number=number: turns_counted(url) == number, "the turn")
            assert speaking_now(url) == 0
        ended = time.time()
        child.terminate()
        assert child.wait(20) == 0
    turns = turns_of(bundle)
    assert [t["outcome"] for t in turns] == [Outcome.COMPLETED] * 2
    timings = [e.data for e in bus.events if e.name == upstream.SPEECH_TIMING]
    for turn, timing in zip(turns, timings, strict=True):
        marks = turn["marks"].values()
        assert max(marks) - min(marks) < LONGEST_S
        assert all(value >= 0 for value in turn["values"].values())
        assert turn["values"][stages.FIRST_TURN_TOTAL.key] == timing["e2e_first_response_ms"]
    for span in receiver.spans:
        assert 0 <= span.end_time_unix_nano - span.start_time_unix_nano < LONGEST_S * 1e9
    # By the wall clock as it stood when the turn ended, beside whose times they are read.
    ends = sorted(s.end_time_unix_nano / 1e9 for s in receiver.spans if not s.parent_span_id)
    assert ends == pytest.approx([ended, ended + STEP_S], abs=LONGEST_S / 2)
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()
