"""How each source is doing, kept apart from what it says.

What comes in: a source's own word on success and failure. What goes out: a `SourceHealth` that
the metrics, `/readyz` and the bundle read. "No data" and "failed" are different answers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SourceHealth:
    """One source. Times are seconds since the epoch; `reason` is set while it is down."""

    name: str
    up: bool = False
    reason: str | None = "not tried yet"
    last_seen: float | None = None
    duration: float | None = None
    events: int = 0
    dropped: int = 0
    failures: int = 0
    gaps: int = 0
    """Interruptions after which it answered again, having perhaps missed something."""
    dropped_by: Counter[str] = field(default_factory=Counter)

    def succeeded(self, at: float, *, events: int = 0, duration: float | None = None) -> None:
        """The source answered at `at`, with this many observations, in `duration` seconds."""
        self.up, self.reason = True, None
        self.last_seen, self.duration = at, duration
        self.events += events

    def failed(self, reason: str) -> None:
        """The source could not be read; `reason` names the cause in one line."""
        self.up, self.reason = False, reason
        self.failures += 1

    def drop(self, cause: str, count: int = 1) -> None:
        """Pieces of input that could not be used; `cause` is one of a few fixed words."""
        self.dropped += count
        self.dropped_by[cause] += count

    def to_json(self) -> dict[str, Any]:
        """The bundle's view of it."""
        return {
            "up": self.up,
            "reason": self.reason,
            "last_seen_unix": self.last_seen,
            "events": self.events,
            "dropped": self.dropped,
            "dropped_by": dict(self.dropped_by),
            "failures": self.failures,
            "gaps": self.gaps,
        }
