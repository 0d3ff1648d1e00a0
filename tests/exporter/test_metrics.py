import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from exporter import gauges, stages, upstream
from exporter.arbiter import EventArbiter
from exporter.health import SourceHealth
from exporter.live import LiveSessions
from exporter.metrics import ERROR_CODES, Metrics
from exporter.observations import AgentLosses, ProcessReported, Reading, Readings, TargetEvent
from exporter.processes import Processes
from exporter.stages import Source
from exporter.turn_record import SessionRecord
from exporter.turns import TurnAssembler
from tests.exporter import example
from tests.prometheus import remarks

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def health():
    return SourceHealth("bus")


@pytest.fixture
def live():
    return LiveSessions()


@pytest.fixture
def assembler():
    return TurnAssembler()


@pytest.fixture
def processes():
    return Processes()


@pytest.fixture
def metrics(health, assembler, live, processes):
    return Metrics([health], assembler, live, EventArbiter(), processes)


def samples(metrics, accept=""):
    body, _ = metrics.render(accept)
    parse = parse_openmetrics if accept else parse_classic
    return [s for family in parse(body.decode()) for s in family.samples]


def value(metrics, name, **labels):
    found = [s.value for s in samples(metrics) if s.name == name and s.labels == labels]
    return found[0] if found else None


def test_every_value_is_observed_in_base_units(metrics):
    metrics.turn(example.turn())
    labels = {"model": "wav2lip", "backend": "omnirt", "startup": "steady"}
    for stage in stages.turn_intervals():
        key = stage.key
        total = value(metrics, f"{stage.family}_sum", **labels)
        if key in example.turn().values:
            assert total == pytest.approx(example.turn().values[key] / 1000.0)
        else:
            assert total is None


@pytest.mark.parametrize(("drift_ms", "leads"), [(40.0, "sound"), (-130.0, "picture")])
def test_drift_is_a_magnitude_and_says_who_leads(metrics, drift_ms, leads):
    metrics.turn(example.turn(values={stages.AV_DRIFT.key: drift_ms}))
    labels = {"model": "wav2lip", "backend": "omnirt", "startup": "steady", "leads": leads}
    assert value(metrics, "opentalking_av_drift_seconds_count", **labels) == 1
    assert value(metrics, "opentalking_av_drift_seconds_sum", **labels) == abs(drift_ms) / 1000
    assert samples(metrics, OPENMETRICS)


def test_what_was_not_observed_has_no_series(metrics):
    metrics.turn(example.turn(values={stages.TTFA.key: 400.0}))
    counted = {s.name for s in samples(metrics) if s.name.endswith("_seconds_count")}
    assert counted == {"opentalking_ttfa_seconds_count"}


def test_turns_are_counted_by_outcome(metrics):
    for outcome in ("completed", "completed", "vanished"):
        metrics.turn(example.turn(outcome=outcome))
    labels = {"model": "wav2lip", "backend": "omnirt"}
    assert value(metrics, "opentalking_turns_total", **labels, outcome="completed") == 2
    assert value(metrics, "opentalking_turns_total", **labels, outcome="vanished") == 1
    # Known to be none, so that a rate sees the first.
    assert value(metrics, "opentalking_turns_total", **labels, outcome="failed") == 0


def test_errors_are_counted_by_code_and_codes_are_bounded(metrics):
    for number in range(ERROR_CODES + 5):
        metrics.turn(example.turn(outcome="failed", error={"code": f"E{number}", "message": "x"}))
    assert value(metrics, "opentalking_errors_total", code="E0") == 1
    assert value(metrics, "opentalking_errors_total", code="other") == 5


def test_live_sessions_are_counted_by_state(metrics, live):
    live.feed(TargetEvent(1.0, Source.BUS, "a", upstream.SPEECH_STARTED, {}))
    assert value(metrics, "opentalking_sessions", state="speaking") == 1
    assert value(metrics, "opentalking_sessions", state="idle") == 0
    assert value(metrics, "opentalking_sessions_seen_total") == 1
    assert value(metrics, "opentalking_talking_transitions_total") == 1


@pytest.mark.parametrize(
    ("stage", "told", "base"),
    [
        (stages.AV_DRIFT, -130.0, -0.13),
        (stages.PLAYBACK_FPS, 24.5, 24.5),
        (stages.RENDER_FPS, 90.0, 90.0),
        (stages.STEADY_CHUNK, 60.0, 0.06),
    ],
    ids=lambda value: getattr(value, "key", ""),
)
def test_the_last_value_of_live_sessions_is_absent_until_it_is_known(
    metrics, live, stage, told, base
):
    family = gauges.LIVE[stage.key].family
    live.feed(TargetEvent(1.0, Source.BUS, "sess_1", upstream.SPEECH_STARTED, {}))
    assert value(metrics, family, statistic="worst") is None
    live.finished(example.turn(values={stage.key: told}))
    assert value(metrics, family, statistic="worst") == base
    assert value(metrics, family, statistic="median") == base


