"""The exporter over HTTP, for the courier's thread: JSON in, status and JSON out.

It must not know what is sent. Blocking, one connection, standard library only.
"""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 5.0
_IDLE_S: Final = 2.0
"""A connection unused for longer may have been closed by the exporter: take a new one."""


class ExporterHttp:
    """Requests to the exporter at `url`; they raise when it does not answer."""

    def __init__(self, url: str, token: str | None) -> None:
        self._parts = urlsplit(url)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: HTTPConnection | None = None
        self._used = 0.0

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Return the status and the text of the answer."""
        if self._connection is not None and time.monotonic() - self._used > _IDLE_S:
            self.close()
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request(method, self._parts.path + path, body, self._headers)
            response = self._connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except Exception:
            self.close()
            raise
        self._used = time.monotonic()
        return response.status, text

    def clock(self) -> float:
        """The exporter's wall clock."""
        status, text = self.request("GET", "/v1/clock")
        if status != 200:
            raise ValueError(f"GET /v1/clock: HTTP {status}")
        answer: dict[str, Any] = json.loads(text)
        return float(answer["unix"])

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        assert self._parts.hostname is not None
        return kind(self._parts.hostname, self._parts.port, timeout=_TIMEOUT_S)
