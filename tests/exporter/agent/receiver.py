"""A small HTTP server in place of the exporter: records what the agent sends, as it was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exporter.sources.ingest import BadBatchError, Ingest

AHEAD_S = 100.0
"""How far this exporter's clock is ahead."""


@dataclass
class Received:
    """Everything that came; `observations` is what the exporter's own ingest made of it."""

    url: str = ""
    records: list[dict[str, Any]] = field(default_factory=list)
    clocks: list[dict[str, float]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses to answer the next batches with instead of taking them."""
    ingest: Ingest = field(default_factory=Ingest)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.records if r["kind"] == kind]

    def wait_for(self, kind: str, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """At least that many records of a kind, or fail."""
        deadline = time.monotonic() + timeout
        while len(self.of_kind(kind)) < count:
            assert time.monotonic() < deadline, f"{self.of_kind(kind)} {self.refusals}"
            time.sleep(0.01)
        return self.of_kind(kind)


def _handler(received: Received, ahead: float) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

        def do_GET(self) -> None:
            self._answer(200, {"unix": time.time() + ahead})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.authorizations.append(self.headers["Authorization"])
            if received.answers:
                self._answer(received.answers.pop(0), {"error": "as the test wants"})
                return
            try:
                accepted, duplicates = received.ingest.take(body, received.observations.append)
            except BadBatchError as error:
                received.refusals.append(str(error))
                self._answer(400, {"error": str(error), "field": error.field})
                return
            batch = json.loads(body)
            received.clocks.append(batch["clock"])
            received.records += batch["records"]
            self._answer(202, {"accepted": accepted, "duplicates": duplicates})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.accepted: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        self.accepted.append(accepted)
        return accepted, address

    def hang_up(self) -> None:
        """End the connections that are kept alive, as the end of a process does."""
        for connection in self.accepted:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def receiver(port: int = 0, *, ahead: float = AHEAD_S) -> Iterator[Received]:
    """Run it; its clock is ahead of ours."""
    received = Received()
    server = _Server(("127.0.0.1", port), _handler(received, ahead))
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.hang_up()
        thread.join()
        server.server_close()
