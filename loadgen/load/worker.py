"""A process that has viewers: a `Setup` in, visits lived, entries for the run's account out.

It joins the two sides of the process. Inside the event loop: visits, the marks' client and the
sampling of this process's own health. Among the greenlets: Locust's request events, the metrics
and the outbox, all fed by `_take`. It must not know masters, messages or shapes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from gevent.event import Event

from exporter import stages
from loadgen import garbage
from loadgen.load import ledger
from loadgen.load.admission import Admission
from loadgen.load.bridge import Bridge
from loadgen.load.health import Health
from loadgen.load.metrics import Metrics
from loadgen.load.settings import Local, Setup
from loadgen.load.verdict import Window
from loadgen.load.visit import Failed, Surroundings, Visit
from loadgen.marks import MarksClient, MarkSink, NullSink
from loadgen.media.datagrams import receive_load
from loadgen.media.peer import warm_up
from loadgen.media.tap import check_aiortc
from loadgen.opentalking import OpenTalking
from loadgen.result import TurnResult
from loadgen.scenario import Scenario, WeightedCycle
from loadgen.session import SessionConfig, SessionLimits, SessionReport
from loadgen.told import AgentTimestamps
from loadgen.turn import TurnLimits

ROLE: Final = "load"

Entry = dict[str, Any]
FireRequest = Callable[[str, str, float, Exception | None], None]
"""Tells Locust of a request: scenario, name, milliseconds, what went wrong."""

_log = logging.getLogger(__name__)


class Worker:
    """One process's viewers. Create it in the main thread, after any fork."""

    def __init__(self, bridge: Bridge, local: Local, fire_request: FireRequest) -> None:
        self._bridge = bridge
        self._local = local
        self._fire_request = fire_request
        self.ready = Event()
        """Set while visits may begin: everything is imported, warm and set up."""
        self.urgent = Event()
        """Set when a session exists that nobody else knows of yet."""
        self.sessions = 0
        self.speaking = 0
        self.metrics = Metrics(lambda: self.sessions, lambda: self.speaking)
        self._outbox: list[Entry] = []
        self._sent = 0
        self._setup: Setup | None = None
        self._visits = 0
        self._rng = random.Random()
        self._cycle: WeightedCycle | None = None
        self._inside: _Inside | None = None

    def warm(self) -> None:
        """Import and try everything that the first session would otherwise wait for.

        Raises UnsupportedAiortcError.
        """
        check_aiortc()
        self._bridge.run(warm_up())
        self._bridge.run(warm_up(decode=False))
        garbage.settle()

    def set_up(self, setup: Setup, index: int) -> None:
        """Take over what to do; `index` tells workers of a run apart. May come again."""
        first = self._setup is None
        self._setup = setup
        if self._inside is not None:
            self._bridge.loop.call_soon_threadsafe(self._inside.limit, setup)
        if first:
            self._rng = random.Random(f"{setup.seed}/{index}")
            self._cycle = WeightedCycle(setup.source.scenarios(), skip=index)

    def begin(self) -> None:
        """A run begins."""
        assert self._setup is not None
        self._inside = self._bridge.run(
            _Inside.opened(self._setup, self._local, lambda: self.sessions, self._emit)
        )
        self.ready.set()

    def ask_to_leave(self) -> None:
        """Visits leave after the turn that is running."""
        if self._inside is not None:
            self._bridge.loop.call_soon_threadsafe(self._inside.ending.set)

    def end(self) -> dict[str, int]:
        """The run is over, all visits have ended; return what it leaves unsaid.

        `cut_off`: turns that ended with the run; `never_begun`: visits that were due and had not
        begun; `marks_lost`: records that the exporter lacks.
        """
        self.ready.clear()
        inside, self._inside = self._inside, None
        if inside is None:
            return {"cut_off": 0, "never_begun": 0, "marks_lost": 0}
        lost = self._bridge.run(inside.close())
        return {
            "cut_off": inside.cut_off,
            "never_begun": inside.never_begun,
            "marks_lost": lost,
        }

    # --- visits ----------------------------------------------------------------------------

    def next_scenario(self) -> Scenario:
        """What the next visit does."""
        assert self._cycle is not None
        return self._cycle.next()

    def visit(self, scenario: Scenario, intended: float | None = None) -> None:
        """Live one visit to its end. `intended`: monotonic instant at which it should begin."""
        inside = self._inside
        if inside is None:
            return
        self._visits += 1
        rng = random.Random(self._rng.random())
        observer = _VisitObserver(self._visits, scenario.name, inside, self._emit)
        self._bridge.run(Visit(scenario, inside.around, observer, rng, intended=intended).run())

    def pause(self, scenario: Scenario) -> float:
        """Seconds until a user of the closed model comes back."""
        return scenario.pause.draw(self._rng)

    def stagger(self) -> float:
        """Seconds by which a user's first visit is put off.

        Locust starts a second's users in one burst, which no crowd does: the first frame's
        median was 59 ms instead of 33.
        """
        return self._rng.random()

    def drain(self) -> tuple[int, list[Entry]]:
        """The entries since the last call, and how many there were before them."""
        entries, self._outbox = self._outbox, []
        sequence, self._sent = self._sent, self._sent + len(entries)
        return sequence, entries

    # --- entries ---------------------------------------------------------------------------

    def _emit(self, entry: Entry) -> None:
        self._bridge.emit(self._take, entry)

    def _take(self, entry: Entry) -> None:
        if entry["kind"] == "session":
            self.sessions += {ledger.REQUESTED: 1, ledger.CLOSED: -1}.get(entry["state"], 0)
            if entry["state"] == ledger.CREATED:
                self.urgent.set()
        elif entry["kind"] == "speaking":
            self.speaking += entry["change"]
            return
        self._outbox.append(entry)
        self.metrics.take(entry)
        for request in _requests(entry):
            self._fire_request(entry["scenario"], *request)


