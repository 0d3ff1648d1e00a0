"""Carries records to the exporter: items in, from code that must not wait; batches out.

What goes out: `POST /v1/marks`, each record once for the exporter however often a batch is sent,
and an account of what was lost. It must not know OpenTalking, nor what an item means.

A thread of its own does everything that takes time: it makes the records, measures the clock
and sends. While the exporter is away the newest items are dropped once the queue is full:
dropping the oldest would lose the beginnings of what the queue still holds the ends of.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from exporter.agent.clock import ExporterClock
from exporter.agent.guard import Guard
from exporter.agent.http import ExporterHttp
from exporter.agent.settings import Settings

MAX_BATCH: Final = 500
"""Records of one request; docs/marks.md allows 1,000."""
LINGER_S: Final = 0.05
"""How long an item may wait for others to share its request."""

_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.1, 5.0
_RETRIED: Final = frozenset({408, 429})
_VERSION: Final = 1
_REFUSED_RECORD = re.compile(r"records\[(\d+)\]")

log = logging.getLogger("talkscope.agent")


class Item(Protocol):
    """Something that becomes a record."""

    def ready(self) -> bool:
        """Whether the record may be made; an item that is not ready is asked again."""

    def record(self) -> dict[str, Any] | None:
        """The record without its sequence, or None when there is nothing to tell."""


@dataclass(slots=True)
class Delivery:
    """What became of the items so far."""

    accepted: int = 0
    duplicates: int = 0
    """Acknowledged again after a retry; not lost."""
    dropped: int = 0
    """Never taken, because the queue was full."""
    refused: int = 0
    """The exporter said 4xx: a disagreement about docs/marks.md, or a wrong token."""


class Courier:
    """Takes items at once, sends them in order in the background."""

    def __init__(self, settings: Settings, guard: Guard) -> None:
        self.delivery = Delivery()
        self.origin = f"agent-{secrets.token_hex(6)}"
        self._settings = settings
        self._guard = guard
        self._http = ExporterHttp(settings.exporter, settings.token)
        self._clock = ExporterClock(self._http.clock)
        self._queue: deque[Item] = deque()
        self._waiting: list[Item] = []
        self._outbox: list[dict[str, Any]] = []
        self._sequence = 0
        self._news = threading.Event()
        self._closing = threading.Event()
        self._reached: bool | None = None
        self._dropped_told = 0
        self._thread = threading.Thread(target=self._run, name="talkscope-agent", daemon=True)

    @property
    def held(self) -> int:
        """Items and records that wait to be sent; never more than the settings allow."""
        return len(self._queue) + len(self._waiting) + len(self._outbox)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def take(self, item: Item) -> None:
        """Take one item; count and forget it when the queue is full. Never waits."""
        if self.held >= self._settings.queue:
            self.delivery.dropped += 1
            return
        self._queue.append(item)
        if not self._news.is_set():
            self._news.set()

    def close(self, timeout: float) -> None:
        """Send what there is, for at most `timeout` seconds, and stop."""
        self._closing.set()
        self._news.set()
        self._thread.join(timeout)

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = _BACKOFF_FIRST_S
        while not (self._closing.is_set() and not self.held):
            self._news.wait(LINGER_S if self._waiting else None)
            self._news.clear()
            self._closing.wait(LINGER_S)
            self._collect()
            while self._outbox:
                if self._send():
                    backoff = _BACKOFF_FIRST_S
                    self._collect()
                    continue
                self._pause(backoff)
                backoff = min(2 * backoff, _BACKOFF_MOST_S)
            if self._closing.is_set():
                self._news.set()

    def _pause(self, seconds: float) -> None:
        """Wait before the next try. Closing cuts a long wait short, and then tries often."""
        if self._closing.is_set():
            time.sleep(_BACKOFF_FIRST_S)
        else:
            self._closing.wait(seconds)

    def _collect(self) -> None:
        """Fill the outbox with the records of the items that are ready."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            self._guard("making a record", self._take_in, item)
        while self._queue and len(self._outbox) < MAX_BATCH:
            self._guard("making a record", self._take_in, self._queue.popleft())

    def _take_in(self, item: Item) -> None:
        if not (item.ready() or self._closing.is_set()):
            self._waiting.append(item)
            return
        record = item.record()
        if record is not None:
            # What cannot be written as JSON must not stop the rest.
            json.dumps(record, allow_nan=False)
            self._sequence += 1
            self._outbox.append(record | {"sequence": self._sequence})

    def _send(self) -> bool:
        """Send the outbox; return whether it got shorter."""
        batch = self._outbox[:MAX_BATCH]
        try:
            body = {
                "version": _VERSION,
                "origin": self.origin,
                "clock": asdict(self._clock.offset()),
                "records": batch,
            }
            status, text = self._http.request("POST", "/v1/marks", json.dumps(body).encode())
            if 400 <= status < 500 and status not in _RETRIED:
                self._give_up(batch, status, text)
                return True
            if not 200 <= status < 300:
                raise ValueError(f"HTTP {status}")
            answer = json.loads(text)
            accepted, duplicates = int(answer["accepted"]), int(answer["duplicates"])
        except Exception as error:
            # Whatever it is, the thread must outlive it.
            self._is_away(error)
            return False
        self.delivery.accepted += accepted
        self.delivery.duplicates += duplicates
        self._outbox = self._outbox[len(batch) :]
        self._is_reached()
        return True

    def _give_up(self, batch: list[dict[str, Any]], status: int, text: str) -> None:
        """A batch is refused whole: drop the record that the answer names, else all of them."""
        place = _REFUSED_RECORD.search(text)
        index = int(place[1]) if place else len(batch)
        refused = batch[index : index + 1] or batch
        self._outbox = [record for record in self._outbox if record not in refused]
        if self.delivery.refused == 0:
            log.warning("the exporter refused records: HTTP %d: %s", status, text[:300])
        self.delivery.refused += len(refused)

    def _is_away(self, error: Exception) -> None:
        self._clock.was_away()
        if self._reached is not False:
            log.warning(
                "the exporter at %s does not answer (%s: %s): keeping up to %d records",
                self._settings.exporter,
                type(error).__name__,
                error,
                self._settings.queue,
            )
        self._reached = False

    def _is_reached(self) -> None:
        if self._reached is not True:
            dropped = self.delivery.dropped - self._dropped_told
            self._dropped_told = self.delivery.dropped
            log.info(
                "the agent reports to %s; %d records were dropped before",
                self._settings.exporter,
                dropped,
            )
        self._reached = True
