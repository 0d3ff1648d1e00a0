"""A real Alertmanager that hands every alert to a webhook on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.processes import ROOT, free_port, process, program, wait_until

SHIPPED = ROOT / "deploy/alertmanager/alertmanager.yml"


@dataclass
class Delivered:
    """What the webhook got."""

    address: str
    """HOST:PORT of the Alertmanager."""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def firing(self, name: str) -> list[dict[str, Any]]:
        """Alerts of this name, as the messages had them."""
        return [
            alert
            for message in list(self.messages)
            for alert in message["alerts"]
            if alert["status"] == "firing" and alert["labels"]["alertname"] == name
        ]


@contextlib.contextmanager
def alertmanager(folder: Path) -> Iterator[Delivered]:
    """Run it with the shipped routes and inhibitions; only the receiver and the waits are ours."""
    address = f"127.0.0.1:{free_port()}"
    delivered = Delivered(address)

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            delivered.messages.append(json.loads(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = yaml.safe_load(SHIPPED.read_text())
    [receiver] = told["receivers"]
    receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{server.server_port}/"}]
    told["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(told))
    command = [program("prometheus-alertmanager", "prometheus-alertmanager")]
    command += [f"--config.file={file}", f"--storage.path={folder / 'alertmanager'}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]

    def ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://{address}/-/ready").is_success
        return False

    try:
        with process(command, log=folder / "alertmanager.log"):
            wait_until(ready, "Alertmanager")
            yield delivered
    finally:
        server.shutdown()
        server.server_close()
