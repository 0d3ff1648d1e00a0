"""An exporter with a thousand live sessions: how long a scrape takes, and how much memory it is.

A real Redis carries recorded turns to a real exporter process; clients' marks come in over HTTP
at the same time.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from exporter import stages
from tests.bench.bus_traffic import TURN, UNLIMITED, messages, open_sessions, publish
from tests.bench.exporter_events import sample
from tests.bench.measurement import Measurement
from tests.processes import exporter, redis_server, wait_until

SCRAPE = "exporter-scrape"
RSS = "exporter-rss"

SESSIONS = 1_000
SCRAPES = 400
INGEST_PAUSE_S = 0.02
TURNS_AT_A_TIME = 20
TURNS_IN_ALL = 200_000
LONGEST_S = 600.0
MIB = 1024 * 1024


def scrape() -> Measurement:
    """99th percentile of a scrape's duration, beside a bare server that sends as many bytes."""
    with _loaded() as (url, _, _), _ingesting(url):
        ours = _scrapes(f"{url}/metrics")
        size = len(httpx.get(f"{url}/metrics").content)
    with _bare_server(size) as bare:
        peer = _scrapes(bare)
    return Measurement(
        name=SCRAPE,
        value=_p99(ours),
        unit="s, 99th percentile",
        better="lower",
        peer="http.server sending as many bytes",
        peer_value=_p99(peer),
        conditions={
            "sessions": f"{SESSIONS} live",
            "ingest": f"a batch of marks every {INGEST_PAUSE_S * 1000:.0f} ms meanwhile",
            "scrapes": SCRAPES,
            "bytes": size,
        },
        figures={"median": (statistics.median(ours), statistics.median(peer), "s")},
    )


def rss() -> Measurement:
    """Resident memory after many turns, beside what it was after the first of them."""
    with _loaded() as (url, pid, redis_url), _ingesting(url):
        seen = [_rss_mib(pid)]
        sent = SESSIONS * TURNS_AT_A_TIME
        while sent < TURNS_IN_ALL:
            publish(redis_url, list(messages(SESSIONS, TURNS_AT_A_TIME)))
            sent += SESSIONS * TURNS_AT_A_TIME
            _until_counted(url, sent)
            seen.append(_rss_mib(pid))
    return Measurement(
        name=RSS,
        value=seen[-1],
        unit="MiB",
        better="lower",
        peer=f"the same exporter after its first {SESSIONS * TURNS_AT_A_TIME} turns",
        peer_value=seen[0],
        conditions={
            "sessions": f"{SESSIONS} live",
            "turns": sent,
            "ingest": f"a batch of marks every {INGEST_PAUSE_S * 1000:.0f} ms meanwhile",
            "MiB on the way": ", ".join(f"{mib:.1f}" for mib in seen),
        },
    )


@contextlib.contextmanager
def _loaded() -> Iterator[tuple[str, int, str]]:
    """An exporter that has seen some turns of each session: its URL, process id and Redis."""
    with tempfile.TemporaryDirectory(prefix="talkscope-bench-") as name:
        folder = Path(name)
        with (
            redis_server(folder, options=UNLIMITED) as (redis_url, _),
            exporter(folder, "--target", "http://127.0.0.1:9", "--redis", redis_url) as (
                url,
                child,
            ),
        ):
            wait_until(lambda: sample(url, 'up{source="bus"}') == 1, "the subscription")
            open_sessions(redis_url, SESSIONS)
            publish(redis_url, list(messages(SESSIONS, TURNS_AT_A_TIME)))
            _until_counted(url, SESSIONS * TURNS_AT_A_TIME)
            yield url, child.pid, redis_url


def _until_counted(url: str, turns: int) -> None:
    events = turns * len(TURN)
    counted = 'events_total{source="bus"}'
    wait_until(lambda: sample(url, counted) >= events, "all events", LONGEST_S, pause=0.5)


@contextlib.contextmanager
def _ingesting(url: str) -> Iterator[None]:
    """A client sends marks, one batch after the other."""
    stop = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=url) as client:
            sequence = 0
            while not stop.wait(INGEST_PAUSE_S):
                sequence += 1
                record = {
                    "kind": "session",
                    "sequence": sequence,
                    "session": f"sess_{sequence % SESSIONS}",
                    "started_unix": time.time(),
                    "marks": {stages.SESSION_REQUESTED: 0.0, stages.SESSION_CREATED: 0.03},
                }
                body = {"version": 1, "origin": "bench-load", "records": [record]}
                client.post("/v1/marks", json=body).raise_for_status()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def _scrapes(url: str) -> list[float]:
    durations = []
    with httpx.Client() as client:
        client.get(url).raise_for_status()
        for _ in range(SCRAPES):
            begun = time.perf_counter()
            client.get(url).raise_for_status()
            durations.append(time.perf_counter() - begun)
    return durations


@contextlib.contextmanager
def _bare_server(size: int) -> Iterator[str]:
    body = b"x" * size

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(size))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def _p99(durations: list[float]) -> float:
    return statistics.quantiles(durations, n=100)[98]


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB
