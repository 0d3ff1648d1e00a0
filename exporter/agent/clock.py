"""The exporter's clock on ours: round trips in, an offset out.

"Ours" is `exporter.steady_clock` in this process, so a step of the wall clock does not age the
offset. It must not know how a round trip is made. The rule is that of `loadgen.marks`: the best of
several, more of them while both sides seem busy, measured again when it is old or the exporter was
away, as it may have been restarted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from exporter import steady_clock

_PROBES, _PROBES_MOST = 5, 40
_GOOD_S: Final = 0.001
_PROBING_S: Final = 0.5
_VALID_S: Final = 300.0
_DRIFT: Final = 15e-6
"""How fast two clocks may part, seconds a second (RFC 5905, section 7.2: PHI)."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The exporter's clock minus ours, and half the round trip that told it (seconds)."""

    offset_seconds: float
    uncertainty_seconds: float


class ExporterClock:
    """Keeps the offset; `ask` returns the exporter's clock or raises."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._known: ClockOffset | None = None
        self._known_at = -math.inf
        self._doubted = False

    def offset(self) -> ClockOffset:
        """The offset; raises what `ask` raises."""
        known, age = self._known, time.monotonic() - self._known_at
        if known is not None and age <= _VALID_S and not self._doubted:
            return known
        best = self._measure()
        if known is not None:
            by_now = known.uncertainty_seconds + _DRIFT * age
            apart = abs(best.offset_seconds - known.offset_seconds)
            # Kept where it is the better one of two that agree; else one of the clocks is new.
            if by_now < best.uncertainty_seconds and apart <= by_now + best.uncertainty_seconds:
                best = ClockOffset(known.offset_seconds, by_now)
        self._known, self._known_at, self._doubted = best, time.monotonic(), False
        return best

    def was_away(self) -> None:
        """The exporter did not answer: it may come back with another clock."""
        self._doubted = True

    def _measure(self) -> ClockOffset:
        begun = time.monotonic()
        best = self._probe()
        for count in range(2, _PROBES_MOST + 1):
            best = min(best, self._probe(), key=lambda p: p.uncertainty_seconds)
            enough = best.uncertainty_seconds <= _GOOD_S
            if count >= _PROBES and (enough or time.monotonic() - begun > _PROBING_S):
                break
        return best

    def _probe(self) -> ClockOffset:
        sent_unix, sent = steady_clock.now(), time.monotonic()
        theirs = self._ask()
        half = (time.monotonic() - sent) / 2
        return ClockOffset(theirs - (sent_unix + half), half)
