"""Prometheus' HTTP API, as far as a report needs it.

What comes in: expressions. What goes out: their series, or one `PrometheusError` that says
what is wrong and what to do. It must not know what a series means.

API: https://prometheus.io/docs/prometheus/latest/querying/api/ (range and instant queries).
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from report.errors import PrometheusError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT_BYTES: Final = 512 * 2**20
"""Largest answer that is read."""

_BLOCK: Final = 2**20


@dataclass(frozen=True, slots=True)
class Range:
    """Instants from `start` to `end`, both included, `step` apart; seconds since the epoch."""

    start: float
    end: float
    step: float

    @property
    def instants(self) -> list[float]:
        """All of them."""
        return [self.start + i * self.step for i in range(self.steps + 1)]

    @property
    def steps(self) -> int:
        """How many stretches lie between them."""
        return round((self.end - self.start) / self.step)


@dataclass(frozen=True, slots=True)
class Found:
    """One series: its labels, `__name__` among them, and its values at the instants of a range,
    None where it had none."""

    labels: Mapping[str, str]
    values: list[float | None]


class Prometheus:
    """A client; `queries` counts what it asked."""

    def __init__(self, url: str, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = f"{host}:{parts.port}" if parts.port else host
        self.url = urlunsplit((parts.scheme, address, parts.path.rstrip("/"), "", ""))
        """Without credentials."""
        self.queries = 0
        self._timeout = timeout
        self._headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if parts.username is not None:
            told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(told.encode()).decode()}"

    def over(self, expression: str, when: Range) -> list[Found]:
        """The series of an expression over a range. Raises `PrometheusError`."""
        form = {"start": f"{when.start:.3f}", "end": f"{when.end:.3f}", "step": f"{when.step:.3f}"}
        result = self._ask("query_range", {"query": expression, **form}, "matrix")
        return [Found(one["metric"], _aligned(one["values"], when)) for one in result]

    def at(self, expression: str, instant: float) -> list[Found]:
        """The series of an expression at an instant. Raises `PrometheusError`."""
        result = self._ask("query", {"query": expression, "time": instant}, "vector")
        return [Found(one["metric"], [_number(one["value"][1])]) for one in result]

    def _ask(self, endpoint: str, form: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
        self.queries += 1
        try:
            answer = json.loads(self._post(endpoint, urlencode(form, quote_via=quote).encode()))
            if answer["status"] != "success":
                raise self._error(f"says: {answer.get('error')}", "give a shorter window")
            data = answer["data"]
            if data["resultType"] != kind:
                raise self._error(f"answered with a {data['resultType']}", "check the address")
            found: list[dict[str, Any]] = data["result"]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, PrometheusError):
                raise
            raise self._error("did not answer as a Prometheus does", "check the address") from error
        return found

    def _post(self, endpoint: str, form: bytes) -> bytes:
        request = urllib.request.Request(
            f"{self.url}/api/v1/{endpoint}", data=form, headers=self._headers
        )
        deadline = time.monotonic() + self._timeout
        try:
            # No proxy of the environment: the address names the server that is meant.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=self._timeout) as response:
                return self._body(response, deadline)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except TimeoutError as error:
            raise self._slow() from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._slow() from error
            raise self._error(
                f"cannot be reached ({error.reason})", "check that it runs there"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._error(f"broke off its answer ({error!r})", "try again") from error

    def _body(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        blocks = []
        size = 0
        # The socket's timeout is for each read alone; a trickle would never end.
        while block := response.read1(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > LIMIT_BYTES:
                raise self._error(
                    f"answered with more than {LIMIT_BYTES // 2**20} MiB", "give a shorter window"
                )
            if time.monotonic() > deadline:
                raise self._slow()
        return b"".join(blocks)

    def _refused(self, error: urllib.error.HTTPError) -> PrometheusError:
        try:
            told = json.loads(error.read(_BLOCK)).get("error")
        except (OSError, ValueError, AttributeError):
            told = None
        if told:
            return self._error(f"says: {told}", "give a shorter window or other matchers")
        fix = "give credentials" if error.code in {401, 403} else "check the address"
        return self._error(f"answered with status {error.code}", fix)

    def _slow(self) -> PrometheusError:
        return self._error(
            f"did not answer within {self._timeout:g} s",
            "give a shorter window or a longer timeout",
        )

    def _error(self, problem: str, fix: str) -> PrometheusError:
        return PrometheusError(self.url, " ".join(problem.split()), fix)


def _aligned(pairs: list[tuple[float, str]], when: Range) -> list[float | None]:
    values: list[float | None] = [None] * (when.steps + 1)
    for at, value in pairs:
        place = round((at - when.start) / when.step)
        if 0 <= place < len(values):
            values[place] = _number(value)
    return values


def _number(text: str) -> float | None:
    """NaN and the infinities, which Prometheus may store, are no values."""
    value = float(text)
    return value if math.isfinite(value) else None