def _requests(entry: Mapping[str, Any]) -> Iterable[tuple[str, float, Exception | None]]:
    """What Locust's own statistics get of an entry; latencies count from the intended start."""
    match entry["kind"]:
        case "opened":
            for key, value in entry["values"].items():
                yield key, value + entry["waited_s"] * 1e3, None
        case "turn":
            for stage in (
                stages.PERCEIVED_TTFA,
                stages.PERCEIVED_TTFV,
                stages.TURN_COMPLETION,
                stages.INTERRUPT_LATENCY,
            ):
                if stage.key in entry["values"]:
                    # An interrupt is our own doing: only what the user waits for begins late.
                    late = 0.0 if stage is stages.INTERRUPT_LATENCY else entry["late_s"] * 1e3
                    yield stage.key, entry["values"][stage.key] + late, None
            if entry["error"] is not None:
                yield "turn", entry["ended_s"] * 1e3, _Failure(entry["error"]["message"])
        case "failed":
            yield "session", entry["after_s"] * 1e3, _Failure(entry["message"])


class _Failure(Exception):  # noqa: N818 (Locust prints the class's name: it is no program error)
    """What Locust lists among its failures."""


class _Inside:
    """The worker's part that lives in the event loop, for one run."""

    def __init__(
        self,
        around: Surroundings,
        health: Health,
        marks: MarksClient | None,
        told: AgentTimestamps | None,
    ) -> None:
        self.around = around
        self.health = health
        self.ending = around.ending
        self.cut_off = 0
        self.never_begun = 0
        self._marks = marks
        self._told = told
        self._sampling = asyncio.create_task(health.run())

    @classmethod
    async def opened(
        cls,
        setup: Setup,
        local: Local,
        sessions: Callable[[], int],
        emit: Callable[[Entry], None],
    ) -> _Inside:
        marks: MarksClient | None = None
        sink: MarkSink = NullSink()
        if setup.exporter:
            client = MarksClient(setup.exporter, role=ROLE, token=local.exporter_token)
            sink = marks = await client.__aenter__()
        told = AgentTimestamps(setup.agent_exporter) if setup.agent_exporter else None
        rng = random.Random(setup.seed)
        around = Surroundings(
            client=OpenTalking(setup.url),
            marks=sink,
            admission=Admission(sessions=setup.max_sessions, ramp=setup.max_ramp),
            config=lambda scenario: _session_config(scenario, setup, local, rng),
            ending=asyncio.Event(),
            first_timestamps=told,
        )

        def on_window(window: Window) -> None:
            emit({"kind": "window", "scenario": "", **window.to_json()})

        return cls(around, Health(sessions, receive_load().take, on_window), marks, told)

    def limit(self, setup: Setup) -> None:
        """The worker's share of the limits has changed."""
        self.around.admission.limit(sessions=setup.max_sessions, ramp=setup.max_ramp)

    async def close(self) -> int:
        """Return the records that the exporter did not get."""
        self._sampling.cancel()
        await asyncio.gather(self._sampling, return_exceptions=True)
        await self.around.client.close()
        if self._told is not None:
            await self._told.close()
        if self._marks is None:
            return 0
        await self._marks.close()
        if self._marks.delivery.lost:
            _log.warning("marks were lost: %s", self._marks.delivery.last_error)
        return self._marks.delivery.lost


