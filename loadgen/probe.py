"""One synthetic viewer, for ever: a target in, a turn at every interval, marks and counts out.

A deployment that nobody uses at night has no time to first video then, and the first to feel a
bad change would be the first user of the morning. The probe speaks a short turn at every interval,
as a viewer would. Most of its turns belong to a session that has spoken before, since only those
can be compared over time; the session is renewed now and then, so that creating one is tried too.

It must not know the command line. What goes wrong is counted and told, never raised: a target
that is down is what a probe is there to see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from loadgen.bench import DEFAULT_PROMPT
from loadgen.errors import TargetError
from loadgen.marks import MarkSink
from loadgen.media.peer import warm_up
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.target import BenchError, check
from loadgen.told import FirstTimestampsOf
from loadgen.turn import TextInput

NO_SESSION: Final = "no_session"
"""Outcome of a turn that was due and had no session to be spoken in."""


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """What to ask, how often, and how to reach the media."""

    url: str
    model: str | None = None
    avatar: str | None = None
    prompt: str = DEFAULT_PROMPT
    every: float = 15.0
    """Seconds from the beginning of a turn to that of the next."""
    turns: int = 40
    """Turns of a session before it is renewed."""
    addresses: tuple[str, ...] | None = None
    stun_urls: tuple[str, ...] = ()


class ProbeMetrics:
    """The probe's own families: whether it gets answers. How fast, the exporter tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.turns = Counter(
            "talkscope_probe_turns",
            "Turns that were due, by how they ended; no_session: none could be opened.",
            ("outcome",),
            registry=self.registry,
        )
        self.sessions = Counter(
            "talkscope_probe_sessions", "Sessions that were opened.", registry=self.registry
        )
        self.orphans = Counter(
            "talkscope_probe_orphans",
            "Sessions that could not be deleted and may still hold the target's memory.",
            registry=self.registry,
        )
        self._answered: Gauge | None = None

    def answered(self) -> None:
        """A turn was answered just now."""
        if self._answered is None:
            # Before the first one there is no such time, and zero would be one.
            self._answered = Gauge(
                "talkscope_probe_last_answer_timestamp_seconds",
                "When a turn was last answered; absent until the first.",
                registry=self.registry,
            )
        self._answered.set_to_current_time()


class Probe:
    """Run `run` until it is cancelled; the session is then deleted."""

    def __init__(
        self,
        config: ProbeConfig,
        marks: MarkSink,
        metrics: ProbeMetrics,
        tell: Callable[[str], None],
        first_timestamps: FirstTimestampsOf | None = None,
    ) -> None:
        """`tell` takes one line for people, when something changes; the last is as in `Session`."""
        self._config = config
        self._marks = marks
        self._metrics = metrics
        self._tell = tell
        self._first_timestamps = first_timestamps
        self._failing: str | None = None

    async def run(self) -> None:
        """Speak for ever. Raises ValueError when the URL is none."""
        async with OpenTalking(self._config.url) as client:
            await warm_up(decode=False)
            due = time.monotonic()
            while True:
                try:
                    due = await self._session(client, due)
                except (TargetError, BenchError) as error:
                    self._failed(NO_SESSION, str(error))
                    due = await self._next(due)

    async def _session(self, client: OpenTalking, due: float) -> float:
        """One session with its turns; return when the next turn is due."""
        target = await check(client, model=self._config.model, avatar=self._config.avatar)
        session = Session(
            client,
            SessionConfig(
                model=target.model,
                avatar=target.avatar,
                addresses=self._config.addresses,
                stun_urls=self._config.stun_urls,
                decode=False,
            ),
            self._marks,
            first_timestamps=self._first_timestamps,
        )
        try:
            await session.open()
            self._metrics.sessions.inc()
            for _ in range(self._config.turns):
                alive = await self._turn(session)
                due = await self._next(due)
                if not alive:
                    break
        finally:
            await session.close()
            if session.cleanup_error is not None:
                self._metrics.orphans.inc()
                self._tell(f"a session could not be deleted: {session.cleanup_error}")
        return due

    async def _turn(self, session: Session) -> bool:
        """Speak once; return whether the session lives on."""
        try:
            result = await session.turn(TextInput(self._config.prompt), phase=None)
        except TargetError as error:
            self._failed(NO_SESSION, str(error))
            return False
        if result.ok:
            self._metrics.turns.labels(result.outcome).inc()
            self._metrics.answered()
            if self._failing is not None:
                self._tell("answers again")
            self._failing = None
        else:
            self._failed(result.outcome, result.error.message if result.error else result.outcome)
        return session.trouble is None

    def _failed(self, outcome: str, reason: str) -> None:
        self._metrics.turns.labels(outcome).inc()
        if reason != self._failing:
            self._tell(f"no answer ({outcome}): {reason}")
        self._failing = reason

    async def _next(self, due: float) -> float:
        """Wait for the next turn. After a slow answer it begins at once; none is caught up."""
        every = self._config.every
        due = max(due + every, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        return due
