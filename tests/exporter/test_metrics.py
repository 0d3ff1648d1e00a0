import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from exporter import stages, upstream
from exporter.health import SourceHealth
from exporter.live import LiveSessions
from exporter.metrics import ERROR_CODES, Metrics
from exporter.observations import (
    ClockBasis,
    Reading,
    Readings,
    TargetEvent,
    TurnOpened,
    TurnReported,
)
from exporter.stages import Outcome, Source
from exporter.turn_record import SessionRecord
from exporter.turns import TurnAssembler
from tests.exporter import example

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
def metrics(health, assembler, live):
    return Metrics([health], assembler, live)


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


def test_live_drift_is_absent_until_it_is_known(metrics, live):
    assert value(metrics, "opentalking_live_av_drift_seconds", statistic="worst") is None
    opened = TurnOpened(1.0, "a", "1", 1.0, None, None, ClockBasis(0.0, 0.0))
    samples = {stages.AV_DRIFT.key: -130.0}
    live.feed(TurnReported(opened, marks={}, outcome=Outcome.COMPLETED, samples=samples))
    assert value(metrics, "opentalking_live_av_drift_seconds", statistic="worst") == -0.13


def test_a_value_without_a_turn_is_observed_as_nobodys(metrics):
    metrics.value_of_nobody(stages.TTS_FIRST_PCM_LATENCY, 120.0)
    labels = dict.fromkeys(("model", "backend", "startup"), "unknown")
    assert value(metrics, "opentalking_tts_first_pcm_seconds_sum", **labels) == 0.12


def test_what_a_source_no_longer_says_is_withdrawn(metrics):
    reading = Reading(stages.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"})
    metrics.readings(Readings(1.0, "bus", (reading,)))
    assert value(metrics, "opentalking_queue_depth", queue="tasks") == 4
    metrics.readings(Readings(2.0, "bus"))
    assert value(metrics, "opentalking_queue_depth", queue="tasks") is None


def test_two_sources_do_not_overwrite_each_other(metrics):
    metrics.readings(
        Readings(1.0, "bus", (Reading(stages.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"}),))
    )
    metrics.readings(
        Readings(
            1.0,
            "nvidia",
            (
                Reading(
                    stages.VRAM_USED.name, 9.0, {"device": "0", "scope": "device", "group": "all"}
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


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt: prometheus)"
)
def test_promtool_has_no_remark(metrics):
    metrics.turn(example.turn())
    metrics.readings(
        Readings(1.0, "bus", (Reading(stages.QUEUE_LEVEL.name, 4.0, {"queue": "tasks"}),))
    )
    body, _ = metrics.render("")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
