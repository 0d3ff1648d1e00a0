"""A hundred turns at once in the real split mode, unchanged: all counted once, traced, scraped.

Three exporters watch one run: spans over gRPC, spans over HTTP, and a sampled part over HTTP.
"""

import contextlib
import json
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import httpx
import pytest

from exporter import attributes, stages, upstream
from exporter.spans import span_name
from exporter.stages import Kind, Outcome
from tests.e2e.conftest import running
from tests.e2e.speaking import MODEL, Event, Recorder, Speakers, most_at_once, outcomes
from tests.otlp_receiver import OtlpReceiver
from tests.processes import exporter, wait_until
from tests.prometheus import prometheus, remarks

pytestmark = pytest.mark.e2e

EARLY, LATE, AGAIN = 60, 60, 5
AT_ONCE = 100
SEEN_S = 2.0
RATIO = 0.25

GRPC, HTTP, SAMPLED = "grpc", "http", "sampled"
OPENMETRICS = {"accept": "application/openmetrics-text"}


def samples(exposition, family):
    """Labels → value of one family's series."""
    found = re.findall(rf"^{family}(?:{{(.*)}})? (\S+)$", exposition, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def scrape(url, **headers):
    return httpx.get(f"{url}/metrics", headers=headers).text


def total(url, family):
    return sum(samples(scrape(url), family).values())


@dataclass
class Scraped:
    up: dict[tuple[str, ...], float]
    turns: float
    exemplars: set[str]


@dataclass
class Run:
    events: list[Event]
    """All that the bus carried since the exporters were attached."""
    sessions_seen_s: float
    turns_seen_s: float
    expositions: dict[str, str]
    exemplars: dict[str, set[str]]
    remarks: bytes
    scraped: Scraped
    bundle: list[Event]
    turns: list[dict]
    receivers: dict[str, OtlpReceiver]


def seconds_until(condition, what):
    began = time.monotonic()
    wait_until(condition, what, pause=0.01)
    return time.monotonic() - began


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scraped(server, turns, began):
    wait_until(
        lambda: sum(server.query("opentalking_turns_total").values()) == turns, "the last scrape"
    )
    exemplars = server.exemplars('{__name__=~"opentalking_.+"}', began, time.time() + 1.0)
    ids = {exemplar["labels"]["trace_id"] for exemplar in exemplars}
    return Scraped(server.query("up"), sum(server.query("opentalking_turns_total").values()), ids)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    bundle = folder / "bundle"
    size = ("--width", "64", "--height", "64", "--chunk-ms", "5")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        target = enter(running(folder, "split", *size, "--llm-text", "Hi."))
        bus = enter(Recorder(target.redis))
        speakers = enter(Speakers(target, bus))
        early = speakers.create(EARLY)
        attached = len(bus.events)

        receivers = {name: enter(OtlpReceiver()) for name in (GRPC, HTTP, SAMPLED)}
        environments = {
            GRPC: {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receivers[GRPC].grpc_url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            HTTP: {"OTEL_EXPORTER_OTLP_ENDPOINT": receivers[HTTP].http_url},
            SAMPLED: {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receivers[SAMPLED].http_url,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": str(RATIO),
            },
        }
        arguments = ["--target", target.url, "--redis", target.redis]
        urls, processes = {}, []
        for name, environment in environments.items():
            own = folder / name
            own.mkdir()
            kept = ["--bundle", str(bundle)] if name == GRPC else []
            urls[name], child = enter(exporter(own, *arguments, *kept, **environment))
            if name == GRPC:
                sessions_seen_s = seconds_until(
                    lambda: total(urls[GRPC], "opentalking_sessions") == EARLY, "the sessions"
                )
            processes.append(child)
        for url in urls.values():
            wait_until(lambda url=url: total(url, "opentalking_sessions") == EARLY, "sessions")
        began = time.time()
        server = enter(prometheus(folder, urls[GRPC].removeprefix("http://")))

        late = speakers.create(LATE)
        with speakers.held():
            speakers.begin([*early, *late])
        speakers.until_all_ended()
        for session in early[:AGAIN]:
            speakers.speak(session)
        turns = bus.count(upstream.SPEECH_STARTED)
        turns_seen_s = max(
            seconds_until(lambda url=url: total(url, "opentalking_turns_total") == turns, "turns")
            for url in urls.values()
        )
        expositions = {name: scrape(url) for name, url in urls.items()}
        open_metrics = {name: scrape(url, **OPENMETRICS) for name, url in urls.items()}
        by_prometheus = scraped(server, turns, began)
        for child in processes:
            child.terminate()
            assert child.wait(20) == 0
        yield Run(
            events=bus.events[attached:],
            sessions_seen_s=sessions_seen_s,
            turns_seen_s=turns_seen_s,
            expositions=expositions,
            exemplars={
                name: set(re.findall(r'# {trace_id="(\w+)"}', text))
                for name, text in open_metrics.items()
            },
            remarks=remarks(expositions[GRPC].encode()),
            scraped=by_prometheus,
            bundle=[
                Event(e["session"], e["event"], e["data"]) for e in read(bundle / "events.jsonl")
            ],
            turns=read(bundle / "turns.jsonl"),
            receivers=receivers,
        )


def test_a_hundred_turns_were_under_way_at_once(run):
    assert most_at_once(run.events) >= AT_ONCE


def test_sessions_from_before_the_start_are_seen_at_once(run):
    assert run.sessions_seen_s <= SEEN_S


def test_every_turn_is_seen_at_once(run):
    assert run.turns_seen_s <= SEEN_S


@pytest.mark.parametrize("watcher", [GRPC, HTTP, SAMPLED])
def test_every_event_and_turn_is_counted_exactly_once(run, watcher):
    exposition = run.expositions[watcher]
    bus = 'source="bus"'
    assert samples(exposition, "talkscope_source_events_total")[bus] == len(run.events)
    # A cause of drops has a series from its first drop on.
    assert samples(exposition, "talkscope_source_dropped_total") == {}
    assert samples(exposition, "talkscope_events_ignored_total") == {"": 0}
    assert samples(exposition, "talkscope_open_turns") == {"": 0}
    assert samples(exposition, "opentalking_sessions_seen_total") == {"": EARLY + LATE}
    assert samples(exposition, "opentalking_turns_total") == {
        f'backend="omnirt",model="{MODEL}",outcome="{outcome}"': count
        for outcome, count in (dict.fromkeys(Outcome, 0) | Counter(outcomes(run.events))).items()
    }
    timed = [e.data for e in run.events if e.name == upstream.SPEECH_TIMING]
    assert sum(samples(exposition, f"{stages.TTFA.family}_count").values()) == len(
        [data for data in timed if data["ttfa_ms"] is not None]
    )


def test_the_events_of_each_session_are_those_on_the_bus_in_their_order(run):
    def by_session(events):
        names = defaultdict(list)
        for event in events:
            names[event.session].append(event.name)
        return names

    assert by_session(run.bundle) == by_session(run.events)
    assert Counter(e.name for e in run.bundle) == Counter(e.name for e in run.events)


def told(span):
    values = {a.key: a.value for a in span.attributes}
    return values[attributes.SESSION].string_value, values[attributes.TURN].int_value


def roots(spans):
    return {told(span): span for span in spans if not span.parent_span_id}


@pytest.mark.parametrize("protocol", [GRPC, HTTP, SAMPLED])
def test_no_span_is_an_orphan_and_children_lie_inside(run, protocol):
    spans = run.receivers[protocol].spans
    parents = {span.trace_id: span for span in spans if not span.parent_span_id}
    assert len(parents) == len(roots(spans)), "two traces of one turn"
    assert len({span.span_id for span in spans}) == len(spans), "a span came twice"
    for span in spans:
        parent = parents[span.trace_id]
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if span is not parent:
            assert span.parent_span_id == parent.span_id
            assert span.start_time_unix_nano >= parent.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_traces_are_complete(run, protocol):
    spans = run.receivers[protocol].spans
    assert sorted(roots(spans)) == sorted((t["session"], t["turn"]) for t in run.turns)
    children = defaultdict(set)
    for span in spans:
        if span.parent_span_id:
            children[span.trace_id].add(span.name)
    intervals = [s for s in stages.turn_intervals() if s.kind is Kind.ELEMENTARY]
    for turn in run.turns:
        seen = {span_name(s) for s in intervals if {s.start, s.end} <= turn["marks"].keys()}
        assert children[roots(spans)[turn["session"], turn["turn"]].trace_id] == seen
        if turn["outcome"] == Outcome.COMPLETED:
            assert span_name(stages.AVATAR_FIRST_FRAME_LATENCY) in seen


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_the_turns_of_a_session_are_linked(run, protocol):
    found = roots(run.receivers[protocol].spans)
    linked = 0
    for (session, number), span in found.items():
        before = found.get((session, number - 1))
        expected = [] if before is None else [(before.trace_id, before.span_id)]
        assert [(link.trace_id, link.span_id) for link in span.links] == expected
        linked += len(expected)
    assert linked >= AGAIN


def test_the_sampling_ratio_is_honoured(run):
    """By the rule of the SDK's TraceIdRatioBased: the low 64 bits of the id decide."""
    kept = {span.trace_id for span in run.receivers[SAMPLED].spans}
    assert 0 < len(kept) < len(run.turns)
    assert all(int.from_bytes(trace[8:]) < RATIO * 2**64 for trace in kept)
    assert run.exemplars[SAMPLED] <= {trace.hex() for trace in kept}


def test_promtool_has_no_remark_on_a_live_scrape(run):
    assert run.remarks == b""


def test_prometheus_scrapes_turns_with_exemplars_of_traces_that_exist(run):
    assert list(run.scraped.up.values()) == [1.0]
    assert run.scraped.turns == len(run.turns)
    traces = {span.trace_id.hex() for span in run.receivers[GRPC].spans}
    assert run.scraped.exemplars
    assert run.scraped.exemplars <= traces
    assert run.exemplars[GRPC] <= traces