def _session_config(
    scenario: Scenario, setup: Setup, local: Local, rng: random.Random
) -> SessionConfig:
    usual = SessionLimits()
    return SessionConfig(
        model=setup.models[scenario.name],
        avatar=setup.avatars[scenario.name],
        addresses=local.addresses,
        stun_urls=local.stun_urls,
        decode=rng.random() < setup.decode_fraction,
        limits=SessionLimits(
            ready=usual.ready,
            turn=TurnLimits(turn=setup.turn_timeout),
        ),
    )


class _VisitObserver:
    """Turns the news of one visit into entries; lives in the event loop."""

    def __init__(
        self, visit: int, scenario: str, inside: _Inside, emit: Callable[[Entry], None]
    ) -> None:
        self._visit = visit
        self._scenario = scenario
        self._inside = inside
        self._send = emit
        self._begun = time.monotonic()
        self._speaking = False
        self._session: str | None = None
        self._emit("begun")

    def never_begun(self) -> None:
        self._inside.never_begun += 1

    def requested(self) -> None:
        self._session = None
        self._emit("session", state=ledger.REQUESTED)

    def created(self, session: str) -> None:
        self._session = session
        self._emit("session", state=ledger.CREATED, session=session)

    def queued(self, position: int, message: str) -> None:
        self._emit("queued", position=position, message=message)

    def opened(self, report: SessionReport, late: float, waited: float) -> None:
        self._inside.health.late(late)
        self._emit(
            "opened",
            session=report.session,
            started_unix=report.started_unix,
            late_s=late,
            waited_s=waited,
            values=report.values(),
        )

    def speaking(self) -> None:
        self._set_speaking(True)

    def spoken(self, session: str, result: TurnResult, late: float) -> None:
        self._set_speaking(False)
        self._inside.health.late(late)
        ended = max(result.marks.values(), default=0.0)
        self._emit(
            "turn",
            session=session,
            late_s=late,
            ended_s=ended,
            values=result.values(),
            **asdict(result),
        )

    def refused(self, status: int, pause: float) -> None:
        self._emit("refused", status=status, pause_s=pause)

    def failed(self, failure: Failed, late: float) -> None:
        self._set_speaking(False)
        self._inside.health.late(late)
        self._emit(
            "failed",
            session=self._session,
            cause=str(failure.cause),
            status=failure.status,
            message=failure.message,
            late_s=late,
            after_s=time.monotonic() - self._begun,
        )

    def closed(self, orphan: str | None) -> None:
        if self._speaking:
            self._inside.cut_off += 1
            self._set_speaking(False)
        self._emit("session", state=ledger.CLOSED, session=self._session, orphan=orphan)

    def _set_speaking(self, speaking: bool) -> None:
        if speaking is not self._speaking:
            self._speaking = speaking
            self._emit("speaking", change=1 if speaking else -1)

    def _emit(self, kind: str, **content: object) -> None:
        self._send(
            {
                "kind": kind,
                "visit": self._visit,
                "scenario": self._scenario,
                "unix": time.time(),
                **content,
            }
        )