def test_freezes_add_up_over_turns_in_base_units(metrics):
    labels = {"model": "wav2lip", "backend": "omnirt", "startup": "steady"}
    assert value(metrics, "opentalking_freezes_total", **labels) is None
    for freezes, frozen in ((2.0, 700.0), (0.0, 0.0), (1.0, 300.0), (-1.0, -5.0)):
        told = {stages.FREEZES.key: freezes, stages.FROZEN.key: frozen}
        metrics.turn(example.turn(values=told))
    assert value(metrics, "opentalking_freezes_total", **labels) == 3
    assert value(metrics, "opentalking_frozen_seconds_total", **labels) == 1.0


def test_what_agents_lost_is_counted_by_role(metrics, processes):
    worker = stages.ProcessRole.WORKER
    processes.feed(ProcessReported(1.0, "a", worker, losses=AgentLosses(3, 2, 1)))
    for name, lost in (("dropped", 3), ("refused", 2), ("failures", 1)):
        assert value(metrics, f"talkscope_agent_{name}_total", role="worker") == lost


def test_what_is_dropped_says_why_and_gaps_are_counted(metrics, health):
    health.drop("malformed", 2)
    health.drop("rate_limited")
    health.gaps += 1
    dropped = "talkscope_source_dropped_total"
    assert value(metrics, dropped, source="bus", cause="malformed") == 2
    assert value(metrics, dropped, source="bus", cause="rate_limited") == 1
    assert value(metrics, "talkscope_source_gaps_total", source="bus") == 1


def test_a_value_without_a_turn_is_observed_as_nobodys(metrics):
    metrics.value_of_nobody(stages.TTS_FIRST_PCM_LATENCY, 120.0)
    labels = dict.fromkeys(("model", "backend", "startup"), "unknown")
    assert value(metrics, "opentalking_tts_first_pcm_seconds_sum", **labels) == 0.12


def test_what_a_source_no_longer_says_is_withdrawn(metrics):
    reading = Reading(gauges.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"})
    metrics.readings(Readings(1.0, "bus", (reading,)))
    assert value(metrics, "opentalking_queue_depth", queue="tasks") == 4
    metrics.readings(Readings(2.0, "bus"))
    assert value(metrics, "opentalking_queue_depth", queue="tasks") is None


def test_two_sources_do_not_overwrite_each_other(metrics):
    metrics.readings(
        Readings(1.0, "bus", (Reading(gauges.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"}),))
    )
    metrics.readings(
        Readings(
            1.0,
            "nvidia",
            (
                Reading(
                    gauges.VRAM_USED.name, 9.0, {"device": "0", "scope": "device", "group": "all"}
                ),
            ),
        )
    )
    assert value(metrics, "opentalking_queue_depth", queue="tasks") == 4
    assert (
        value(metrics, "opentalking_vram_used_bytes", device="0", scope="device", group="all") == 9
    )


def test_the_trace_id_rides_as_an_exemplar(metrics):
    metrics.turn(example.turn(trace_id="a" * 32))
    exemplars = [s.exemplar for s in samples(metrics, OPENMETRICS) if s.exemplar]
    assert exemplars
    assert {e.labels["trace_id"] for e in exemplars} == {"a" * 32}


def test_no_label_names_a_session(metrics):
    metrics.turn(example.turn(trace_id="a" * 32))
    for sample in samples(metrics):
        assert "sess_1" not in sample.labels.values()


def test_a_source_that_is_down_says_so(metrics, health):
    health.succeeded(100.0, events=2)
    health.failed("gone")
    assert value(metrics, "talkscope_source_up", source="bus") == 0
    assert value(metrics, "talkscope_source_events_total", source="bus") == 2
    assert value(metrics, "talkscope_source_failures_total", source="bus") == 1


def test_session_values_are_observed_once(metrics):
    record = SessionRecord("s", "wav2lip", "omnirt", values={stages.SESSION_CREATE.key: 40.0})
    metrics.session_values(record, {stages.SESSION_CREATE.key})
    metrics.session_values(record, ())
    labels = {"model": "wav2lip", "backend": "omnirt"}
    assert value(metrics, "opentalking_session_create_seconds_count", **labels) == 1
    assert value(metrics, "opentalking_session_create_seconds_sum", **labels) == 0.04


def test_promtool_has_no_remark(metrics):
    metrics.turn(example.turn())
    metrics.readings(
        Readings(1.0, "bus", (Reading(gauges.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"}),))
    )
    body, _ = metrics.render("")
    assert remarks(body) == b""


def test_a_scraper_that_asks_for_other_names_gets_ours_as_they_are(metrics):
    metrics.turn(example.turn())
    plain, content_type = metrics.render(OPENMETRICS)
    for escaping in ("allow-utf-8", "underscores", "dots", "values"):
        asked = f"{OPENMETRICS};version=1.0.0;escaping={escaping},text/plain;q=0.5"
        assert metrics.render(asked)[1] == content_type
        assert len(metrics.render(asked)[0]) == len(plain)
