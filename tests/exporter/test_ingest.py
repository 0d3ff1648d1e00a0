import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import stages
from exporter.observations import (
    AgentLosses,
    LoopLag,
    PipelineReported,
    ProcessReported,
    SessionSeen,
    TargetEvent,
    TurnOpened,
    TurnReported,
)
from exporter.sources import ingest as module
from exporter.sources.ingest import BadBatchError, Ingest, TokenBuckets

TURN = {
    "kind": "turn",
    "sequence": 1,
    "session": "s",
    "turn": "1",
    "started_unix": 1000.0,
    "outcome": "completed",
    "marks": {stages.INPUT: 0.0, stages.CLIENT_FIRST_AUDIO: 0.7},
}

PIPELINE = {
    "kind": "pipeline",
    "sequence": 1,
    "session": "s",
    "started_unix": 1000.0,
    "marks": {stages.SPEAK_ENTERED: 0.0, stages.STT_REQUESTED: -0.3, stages.STT_TRANSCRIBED: -0.1},
    "outcome": "completed",
}
PROCESS = {"kind": "process", "sequence": 1, "unix": 1000.0, "role": "worker"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def batch(*records, **rest):
    return json.dumps({"version": 1, "origin": "test", "records": records, **rest}).encode()


def take(body, ingest=None, *, relayed_events=True):
    seen = []
    counts = (ingest or Ingest()).take(body, seen.append, relayed_events=relayed_events)
    return seen, counts


def test_marks_land_on_the_exporters_clock():
    clock = {"offset_seconds": 0.5, "uncertainty_seconds": 0.001}
    [seen], counts = take(batch(TURN, clock=clock))
    assert isinstance(seen, TurnReported)
    assert seen.marks == {stages.INPUT: 1000.5, stages.CLIENT_FIRST_AUDIO: 1001.2}
    assert seen.opened.started == 1000.5
    assert seen.opened.clock.uncertainty == 0.001
    assert counts == (1, 0)


def test_every_kind_of_record_is_taken():
    records = [
        {"kind": "session", "sequence": 1, "session": "s", "started_unix": 1.0, "model": "m"},
        {"kind": "turn_opened", "sequence": 2, "session": "s", "turn": "1", "started_unix": 1.0},
        {"kind": "event", "sequence": 3, "session": "s", "unix": 2.0, "event": "e", "data": {}},
        TURN | {"sequence": 4},
        PIPELINE | {"sequence": 5},
        PROCESS | {"sequence": 6},
    ]
    seen, _ = take(batch(*records))
    assert [type(o) for o in seen] == [
        SessionSeen,
        TurnOpened,
        TargetEvent,
        TurnReported,
        PipelineReported,
        ProcessReported,
    ]


def test_the_agents_account_may_tell_the_trace_the_language_model_and_the_recogniser():
    told = {"traceparent": TRACEPARENT, "llm_model": "qwen-turbo"}
    [seen], _ = take(batch(PIPELINE | told, clock={"offset_seconds": 1.0}))
    assert (seen.traceparent, seen.llm_model) == (TRACEPARENT, "qwen-turbo")
    assert seen.marks[stages.STT_REQUESTED] == pytest.approx(1000.7)
    [seen], _ = take(batch(PIPELINE))
    assert (seen.traceparent, seen.llm_model) == (None, None)


@pytest.mark.parametrize(
    "told",
    [
        "",
        "00",
        TRACEPARENT.upper(),
        TRACEPARENT + "-extra",
        TRACEPARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_a_wrong_trace_context_is_refused_by_name(told):
    with pytest.raises(BadBatchError) as refused:
        take(batch(PIPELINE | {"traceparent": told}))
    assert refused.value.field == "records[0].traceparent"


def test_a_trace_context_of_a_version_to_come_may_have_more_fields():
    told = TRACEPARENT.replace("00-", "01-", 1) + "-more"
    [seen], _ = take(batch(PIPELINE | {"traceparent": told}))
    assert seen.traceparent == told


def test_a_process_tells_what_it_can_read_and_no_more():
    whole = PROCESS | {
        "rss_bytes": 700,
        "event_loop_lag_seconds": {"p50": 0.001, "p99": 0.01, "max": 0.02},
        "media_queue": {"video": 3},
        "realtime_backlog": 2,
        "agent": {"dropped": 1, "refused": 2, "failures": 3},
    }
    [seen], _ = take(batch(whole, clock={"offset_seconds": 1.0}))
    assert seen == ProcessReported(
        1001.0,
        "test",
        stages.ProcessRole.WORKER,
        rss_bytes=700,
        lag=LoopLag(0.001, 0.01, 0.02),
        media_queue={"video": 3},
        realtime_backlog=2,
        losses=AgentLosses(1, 2, 3),
    )
    [seen], _ = take(batch(PROCESS))
    assert seen == ProcessReported(1000.0, "test", stages.ProcessRole.WORKER)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"role": "database"}, "records[0].role"),
        ({"rss_bytes": -1}, "records[0].rss_bytes"),
        ({"event_loop_lag_seconds": {"p50": 0.1}}, "records[0].event_loop_lag_seconds.p99"),
        ({"media_queue": {"subtitles": 1}}, "records[0].media_queue.subtitles"),
        ({"agent": {"dropped": 1.5}}, "records[0].agent.dropped"),
    ],
)
def test_a_wrong_field_of_a_process_is_named(change, field):
    with pytest.raises(BadBatchError) as refused:
        take(batch(PROCESS | change))
    assert refused.value.field == field


