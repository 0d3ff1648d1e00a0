"""Unix time that never jumps: the clock of the exporter, of its agent and of its clients.

What goes out: seconds since the epoch, as the wall clock stood when this process started plus
what the monotonic clock has counted since. It must not know what the time is used for.

Sources stamp what they saw with it, turns wait by it, and agent and clients stamp with it and
measure their offset by it, so that a step of the wall clock (NTP after boot, an operator, a host
that slept) neither stretches a turn nor ends its waiting. Slewing, which NTP prefers, moves both
clocks alike on Linux (clock_gettime(2), CLOCK_MONOTONIC). Only what leaves for others that read
wall clocks is moved by `stepped`.
"""

from __future__ import annotations

import time
from typing import Final

RESOLUTION_S: Final = 0.001
"""Two clocks read one after the other differ by less while nothing has stepped."""

_BEHIND: Final = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch, monotonic; the wall clock as long as that is not stepped."""
    return _BEHIND + time.monotonic()


def stepped() -> float:
    """How far the wall clock has been stepped since the start, seconds; 0.0: not at all."""
    step = time.time() - now()
    return step if abs(step) >= RESOLUTION_S else 0.0


def from_wall(at: float) -> float:
    """An instant just written down by somebody else's wall clock, on this clock."""
    return at - stepped()


def to_wall(at: float) -> float:
    """The other way round: an instant on this clock, for somebody who reads the wall clock now."""
    return at + stepped()
