"""Marks on their way to the exporter: records in, `POST /v1/marks` out (docs/marks.md).

What comes in: records, from code that must not wait. What goes out: batches, each record once
for the exporter however often a batch is sent, and an account of what was lost. It must not
know what a mark means, nor sessions or media.

A measurement never waits for the exporter and never fails because of it: a dead exporter costs
the records, which are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

import httpx

from exporter import steady_clock
from loadgen.loopback import is_loopback

MAX_BATCH: Final = 1_000
"""Records a batch may hold (docs/marks.md)."""
MAX_QUEUED: Final = 10_000
"""Records kept while the exporter does not answer: minutes of one session."""
LINGER_S: Final = 0.02
"""How long a record may wait for others to share its request."""

_CLOCK_PROBES, _CLOCK_PROBES_MOST = 5, 40
_CLOCK_GOOD_S = 0.001
_CLOCK_PROBING_S = 0.5
_CLOCK_VALID_S = 300.0
_CLOCK_DRIFT = 15e-6
"""How fast two clocks may part, seconds a second (RFC 5905, section 7.2: PHI)."""
_FIRST_CLOCK_S = 1.0
_NO_ANSWER = (httpx.HTTPError, ValueError, KeyError, TypeError)
"""The exporter is not there, or what answers is none."""
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.1, 5.0
_REQUEST_TIMEOUT_S = 5.0
_VERSION = 1


# --- records -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionMarks:
    """A session, or news of it: its marks are merged with those sent before.

    `outcome` is None while the session goes on.
    """

    kind: ClassVar[str] = "session"
    session: str
    model: str
    avatar: str
    started_unix: float
    marks: Mapping[str, float]
    absent: Mapping[str, str]
    outcome: str | None


@dataclass(frozen=True, slots=True)
class RelayedEvent:
    """An event of the session's stream; `unix` is the wall clock of its arrival."""

    kind: ClassVar[str] = "event"
    session: str
    unix: float
    event: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """The input of a turn has been given."""

    kind: ClassVar[str] = "turn_opened"
    session: str
    turn: str
    input: str
    phase: str | None
    started_unix: float


@dataclass(frozen=True, slots=True)
class TurnMarks:
    """The client's whole account of one turn."""

    kind: ClassVar[str] = "turn"
    session: str
    turn: str
    input: str
    phase: str | None
    started_unix: float
    marks: Mapping[str, float]
    samples: Mapping[str, float]
    drift: Mapping[str, Any] | None
    bases: Mapping[str, str]
    absent: Mapping[str, str]
    outcome: str
    error: Mapping[str, str] | None


Record = SessionMarks | RelayedEvent | TurnOpened | TurnMarks


class MarkSink(Protocol):
    """Takes records at once; never waits, never raises."""

    def send(self, record: Record) -> None:
        """Take one record."""


class NullSink:
    """For measuring without an exporter."""

    def send(self, record: Record) -> None:
        """Take one record and forget it."""


# --- the exporter's client -----------------------------------------------------------------


@dataclass(slots=True)
class Delivery:
    """What became of the records so far."""

    accepted: int = 0
    duplicates: int = 0
    """Acknowledged again after a retry; not lost."""
    dropped: int = 0
    """Never queued, because the queue was full."""
    refused: int = 0
    """The exporter said 4xx: a disagreement about docs/marks.md."""
    unsent: int = 0
    """Still queued when the client was closed."""
    last_error: str | None = None

    @property
    def lost(self) -> int:
        """Records the exporter does not have."""
        return self.dropped + self.refused + self.unsent


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The exporter's clock minus ours, and half the round trip that told it (seconds)."""

    offset_seconds: float
    uncertainty_seconds: float


@dataclass(frozen=True, slots=True)
class _Queued:
    sequence: int
    record: Record

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.record.kind, "sequence": self.sequence, **asdict(self.record)}


_REFUSED_RECORD = re.compile(r"records\[(\d+)\]")
_RETRIED_STATUS = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})