def test_a_record_that_is_sent_again_is_taken_once():
    ingest = Ingest()
    _, first = take(batch(TURN), ingest)
    seen, second = take(batch(TURN, TURN | {"sequence": 2}), ingest)
    assert (first, second) == ((1, 0), (1, 1))
    assert len(seen) == 1


def test_relayed_events_are_ignored_while_redis_brings_them():
    event = {"kind": "event", "sequence": 1, "session": "s", "unix": 2.0, "event": "e", "data": {}}
    seen, counts = take(batch(event), relayed_events=False)
    assert seen == []
    assert counts == (1, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"marks": {"client.first_autio": 1.0}}, "records[0].marks"),
        ({"marks": {stages.INPUT: "soon"}}, f"records[0].marks.{stages.INPUT}"),
        ({"samples": {stages.TTFA.key: 1.0}}, "records[0].samples"),
        ({"outcome": "fine"}, "records[0].outcome"),
        ({"started_unix": -1}, "records[0].started_unix"),
        ({"sequence": 0}, "records[0].sequence"),
        ({"surprise": 1}, "records[0].surprise"),
        ({"drift": {"median_ms": 1.0}}, "records[0].drift.basis"),
        ({"kind": "gossip"}, "records[0]"),
        ({"turn": ""}, "records[0].turn"),
    ],
)
def test_a_wrong_field_is_named(change, field):
    with pytest.raises(BadBatchError) as refused:
        take(batch(TURN | change))
    assert refused.value.field == field


def test_a_wrong_version_is_named():
    with pytest.raises(BadBatchError) as refused:
        take(batch(TURN, version=2))
    assert refused.value.field == "version"


def test_a_refused_batch_leaves_no_trace():
    ingest = Ingest()
    with pytest.raises(BadBatchError):
        take(batch(TURN, TURN | {"sequence": 2, "outcome": "fine"}), ingest)
    _, counts = take(batch(TURN), ingest)
    assert counts == (1, 0)
    assert ingest.health.dropped == 1


def test_a_bucket_gives_a_burst_then_the_rate():
    buckets = TokenBuckets(rate=2.0, burst=3)
    assert [buckets.wait("a", 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.wait("a", 10.25) == 0.25
    assert buckets.wait("a", 10.5) == 0.0
    assert buckets.wait("a", 10.5) == 0.5
    # It fills up to the burst and no further.
    assert [buckets.wait("a", 1_000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_each_address_has_a_bucket_of_its_own():
    buckets = TokenBuckets(rate=1.0, burst=1)
    assert (buckets.wait("a", 0.0), buckets.wait("b", 0.0)) == (0.0, 0.0)
    assert buckets.wait("a", 0.0) > 0


def test_addresses_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "ADDRESSES_REMEMBERED", 10)
    buckets = TokenBuckets(rate=1.0, burst=1)
    for number in range(100):
        buckets.wait(str(number), 0.0)
    assert len(buckets._levels) == 10


def test_a_token_is_asked_for_when_one_is_set():
    ingest = Ingest()
    assert ingest.knows(None)
    ingest.token = "right"
    assert ingest.knows("right")
    assert not any(ingest.knows(token) for token in (None, "", "righ", "rightt", "ü"))
    assert ingest.health.dropped_by == {"unauthorized": 5}


def test_nan_is_refused():
    body = batch(TURN).replace(b"0.7", b"NaN")
    with pytest.raises(BadBatchError):
        take(body)


@given(st.binary(max_size=200))
def test_no_body_breaks_it(body):
    with pytest.raises(BadBatchError):
        take(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=10,
    )
)
def test_no_record_breaks_it(junk):
    with pytest.raises(BadBatchError):
        take(json.dumps({"version": 1, "origin": "x", "records": [junk]}).encode())
