"""The exporter's client against a small exporter: nothing lost, nothing twice, nothing waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadgen import marks
from loadgen.marks import MarksClient, NullSink, RelayedEvent, SessionMarks
from tests.loadgen.standin import until


class Exporter(ThreadingHTTPServer):
    """Speaks docs/marks.md; `fail` holds (status, body) of the next answers to `POST`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.batches = []
        self.records = []
        self.fail = []
        self.clock_ahead = 0.0
        self.drop_answers = 0
        self.token = None
        self._seen = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, batch):
        self.batches.append(batch)
        fresh = [r for r in batch["records"] if (batch["origin"], r["sequence"]) not in self._seen]
        self._seen |= {(batch["origin"], r["sequence"]) for r in fresh}
        self.records += fresh
        return {"accepted": len(fresh), "duplicates": len(batch["records"]) - len(fresh)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self._answer(200, {"unix": time.time() + self.server.clock_ahead})

    def do_POST(self):
        batch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        token = self.server.token
        if token is not None and self.headers["authorization"] != f"Bearer {token}":
            self._answer(401, {"error": "send the configured token"})
            return
        if self.server.fail:
            self._answer(*self.server.fail.pop(0))
            return
        answer = self.server.take(batch)
        if self.server.drop_answers:
            self.server.drop_answers -= 1
            self.close_connection = True
            return
        self._answer(202, answer)

    def _answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def exporting(port=0):
    server = Exporter(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def event(number):
    return RelayedEvent("sess_1", 1_795_364_973.43, f"event.{number}", {"n": number})


def send(url, records, **options):
    async def run():
        async with MarksClient(url, **options) as client:
            for record in records:
                client.send(record)
        return client

    return asyncio.run(run())


def names(exporter):
    return [r["event"] for r in exporter.records]


def test_records_arrive_in_order_and_as_documented():
    session = SessionMarks("sess_1", "wav2lip", "demo", 1.5, {"session.requested": 0.0}, {}, None)
    with exporting() as exporter:
        client = send(exporter.url, [session, event(1), event(2)])
    assert exporter.records == [
        {
            "kind": "session",
            "sequence": 1,
            "session": "sess_1",
            "model": "wav2lip",
            "avatar": "demo",
            "started_unix": 1.5,
            "marks": {"session.requested": 0.0},
            "absent": {},
            "outcome": None,
        },
        {
            "kind": "event",
            "sequence": 2,
            "session": "sess_1",
            "unix": 1_795_364_973.43,
            "event": "event.1",
            "data": {"n": 1},
        },
        exporter.records[2],
    ]
    assert exporter.batches[0]["version"] == 1
    assert exporter.batches[0]["origin"] == client.origin
    assert client.delivery.accepted == 3
    assert client.delivery.lost == 0


def test_every_process_has_an_origin_of_its_own():
    async def run():
        return MarksClient("http://127.0.0.1:1"), MarksClient("http://127.0.0.1:1")

    first, second = asyncio.run(run())
    assert first.origin != second.origin


def test_an_event_is_relayed_while_the_client_goes_on():
    async def run(exporter):
        async with MarksClient(exporter.url) as client:
            client.send(event(1))
            await until(lambda: exporter.records)

    with exporting() as exporter:
        asyncio.run(run(exporter))


def test_the_clock_offset_is_measured():
    with exporting() as exporter:
        exporter.clock_ahead = 3600.0
        send(exporter.url, [event(1)])
    clock = exporter.batches[0]["clock"]
    assert clock["offset_seconds"] == pytest.approx(3600.0, abs=1.0)
    # Half the best round trip bounds the error, since both clocks are this machine's.
    assert abs(clock["offset_seconds"] - 3600.0) <= clock["uncertainty_seconds"] + 0.001


def offsets(exporter):
    return [batch["clock"]["offset_seconds"] for batch in exporter.batches]


def test_a_step_of_our_wall_clock_moves_nothing(monkeypatch):
    with exporting() as exporter:
        exporter.clock_ahead = 100.0

        async def scene():
            wall = time.time
            async with MarksClient(exporter.url) as client:
                client.send(event(1))
                await until(lambda: len(exporter.batches) == 1)
                monkeypatch.setattr(time, "time", lambda: wall() + 3600.0)
                # The exporter's clock is not stepped either.
                exporter.clock_ahead -= 3600.0
                exporter.fail.append((503, {}))
                client.send(event(2))

        asyncio.run(scene())
        assert offsets(exporter) == pytest.approx([100.0, 100.0], abs=0.05)


def test_an_exporter_that_was_away_is_asked_for_its_clock_again():
    with exporting() as exporter:

        async def scene():
            async with MarksClient(exporter.url) as client:
                client.send(event(1))
                await until(lambda: len(exporter.batches) == 1)
                exporter.clock_ahead = 7.0
                client.send(event(2))
                await until(lambda: len(exporter.batches) == 2)
                exporter.fail.append((503, {}))
                client.send(event(3))

        asyncio.run(scene())
        assert offsets(exporter) == pytest.approx([0.0, 0.0, 7.0], abs=0.05)


def test_many_records_go_in_batches_the_exporter_takes():
    with exporting() as exporter:
        send(exporter.url, [event(n) for n in range(2_500)])
    assert max(len(b["records"]) for b in exporter.batches) <= marks.MAX_BATCH
    assert names(exporter) == [f"event.{n}" for n in range(2_500)]


def test_a_server_error_is_retried():
    with exporting() as exporter:
        exporter.fail = [(503, {"error": "busy"}), (500, {"error": "oops"})]
        client = send(exporter.url, [event(1), event(2)], close_timeout=30.0)
    assert names(exporter) == ["event.1", "event.2"]
    assert client.delivery.lost == 0


def test_a_batch_whose_answer_is_lost_counts_once():
    with exporting() as exporter:
        exporter.drop_answers = 1
        client = send(exporter.url, [event(1), event(2)], close_timeout=30.0)
    assert len(exporter.batches) == 2
    assert names(exporter) == ["event.1", "event.2"]
    assert (client.delivery.duplicates, client.delivery.lost) == (2, 0)


def test_an_exporter_that_starts_late_gets_everything():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def run():
        async with MarksClient(f"http://127.0.0.1:{port}", close_timeout=30.0) as client:
            for number in range(5):
                client.send(event(number))
            await until(lambda: client.delivery.last_error)
            with exporting(port) as exporter:
                await until(lambda: len(exporter.records) == 5)
        return exporter, client

    exporter, client = asyncio.run(run())
    assert names(exporter) == [f"event.{n}" for n in range(5)]
    assert client.delivery.lost == 0


def test_a_record_that_is_refused_does_not_take_the_others_with_it():
    with exporting() as exporter:
        exporter.fail = [(400, {"error": "…", "field": "records[1].event"})]
        client = send(exporter.url, [event(1), event(2), event(3)])
    assert names(exporter) == ["event.1", "event.3"]
    assert client.delivery.refused == 1
    assert "records[1].event" in client.delivery.last_error


def test_a_refusal_without_a_place_gives_the_batch_up():
    with exporting() as exporter:
        exporter.fail = [(400, {"error": "unknown version", "field": "version"})]
        client = send(exporter.url, [event(1), event(2)])
    assert exporter.records == []
    assert client.delivery.refused == 2


def test_a_dead_exporter_costs_the_records_and_nothing_else():
    client = send("http://127.0.0.1:9", [event(1), event(2)], close_timeout=0.3)
    assert client.delivery.unsent == 2
    assert client.delivery.lost == 2
    assert "127.0.0.1:9" in client.delivery.last_error


def test_what_does_not_fit_the_queue_is_counted(monkeypatch):
    monkeypatch.setattr(marks, "MAX_QUEUED", 3)
    client = send("http://127.0.0.1:9", [event(n) for n in range(5)], close_timeout=0.2)
    assert client.delivery.dropped == 2
    assert client.delivery.lost == 5


def test_records_after_the_end_are_counted():
    with exporting() as exporter:
        client = send(exporter.url, [event(1)])
        client.send(event(2))
    assert client.delivery.dropped == 1


def test_without_an_exporter_records_go_nowhere():
    NullSink().send(event(1))


def test_an_exporter_that_asks_for_a_token_is_given_it():
    with exporting() as exporter:
        exporter.token = "s3cret"
        delivery = send(exporter.url, [event(1)], token="s3cret").delivery
        assert (delivery.accepted, delivery.lost) == (1, 0)


def test_without_its_token_everything_is_lost_and_the_reason_told():
    with exporting() as exporter:
        exporter.token = "s3cret"
        delivery = send(exporter.url, [event(1), event(2)]).delivery
    assert (delivery.accepted, delivery.refused, delivery.lost) == (0, 2, 2)
    assert "HTTP 401" in delivery.last_error
    assert "s3cret" not in delivery.last_error
