"""The open model as a shape of Locust's: arrivals in, users to have and intended starts out.

A user of Locust's is a place that a visit can happen in. The shape keeps more of them than visits
that are going on, and hands each arrival to a worker ahead of its time; whichever place is free
there takes it. What starts late keeps its intended start, so nothing is left out of the figures.
"""

from __future__ import annotations

import time
from typing import Final

from locust import LoadTestShape

from loadgen.load.arrivals import Arrivals
from loadgen.load.master_node import MasterNode

AHEAD_S: Final = 5.0
"""How far ahead arrivals are handed out: a master that adds places is busy for seconds."""
SPARE: Final = 4
PLACES_A_SECOND: Final = 100.0


class OpenModel(LoadTestShape):
    """Viewers who arrive by themselves. Locust asks `tick` about once a second."""

    abstract = True  # Locust must not find it in the locustfile: it is used only when asked for.

    def __init__(self, master: MasterNode, run_time: float | None) -> None:
        """`run_time` in seconds; None: until the arrivals are over."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._master = master
        self._run_time = run_time
        self._arrivals: Arrivals | None = None
        self._begun = 0.0
        self._places = 0
        self._given = 0
        self._last = 0.0

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._arrivals = None
        self._places = 0

    def tick(self) -> tuple[int, float] | None:
        """How many places to have, or None at the end of the run."""
        now = time.monotonic()
        if self._places == 0:
            self._places = max(SPARE, len(self._master.workers))
        if self._arrivals is None:
            if not self._master.all_ready:
                return self._places, PLACES_A_SECOND
            self._arrivals = self._master.arrivals
            assert self._arrivals is not None
            self._begun = self._last = now + 1.0
        elapsed = now - self._begun
        if self._run_time is not None and elapsed >= self._run_time:
            return None
        until = elapsed + AHEAD_S
        if self._run_time is not None:
            until = min(until, self._run_time)
        due = [self._begun + instant for instant in self._arrivals.until(until)]
        self._hand_out(due)
        busy = self._master.sessions
        if self._arrivals.over and not busy and now > self._last + AHEAD_S:
            return None
        needed = 2 * busy + len(due) + SPARE * len(self._master.workers)
        if needed > self._places:
            # Each growth keeps a master busy for a second, so grow seldom.
            self._places = min(max(needed, 3 * self._places // 2), self._master.max_sessions)
        return self._places, PLACES_A_SECOND

    def _hand_out(self, due: list[float]) -> None:
        workers = self._master.workers
        if not due:
            return
        self._last = due[-1]
        if not workers:
            self._master.no_worker_for(len(due))
            return
        shares: list[list[float]] = [[] for _ in workers]
        for instant in due:
            shares[self._given % len(workers)].append(instant)
            self._given += 1
        for worker, share in zip(workers, shares, strict=True):
            if share:
                self._master.send_arrivals(worker, share)
