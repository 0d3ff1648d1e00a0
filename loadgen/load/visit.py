"""One viewer's visit: a scenario in, a session with its turns, and news for an `Observer` out.

It runs inside the event loop. It must not know Locust, other visits, or what is done with the
news. However it ends, the session has been deleted or its id told as an orphan.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from exporter.stages import Phase
from loadgen.errors import Cause, TargetError
from loadgen.load.admission import Admission
from loadgen.load.verdict import SCHEDULE_DELAY_P99_S
from loadgen.marks import MarkSink
from loadgen.opentalking import OpenTalking
from loadgen.result import TurnResult
from loadgen.scenario import Scenario
from loadgen.session import Session, SessionConfig, SessionReport
from loadgen.told import FirstTimestampsOf

ATTEMPTS: Final = 4
"""How often a session that is refused with 429 or 503 is asked for before the visit fails."""

_BUSY: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Failed:
    """What ended a visit early."""

    cause: Cause
    message: str
    status: int | None = None


class Observer(Protocol):
    """Hears how a visit goes on, inside the event loop; must not wait."""

    def never_begun(self) -> None:
        """The run ended when the visit was due and still waited for its place."""

    def requested(self) -> None:
        """A session is being created: from now on one may exist on the target."""

    def created(self, session: str) -> None:
        """It has this id."""

    def queued(self, position: int, message: str) -> None:
        """It waits in the target's queue."""

    def opened(self, report: SessionReport, late: float, waited: float) -> None:
        """It shows a picture.

        `late`: seconds by which this generator began after the intended start. `waited`: from
        the intended start to the request that created the session, refusals included.
        """

    def speaking(self) -> None:
        """A turn begins."""

    def spoken(self, session: str, result: TurnResult, late: float) -> None:
        """A turn is over; `late` by which its input came after the moment that was planned."""

    def refused(self, status: int, pause: float) -> None:
        """The target asked for a pause (429, 503)."""

    def failed(self, failure: Failed, late: float) -> None:
        """The visit ends early."""

    def closed(self, orphan: str | None) -> None:
        """Nothing is left of the session, or `orphan` says why the target may still hold it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the visits of a process share."""

    client: OpenTalking
    marks: MarkSink
    admission: Admission
    config: Callable[[Scenario], SessionConfig]
    """How the sessions of a scenario are made."""
    ending: asyncio.Event
    """Set when the run is about to end: visits then leave after the turn that is running."""
    first_timestamps: FirstTimestampsOf | None = None
    """As in `Session`."""


class Visit:
    """One visit; `run` it once."""

    def __init__(
        self,
        scenario: Scenario,
        around: Surroundings,
        observer: Observer,
        rng: random.Random,
        *,
        intended: float | None = None,
    ) -> None:
        """`intended`: monotonic instant at which it should begin; None: when `run` is called."""
        self._scenario = scenario
        self._around = around
        self._observer = observer
        self._rng = rng
        self._intended = intended

    async def run(self) -> None:
        """Live the whole visit. What the target does wrong is told to the observer, not raised.

        When cancelled, the session is deleted before the cancellation goes on.
        """
        intended = time.monotonic() if self._intended is None else self._intended
        begun = False
        try:
            await asyncio.sleep(max(0.0, intended - time.monotonic()))
            async with self._around.admission.place() as paused:
                if self._around.ending.is_set():
                    return
                begun = True
                await self._live(intended, time.monotonic() - intended - paused)
        finally:
            if not begun and time.monotonic() - intended > SCHEDULE_DELAY_P99_S:
                self._observer.never_begun()

    async def _live(self, intended: float, late: float) -> None:
        try:
            session, asked = await self._opened()
        except TargetError as error:
            self._observer.failed(Failed(error.cause, str(error), error.status), late)
            return
        try:
            self._observer.opened(session.report, late, asked - intended)
            await self._talk(session)
        finally:
            await self._leave(session)

    async def _opened(self) -> tuple[Session, float]:
        """The session, and the instant at which it was asked for."""
        for attempt in range(1, ATTEMPTS + 1):
            session = Session(
                self._around.client,
                self._around.config(self._scenario),
                self._around.marks,
                on_queued=self._observer.queued,
                on_created=self._observer.created,
                first_timestamps=self._around.first_timestamps,
            )
            self._observer.requested()
            asked = time.monotonic()
            try:
                await session.open()
            except TargetError as error:
                self._closed(session)
                if error.status not in _BUSY or attempt == ATTEMPTS:
                    raise
                pause = self._around.admission.pause(error.retry_after, attempt)
                self._observer.refused(error.status, pause)
                await self._around.admission.resumed()
            except BaseException:
                self._closed(session)
                raise
            else:
                return session, asked
        raise AssertionError("unreachable")

    async def _talk(self, session: Session) -> None:
        pause = 0.0
        for said in self._scenario.visit(self._rng):
            planned = time.monotonic() + pause
            if await self._told_to_leave(pause):
                return
            late = time.monotonic() - planned
            self._observer.speaking()
            try:
                result = await session.turn(
                    said.input, phase=Phase.MEASURED, interrupt_after=said.interrupt_after
                )
                self._observer.spoken(session.report.session, result, late)
                if session.trouble is not None:
                    raise session.trouble
            except TargetError as error:
                self._observer.failed(Failed(error.cause, str(error), error.status), late)
                return
            pause = max(self._scenario.think.draw(self._rng), session.retry_after or 0.0)
            session.retry_after = None

    async def _told_to_leave(self, within: float) -> bool:
        """Think for so many seconds; return whether the run ends meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._around.ending.wait()
        return self._around.ending.is_set()

    async def _leave(self, session: Session) -> None:
        try:
            await session.close()
        finally:
            self._closed(session)

    def _closed(self, session: Session) -> None:
        error = session.cleanup_error
        self._observer.closed(None if error is None else str(error))


def with_defaults(scenario: Scenario, *, model: str, avatar: str) -> Scenario:
    """The scenario with the target's own model and avatar where it names none."""
    return replace(scenario, model=scenario.model or model, avatar=scenario.avatar or avatar)
