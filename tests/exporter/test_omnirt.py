"""OmniRT's own metrics, from recordings and through a real HTTP server that dies."""

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporter import gauges, stages
from exporter.sources.omnirt import OmniRtMetrics, OmniRtSource, parse
from tests.recordings import CAPTURES

FULL = (CAPTURES / "omnirt_metrics_rendered_by_real_class.txt").read_text()
AFTER_JOB = (CAPTURES / "omnirt_serve.metrics_after_job.txt").read_text().split("\n\n", 1)[1]

MODELS = {"statuses": [{"id": "wav2lip", "connected": True}, {"id": "x", "connected": False}]}


def samples(text):
    """(name, labels) → value of everything a text exposition holds."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "served twice"
            found[key] = sample.value
    return found


def served(sources):
    registry = CollectorRegistry()
    registry.register(OmniRtMetrics(sources))
    return generate_latest(registry).decode()


@contextmanager
def omnirt(metrics=FULL, *, ready=200, models=MODELS, key=None):
    answers = {
        "/readyz": (ready, "{}"),
        "/metrics": (200, metrics),
        "/v1/audio2video/models": (200, json.dumps(models)),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = answers[self.path]
            if key is not None and self.headers.get("authorization") != f"Bearer {key}":
                status = 401
            body = text.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def poll(source):
    async def run():
        async with httpx.AsyncClient(
            base_url=source._url, timeout=5, headers=source._headers
        ) as client:
            await source.poll(client)

    asyncio.run(run())


@pytest.mark.parametrize("recording", [FULL, AFTER_JOB])
def test_every_sample_is_served_once_under_its_own_name(recording):
    source = OmniRtSource("http://gpu-1:9000")
    source.families = parse(recording, source.instance)
    own = {(n, labels): v for (n, labels), v in samples(served([source])).items()}
    label = ("backend_instance", "gpu-1:9000")
    assert own == {(n, labels | {label}): v for (n, labels), v in samples(recording).items()}


def test_two_instances_share_families_and_keep_their_samples_apart():
    sources = [OmniRtSource(f"http://gpu-{n}:9000") for n in (1, 2)]
    for source in sources:
        source.families = parse(FULL, source.instance)
    text = served(sources)
    assert text.count("# TYPE omnirt_worker_inflight gauge") == 1
    assert len(samples(text)) == 2 * len(samples(FULL))


def test_its_queue_is_never_ours():
    source = OmniRtSource("http://gpu:9000")
    source.families = parse(FULL, source.instance)
    assert "omnirt_queue_depth{" in served([source])
    ours = {s.family for s in stages.STAGES.values()} | {g.family for g in gauges.GAUGES.values()}
    assert not {family.name for family in source.families} & ours


def test_every_family_has_help_and_openmetrics_can_write_it():
    source = OmniRtSource("http://gpu:9000")
    source.families = parse(FULL, source.instance)
    registry = CollectorRegistry()
    registry.register(OmniRtMetrics([source]))
    text = openmetrics.generate_latest(registry).decode()
    helps = [line for line in text.splitlines() if line.startswith("# HELP")]
    assert all(len(line.split(" ", 3)[3]) > 5 for line in helps)
    assert text.endswith("# EOF\n")


def test_foreign_families_are_left_out():
    text = "# TYPE opentalking_turns_total counter\nopentalking_turns_total 3\nup 1\n"
    assert parse(text, "x") == ()


def test_families_of_two_types_are_not_mixed():
    sources = [OmniRtSource(f"http://gpu-{n}:9000") for n in (1, 2)]
    sources[0].families = parse("# TYPE omnirt_x gauge\nomnirt_x 1\n", "gpu-1:9000")
    sources[1].families = parse("# TYPE omnirt_x untyped\nomnirt_x 2\n", "gpu-2:9000")
    assert samples(served(sources)) == {
        ("omnirt_x", frozenset({("backend_instance", "gpu-1:9000")})): 1.0
    }


@given(st.text(alphabet='# TYPEomnirt_x{}="\\\n 1,.-+einfNa', max_size=60))
def test_no_text_breaks_the_parser(text):
    try:
        parse(text, "x")
    except ValueError:
        return


def test_a_backend_that_dies_takes_its_series_along():
    with omnirt() as url:
        source = OmniRtSource(url)
        poll(source)
        assert source.health.up
        text = served([source])
        assert "omnirt_jobs_total{" in text
        labels = f'backend_instance="{source.instance}",model="wav2lip"'
        assert f"talkscope_omnirt_model_connected{{{labels}}} 1.0" in text
        assert source.describe()["models"] == [
            {"id": "wav2lip", "connected": True},
            {"id": "x", "connected": False},
        ]
    poll(source)
    assert not source.health.up
    assert source.instance in source.health.reason
    assert samples(served([source])) == {}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"ready": 503}, "503"),
        ({"metrics": "omnirt_x{"}, "not an exposition"),
        ({"models": []}, "list of statuses"),
        ({"key": "right"}, "401"),
    ],
)
def test_a_backend_that_is_not_well_is_down(answers, reason):
    with omnirt(**answers) as url:
        source = OmniRtSource(url, api_key="wrong")
        poll(source)
    assert not source.health.up
    assert reason in source.health.reason
    assert samples(served([source])) == {}


def test_its_key_is_sent():
    with omnirt(key="right") as url:
        source = OmniRtSource(url, api_key="right")
        poll(source)
    assert source.health.up
