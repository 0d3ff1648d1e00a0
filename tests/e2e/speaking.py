"""Sessions of the real split mode without media: requests in, what the bus carried out.

OpenTalking's pipeline runs without a peer, which makes room for a hundred turns at once on two
cores. It must not know the exporter: what it records is what the exporter is compared with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

import httpx
import redis

from exporter import upstream
from exporter.stages import Outcome
from talkscope import children
from tests.processes import wait_until

MODEL = "wav2lip"
PACE_S = 0.1
SETTLED_S = 1.0
"""An answer that has not begun by then has vanished: it begins within milliseconds."""

BEGUN_S = 60.0


class Event(NamedTuple):
    """One message of the bus."""

    session: str
    name: str
    data: dict[str, Any]


class Recorder:
    """Everything on the bus as plain redis-py brings it. Ends quietly when Redis does."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._pubsub = self._redis.pubsub()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self) -> Self:
        self._pubsub.psubscribe(upstream.EVENT_CHANNEL_PATTERN)
        assert self._pubsub.get_message(timeout=5.0), "Redis does not answer"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._redis.close()

    def _record(self) -> None:
        with contextlib.suppress(redis.ConnectionError):
            while not self._stopped.is_set():
                message = self._pubsub.get_message(timeout=0.1)
                if message is not None and message["type"] == "pmessage":
                    session = message["channel"].removeprefix(upstream.EVENT_CHANNEL_PREFIX)
                    content = json.loads(message["data"])
                    self.events.append(Event(session, content["event"], content["data"]))

    def count(self, name: str, session: str | None = None) -> int:
        """How many events of this name came, of one session or of all."""
        return sum(e.name == name and session in (None, e.session) for e in list(self.events))


def outcomes(events: Iterable[Event]) -> list[Outcome]:
    """How each turn ended, from the events alone; a turn that goes on is left out."""
    found = []
    speaking = set()
    for session, name, data in events:
        if name == upstream.SPEECH_STARTED:
            if session in speaking:
                found.append(Outcome.INTERRUPTED)
            speaking.add(session)
        elif session in speaking and name in (upstream.SPEECH_ENDED, upstream.ERROR):
            speaking.remove(session)
            whole = Outcome.COMPLETED if "text" in data else Outcome.INTERRUPTED
            found.append(Outcome.FAILED if name == upstream.ERROR else whole)
    return found


def most_at_once(events: Iterable[Event]) -> int:
    """The greatest number of turns that were under way at one time."""
    speaking: set[str] = set()
    most = 0
    for session, name, _ in events:
        if name == upstream.SPEECH_STARTED:
            speaking.add(session)
        elif name in (upstream.SPEECH_ENDED, upstream.ERROR):
            speaking.discard(session)
        most = max(most, len(speaking))
    return most


class Speakers:
    """Creates sessions of one target and makes them speak."""

    def __init__(self, target: children.DemoTarget, bus: Recorder) -> None:
        self.bus = bus
        self._avatar = target.facts["avatar"]
        self._provider = target.facts["provider"]["pid"]
        self._knobs = f"{target.facts['provider']['url']}/knobs"
        self._created: list[str] = []
        self._http = httpx.Client(base_url=target.url, timeout=30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._created:
            # One that a fault has cost OpenTalking is not there any more.
            self._http.delete(f"/sessions/{name}")
        self._http.close()

    def create(self, count: int = 1) -> list[str]:
        """Create sessions; return their names when all are ready."""
        body = {"avatar_id": self._avatar, "model": MODEL}
        answers = [self._http.post("/sessions", json=body).raise_for_status() for _ in range(count)]
        names = [str(answer.json()["session_id"]) for answer in answers]
        self._created += names
        for name in names:
            wait_until(
                lambda name=name: self.bus.count(upstream.SESSION_QUEUED, name), f"session {name}"
            )
        return names

    def begin(self, sessions: Iterable[str]) -> None:
        """Give each session an input; return when every answer has begun.

        OpenTalking's queue is a stack: an input that is popped before its own interrupt vanishes
        although it was accepted, the more so while the worker is busy. What has vanished is said
        again.
        """
        before = {name: self.bus.count(upstream.SPEECH_STARTED, name) for name in sessions}

        def silent() -> list[str]:
            return [n for n in before if self.bus.count(upstream.SPEECH_STARTED, n) == before[n]]

        deadline = time.monotonic() + BEGUN_S
        while left := silent():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(left)} of {len(before)} answers did not begin")
            for name in left:
                self._http.post(f"/sessions/{name}/speak", json={"text": "x"}).raise_for_status()
                _pause(
                    PACE_S,
                    lambda name=name: self.bus.count(upstream.SPEECH_STARTED, name) > before[name],
                )
            _pause(SETTLED_S, lambda: not silent())

    def until_all_ended(self) -> None:
        """Wait until every turn that has begun has ended."""
        names = (upstream.SPEECH_ENDED, upstream.ERROR)
        wait_until(
            lambda: self.bus.count(upstream.SPEECH_STARTED) == sum(map(self.bus.count, names)),
            "the end of every turn",
            60.0,
        )

    def speak(self, session: str) -> None:
        """One whole turn."""
        self.begin([session])
        self.until_all_ended()

    @contextlib.contextmanager
    def provider(self, **knobs: str | float) -> Iterator[None]:
        """Turn knobs of the stand-in for LLM and TTS, and back at the end."""
        before = httpx.get(self._knobs).json()
        httpx.put(self._knobs, json=knobs).raise_for_status()
        try:
            yield
        finally:
            httpx.put(self._knobs, json=before).raise_for_status()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Every turn waits for its language model, which hangs."""
        os.kill(self._provider, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._provider, signal.SIGCONT)


def _pause(seconds: float, unless: Callable[[], bool]) -> None:
    with contextlib.suppress(TimeoutError):
        wait_until(unless, "", seconds, pause=0.005)
