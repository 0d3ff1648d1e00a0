"""Who may start a session now: limits on sessions and ramp, and the target's own wish for a pause.

What comes in: visits that want to begin, and refusals with Retry-After. What goes out: their
turn. One a worker process, inside its event loop. It must not know HTTP nor what a visit does.

A visit that has to wait here is late, and its lateness counts as schedule delay: a load that was
asked for and not offered must show.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

FIRST_BACKOFF_S: Final = 1.0
MOST_BACKOFF_S: Final = 60.0


class Admission:
    """Lets visits in one by one. Limits may change while it is used."""

    def __init__(self, *, sessions: int, ramp: float) -> None:
        """At most `sessions` at once, and `ramp` new ones a second."""
        self._sessions = sessions
        self._ramp = ramp
        self._active = 0
        self._next_at = 0.0
        self._not_before = 0.0
        self._freed = asyncio.Event()

    @property
    def active(self) -> int:
        """Visits that are in now."""
        return self._active

    def limit(self, *, sessions: int, ramp: float) -> None:
        """Set new limits; visits that are in stay."""
        self._sessions, self._ramp = sessions, ramp
        self._freed.set()

    def pause(self, seconds: float | None, attempt: int) -> float:
        """The target refused with 429 or 503: nobody starts before `seconds` have passed.

        Without a wish of the target's own the pause doubles with each `attempt` (from 1).
        Returns the pause, which is at most a minute: a longer wish would outlast most runs, and
        the next refusal renews it.
        """
        wished = FIRST_BACKOFF_S * 2.0 ** (attempt - 1) if seconds is None else seconds
        pause = min(wished, MOST_BACKOFF_S)
        self._not_before = max(self._not_before, time.monotonic() + pause)
        return pause

    async def resumed(self) -> float:
        """Wait until the target's wish for a pause is fulfilled; return the seconds it took."""
        begun = time.monotonic()
        while (left := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110 (it may grow)
            await asyncio.sleep(left)
        return time.monotonic() - begun

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """A place among the sessions, once there is one; given back at the end.

        Yields the seconds of the wait that the target had asked for: these are no fault of the
        generator's.
        """
        while self._active >= self._sessions:
            self._freed.clear()
            await self._freed.wait()
        self._active += 1
        try:
            paused = await self.resumed()
            now = time.monotonic()
            at = max(now, self._next_at)
            self._next_at = at + 1.0 / self._ramp
            await asyncio.sleep(at - now)
            yield paused
        finally:
            self._active -= 1
            self._freed.set()
