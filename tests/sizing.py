"""`python -m tests.sizing`: the inputs of docs/sizing.md, measured.

What comes in: nothing. What goes out: series by what they belong to, from a real deployment that
a real Prometheus scraped; bytes of a sample on the remote-write wire, by Prometheus' own count;
and bytes of a sample in its blocks, from backfilled days of one histogram.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np

from exporter import stages
from grafana import rules
from loadgen.turn import TextInput
from tests.e2e.stack import deployment
from tests.grafana.history import openmetrics
from tests.processes import wait_until
from tests.prometheus import Prometheus, backfill, prometheus

SCRAPE_S = 15
DAY_S = 86_400
START = 1_750_291_200
"""A day in the past, 00:00 UTC."""

LEAST_SAMPLES = 50_000
"""Sent before their mean size is taken."""

KINDS = {
    "all": '{job="talkscope"}',
    "of a turn, for each model, backend and startup": '{job="talkscope",startup!=""}',
    "of a session, for each model and backend": (
        '{job="talkscope",model!="",backend!="",startup="",__name__!~".*connected"}'
    ),
    "of a device": '{job="talkscope",device!=""}',
    "that deploy/prometheus/prometheus.yml suggests to send on": (
        '{job="talkscope",__name__=~"opentalking_.*_total|opentalking_sessions|up"}'
    ),
}


@contextlib.contextmanager
def _sink() -> Iterator[str]:
    """Takes remote writes and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _own(prometheus: Prometheus, family: str) -> float:
    """A counter that Prometheus keeps of itself, over its labels."""
    lines = httpx.get(f"{prometheus.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(family + "{"))


def series(folder: Path) -> None:
    """Count series of a deployment, and weigh what leaves it by remote write."""
    say = TextInput("Hello.")
    with (
        _sink() as sink,
        deployment(folder, state="two_gpus") as running,
        prometheus(folder, running.address, remote_write=sink) as watching,
        running.spoken((say, say, say)),
    ):
        for what, selector in KINDS.items():
            [number] = watching.query(f"count({selector})").values()
            print(f"{number:8.0f} series {what}")
        startups = watching.query('count by (startup) ({job="talkscope",startup!=""})')
        print(f"         by startup: { {k[0]: int(v) for k, v in startups.items()} }")
        recorded = sum(len(group["rules"]) for group in rules.groups())
        print(f"{recorded:8d} recording rules, at most a series each for each model and backend")
        sent = "prometheus_remote_storage_samples_total"
        wait_until(lambda: _own(watching, sent) > LEAST_SAMPLES, "remote writes", 60.0)
        size = _own(watching, "prometheus_remote_storage_bytes_total") / _own(watching, sent)
        print(f"{size:8.2f} bytes a sample by remote write (snappy, scraped every second)")


def blocks(folder: Path) -> None:
    """Weigh a day of one histogram in Prometheus' blocks, by how many turns a scrape finds."""
    for turns in (0, 1, 10, 100):
        times = START + SCRAPE_S * (1 + np.arange(DAY_S // SCRAPE_S))
        shape = (len(times), max(turns, 1))
        values = np.random.default_rng(1).lognormal(0.0, 0.3, shape)
        if turns == 0:
            # Series that once moved and then stand still.
            text = _standing(values[:1], times)
        else:
            text = openmetrics(stages.PERCEIVED_TTFV, 'model="m",startup="steady"', values, times)
        here = folder / f"turns-{turns}"
        here.mkdir()
        backfill(text, here)
        found = [json.loads(path.read_text()) for path in here.glob("tsdb/*/meta.json")]
        samples = sum(meta["stats"]["numSamples"] for meta in found)
        bytes_ = sum(p.stat().st_size for p in here.glob("tsdb/*/**/*") if p.is_file())
        print(f"{bytes_ / samples:8.2f} bytes a sample in blocks, {turns} turns a scrape")


def _standing(first: np.ndarray, times: np.ndarray) -> str:
    """The histogram after one turn, unchanged at all times."""
    lines = openmetrics(stages.PERCEIVED_TTFV, 'model="m",startup="steady"', first, times[:1])
    head, *body, end = lines.splitlines()
    found = [head]
    for line in body:
        name_and_value = line.rsplit(" ", 1)[0]
        found += [f"{name_and_value} {at}" for at in times]
    return "\n".join([*found, end, ""])


def main() -> None:
    """Print the inputs."""
    with tempfile.TemporaryDirectory(prefix="talkscope-sizing-") as name:
        series(Path(name))
        blocks(Path(name))


if __name__ == "__main__":
    main()
