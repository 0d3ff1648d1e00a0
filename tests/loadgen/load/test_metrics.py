"""A worker's Prometheus endpoint."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporter import stages
from exporter.stages import Outcome
from loadgen.load.metrics import PREFIX, SEEN, Metrics
from loadgen.load.verdict import Flag
from tests.loadgen.load.test_verdict import BAD, GOOD


def entry(kind, **content):
    return {"kind": kind, "scenario": "chat", "visit": 1, **content}


@pytest.fixture
def metrics():
    metrics = Metrics(lambda: 3, lambda: 2)
    values = {stages.PERCEIVED_TTFA.key: 500.0, stages.AV_DRIFT.key: -20.0}
    metrics.take(entry("begun"))
    metrics.take(entry("opened", values={stages.SESSION_CREATE.key: 40.0}))
    metrics.take(entry("turn", outcome=Outcome.COMPLETED, values=values))
    metrics.take(entry("failed", cause="timeout"))
    metrics.take(entry("refused", status=429))
    metrics.take(entry("session", state="closed", orphan="gone"))
    metrics.take({"kind": "window", **BAD.to_json()})
    return metrics


def samples(metrics):
    text = generate_latest(metrics.registry).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}


def test_what_was_taken_is_served_in_base_units(metrics):
    served = samples(metrics)
    assert served[PREFIX + "sessions", "open"] == 3
    assert served[PREFIX + "sessions", "speaking"] == 2
    assert served[PREFIX + "visits_total", "chat"] == 1
    assert served[PREFIX + "turns_total", "chat", "completed"] == 1
    assert served[PREFIX + "visits_failed_total", "chat", "timeout"] == 1
    assert served[PREFIX + "refusals_total", "429"] == 1
    assert served[PREFIX + "orphans_total",] == 1
    assert served[PREFIX + "perceived_ttfa_seconds_sum", "chat"] == 0.5
    assert served[PREFIX + "session_create_seconds_sum", "chat"] == pytest.approx(0.04)
    # The picture leads: the sign is the label.
    assert served[PREFIX + "av_drift_seconds_sum", "chat", "picture"] == pytest.approx(0.02)
    assert served[PREFIX + "loop_cpu_ratio",] == 0.9
    assert served[PREFIX + "windows_flagged_total", "loop_lag"] == 1


def test_flags_are_there_before_the_first_so_that_it_is_an_increase():
    served = samples(Metrics(lambda: 0, lambda: 0))
    flags = [key for key in served if key[0] == PREFIX + "windows_flagged_total"]
    assert len(flags) == len(Flag)
    assert all(served[key] == 0 for key in flags)


def test_what_was_not_sampled_is_not_there():
    metrics = Metrics(lambda: 0, lambda: 0)
    assert (PREFIX + "loop_cpu_ratio",) not in samples(metrics)
    unsampled = {**GOOD.to_json(), "kernel_delay_p99_s": None}
    metrics.take({"kind": "window", **GOOD.to_json()})
    assert (PREFIX + "kernel_delay_p99_seconds",) in samples(metrics)
    metrics.take({"kind": "window", **unsampled})
    assert (PREFIX + "kernel_delay_p99_seconds",) not in samples(metrics)


def test_every_stage_that_a_client_sees_has_a_family_of_its_own():
    keys = {stage.key for stage in SEEN}
    assert {
        stages.SESSION_CREATE.key,
        stages.WEBRTC_FIRST_FRAME.key,
        stages.PERCEIVED_TTFA.key,
        stages.PERCEIVED_TTFV.key,
        stages.INTERRUPT_LATENCY.key,
        stages.PLAYBACK_FPS.key,
        stages.AV_DRIFT.key,
    } <= keys
    assert stages.TTFA.key not in keys


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(metrics):
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(metrics.registry),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