class MarksClient:
    """Sends records to the exporter at `url`, in order, in the background.

    Use as an async context manager; leaving it flushes for at most `close_timeout` seconds.
    `delivery` tells afterwards what was lost.
    """

    def __init__(
        self,
        url: str,
        *,
        role: str = "bench",
        token: str | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        """`token` is the bearer token that the exporter asks for, if it does."""
        self.url = url.rstrip("/")
        self.origin = f"{role}-{secrets.token_hex(6)}"
        self.delivery = Delivery()
        self._close_timeout = close_timeout
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=_REQUEST_TIMEOUT_S,
            trust_env=not is_loopback(url),
            limits=httpx.Limits(keepalive_expiry=2.0),
        )
        self._queue: deque[_Queued] = deque()
        self._sequence = 0
        self._news = asyncio.Event()
        self._closing = False
        self._clock: ClockOffset | None = None
        self._clock_at = -math.inf
        self._clock_doubted = False
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Now, while nothing competes for this process: a busy one measures a worse offset.
        with contextlib.suppress(*_NO_ANSWER, TimeoutError):
            await asyncio.wait_for(self._offset(), _FIRST_CLOCK_S)
        self._sender = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def send(self, record: Record) -> None:
        """Queue one record. When the queue is full it is counted and forgotten.

        The newest is what goes: dropping the oldest would leave holes in the sequence.
        """
        if len(self._queue) >= MAX_QUEUED or self._closing:
            self.delivery.dropped += 1
            return
        self._sequence += 1
        self._queue.append(_Queued(self._sequence, record))
        self._news.set()

    async def close(self) -> None:
        """Send what is queued, waiting at most `close_timeout` seconds, and stop."""
        self._closing = True
        self._news.set()
        if self._sender is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sender, self._close_timeout)
        self.delivery.unsent = len(self._queue)
        await self._http.aclose()

    async def _run(self) -> None:
        backoff = _BACKOFF_FIRST_S
        while not (self._closing and not self._queue):
            await self._news.wait()
            if not self._closing:
                await asyncio.sleep(LINGER_S)
            self._news.clear()
            while self._queue:
                if await self._send_batch():
                    backoff = _BACKOFF_FIRST_S
                    continue
                await self._pause(backoff)
                backoff = min(2 * backoff, _BACKOFF_MOST_S)
                # Closing leaves little time: try often.
                backoff = _BACKOFF_FIRST_S if self._closing else backoff

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; closing cuts a long wait short."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _BACKOFF_FIRST_S))
            if self._closing:
                return

    async def _send_batch(self) -> bool:
        """Send the oldest records; return whether the queue got shorter."""
        batch = list(islice(self._queue, MAX_BATCH))
        try:
            body = {
                "version": _VERSION,
                "origin": self.origin,
                "clock": asdict(await self._offset()),
                "records": [queued.to_json() for queued in batch],
            }
            response = await self._http.post("/v1/marks", json=body)
            if response.is_client_error and response.status_code not in _RETRIED_STATUS:
                self._give_up(batch, response)
                return True
            response.raise_for_status()
            answer = response.json()
            self.delivery.accepted += int(answer["accepted"])
            self.delivery.duplicates += int(answer["duplicates"])
        except _NO_ANSWER as error:
            self.delivery.last_error = f"{self.url}: {type(error).__name__}: {error}"
            self._clock_doubted = True
            return False
        for _ in batch:
            self._queue.popleft()
        return True

    def _give_up(self, batch: list[_Queued], response: httpx.Response) -> None:
        """A batch is refused whole: drop the record that the answer names, else all of them."""
        place = _REFUSED_RECORD.search(response.text)
        index = int(place[1]) if place else len(batch)
        refused = batch[index : index + 1] or batch
        for queued in refused:
            self._queue.remove(queued)
        self.delivery.refused += len(refused)
        self.delivery.last_error = (
            f"{self.url} refused marks: HTTP {response.status_code}: {response.text[:300]}"
        )

    async def _offset(self) -> ClockOffset:
        """The clock offset, measured anew when it is old, as clocks drift apart, or when the
        exporter was away: it may have been restarted, and have another clock."""
        known, age = self._clock, time.monotonic() - self._clock_at
        if known is not None and age <= _CLOCK_VALID_S and not self._clock_doubted:
            return known
        best = await self._measure_clock()
        if known is not None:
            by_now = known.uncertainty_seconds + _CLOCK_DRIFT * age
            apart = abs(best.offset_seconds - known.offset_seconds)
            # Kept where it is the better one of two that agree; else one of the clocks is new.
            if by_now < best.uncertainty_seconds and apart <= by_now + best.uncertainty_seconds:
                best = ClockOffset(known.offset_seconds, by_now)
        self._clock, self._clock_at, self._clock_doubted = best, time.monotonic(), False
        return best

    async def _measure_clock(self) -> ClockOffset:
        """The best of several round trips; more of them while both sides seem busy."""
        begun = time.monotonic()
        best = await self._probe_clock()
        for count in range(2, _CLOCK_PROBES_MOST + 1):
            probe = await self._probe_clock()
            best = min(best, probe, key=lambda p: p.uncertainty_seconds)
            enough = best.uncertainty_seconds <= _CLOCK_GOOD_S
            if count >= _CLOCK_PROBES and (enough or time.monotonic() - begun > _CLOCK_PROBING_S):
                break
        return best

    async def _probe_clock(self) -> ClockOffset:
        sent_unix, sent = steady_clock.now(), time.monotonic()
        response = await self._http.get("/v1/clock")
        half = (time.monotonic() - sent) / 2
        response.raise_for_status()
        return ClockOffset(float(response.json()["unix"]) - (sent_unix + half), half)
