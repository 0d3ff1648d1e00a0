"""Freezes as the W3C counts them: instants at which pictures became visible in, freezes out.

Pure. It must not know RTP, speeches or sessions.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

_AVERAGED: Final = 30
_FEWEST: Final = 5
"""Durations needed before one can be a freeze (libwebrtc, `kMinFrameSamplesToDetectFreeze`)."""


class Freeze(NamedTuple):
    """A picture that stood for too long."""

    end: float
    """When the next picture came, seconds on the clock of the instants."""
    seconds: float


class FreezeDetector:
    """W3C webrtc-stats, `freezeCount`: a picture that stands for at least
    max(3·d, d + 150 ms), with d the mean duration of the last 30 pictures.

    `totalFreezesDuration` is the sum of these durations.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.longest_gap: float | None = None
        """Longest time between two pictures, in seconds."""
        self._durations: deque[float] = deque(maxlen=_AVERAGED)
        self._sum = 0.0
        self._last: float | None = None

    def show(self, at: float) -> Freeze | None:
        """A picture becomes visible at `at`; return the freeze that this ends."""
        last, self._last = self._last, at
        if last is None:
            return None
        duration = max(0.0, at - last)
        if self.longest_gap is None or duration > self.longest_gap:
            self.longest_gap = duration
        freeze = None
        count = len(self._durations)
        if count >= _FEWEST:
            mean = self._sum / count
            if duration >= max(3 * mean, mean + 0.15):
                freeze = Freeze(at, duration)
                self.count += 1
                self.seconds += duration
        if count == _AVERAGED:
            self._sum -= self._durations[0]
        self._durations.append(duration)
        self._sum += duration
        return freeze
