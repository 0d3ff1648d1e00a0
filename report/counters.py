"""Counters of Prometheus → what they grew by in each stretch of a window.

What comes in: the values of counters at the ends of the stretches, and those of one counter of
each exporter that is there as long as the exporter runs. What goes out: growth, stretch by
stretch, with what could not be counted said. It must not know what is counted.

Prometheus' own `increase` is not used: it extrapolates, which bends the counts of buckets against
one another, and it misses the first values of a series that is born in the window, hence the whole
of a histogram with one turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from report.prometheus import Found

Instance = tuple[str, str]
"""Job and instance of an exporter."""


def instance(labels: Mapping[str, str]) -> Instance:
    """Whose series it is."""
    return labels.get("job", ""), labels.get("instance", "")


@dataclass(slots=True)
class Lives:
    """When each exporter was started anew, and which were there before the window."""

    restarts: dict[Instance, list[int]] = field(default_factory=dict)
    """Stretches, from 1, at whose end an exporter was found to have begun anew in them."""
    older: frozenset[Instance] = frozenset()
    """Exporters that were seen before the window, and not at its beginning."""

    @property
    def count(self) -> int:
        """Restarts that were seen."""
        return sum(map(len, self.restarts.values()))


def lives(steady: Sequence[Found], resets: Sequence[Found], before: Sequence[Found]) -> Lives:
    """From a counter that every exporter serves from its first scrape on: its values, its resets
    inside each stretch, and its last value before the window."""
    found = Lives()
    inside = {instance(one.labels): one.values for one in resets}
    earlier = {instance(one.labels): one.values[0] for one in before}
    older = set()
    for one in steady:
        who = instance(one.labels)
        first = next((value for value in one.values if value is not None), 0.0)
        was = earlier.get(who)
        # Less than before the window: it began anew in between, hence at zero.
        if one.values[0] is None and was is not None and first >= was:
            older.add(who)
        last: float | None = None
        for stretch, value in enumerate(one.values):
            hidden = inside.get(who, [None] * len(one.values))[stretch]
            fell = value is not None and last is not None and value < last
            if stretch and (fell or hidden):
                found.restarts.setdefault(who, []).append(stretch)
            last = value if value is not None else last
    found.older = frozenset(older)
    return found


def growth(one: Found, known: Lives) -> list[float]:
    """What a counter grew by in each stretch: one number less than it has values.

    A counter that was not there at the beginning began at zero in the window, unless its exporter
    is older: then its first value is where counting starts. After a restart counting starts at
    zero; what the old life counted after its last value is lost.
    """
    who = instance(one.labels)
    restarts = known.restarts.get(who, [])
    last = one.values[0]
    if last is None and who not in known.older:
        last = 0.0
    last_at = 0
    grown = []
    for stretch, value in enumerate(one.values[1:], 1):
        if value is None:
            grown.append(0.0)
            continue
        if any(last_at < restart <= stretch for restart in restarts):
            if value == last:
                # Prometheus repeats a value for five minutes unless it saw the series end, so
                # this may be the old life's. A later value is counted from zero then.
                grown.append(0.0)
                continue
            last = 0.0
        if last is None:
            grown.append(0.0)
        else:
            grown.append(value - last if value >= last else value)
        last, last_at = value, stretch
    return grown
