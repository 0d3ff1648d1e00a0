"""How OpenTalking's processes do, role by role.

What comes in: the agents' word on their processes. What goes out: levels for the metrics, as long
as they are fresh, and what the agents have lost in all. Pure. It must not know Prometheus.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from exporter import gauges
from exporter.observations import AgentLosses, ProcessReported, Reading, Readings
from exporter.stages import ProcessRole

NAME: Final = "processes"
"""Under which these readings are kept."""

FRESH_S: Final = 15.0
"""A process that was not heard of for this long is taken for gone. Agents tell every 5 s."""

ORIGINS_REMEMBERED: Final = 1_000
"""Of more processes than this at once, the one that was heard of longest ago is forgotten."""

REALTIME_QUEUE: Final = "realtime"
"""Label `queue` of audio chunks that wait for the synthesis backend."""

_NOTHING: Final = AgentLosses()


class Processes:
    """Feed it what agents tell; ask it how things stand. Bounded by time and by count."""

    def __init__(self) -> None:
        self.dropped: Counter[ProcessRole] = Counter()
        self.refused: Counter[ProcessRole] = Counter()
        self.failures: Counter[ProcessRole] = Counter()
        self._fresh: dict[str, ProcessReported] = {}
        self._told: OrderedDict[str, AgentLosses] = OrderedDict()

    def feed(self, seen: ProcessReported) -> Readings:
        """Take one report; return how all processes do now."""
        self._fresh[seen.origin] = seen
        if len(self._fresh) > ORIGINS_REMEMBERED:
            del self._fresh[min(self._fresh, key=lambda origin: self._fresh[origin].at)]
        if seen.losses is not None:
            self._count(seen.origin, seen.role, seen.losses)
        return self._readings(seen.at)

    def tick(self, now: float) -> Readings | None:
        """Forget what is not fresh; return how the others do if that has changed."""
        stale = [name for name, seen in self._fresh.items() if now - seen.at > FRESH_S]
        for name in stale:
            del self._fresh[name]
        return self._readings(now) if stale else None

    def _count(self, origin: str, role: ProcessRole, losses: AgentLosses) -> None:
        """Agents tell totals; a total is remembered after its process seems gone."""
        before = self._told.pop(origin, _NOTHING)
        self._told[origin] = losses
        while len(self._told) > ORIGINS_REMEMBERED:
            self._told.popitem(last=False)
        self.dropped[role] += max(0, losses.dropped - before.dropped)
        self.refused[role] += max(0, losses.refused - before.refused)
        self.failures[role] += max(0, losses.failures - before.failures)

    def _readings(self, now: float) -> Readings:
        return Readings(now, NAME, tuple(_levels(list(self._fresh.values()))))


def _levels(told: list[ProcessReported]) -> Iterator[Reading]:
    for role in ProcessRole:
        of_role = [seen for seen in told if seen.role is role]
        if not of_role:
            continue
        labels = {"role": role.value}
        yield Reading(gauges.PROCESSES.name, float(len(of_role)), labels)
        memory = [seen.rss_bytes for seen in of_role if seen.rss_bytes is not None]
        # The sum over some of them would look like less memory.
        if len(memory) == len(of_role):
            yield Reading(gauges.PROCESS_MEMORY.name, float(sum(memory)), labels)
        lags = [seen.lag for seen in of_role if seen.lag is not None]
        if lags:
            for statistic, values in (
                ("p50", [lag.p50 for lag in lags]),
                ("p99", [lag.p99 for lag in lags]),
                ("max", [lag.max for lag in lags]),
            ):
                yield Reading(gauges.LOOP_LAG.name, max(values), labels | {"statistic": statistic})
    for kind in sorted({kind for seen in told for kind in seen.media_queue}):
        depth = sum(seen.media_queue.get(kind, 0) for seen in told)
        yield Reading(gauges.MEDIA_QUEUE_DEPTH.name, float(depth), {"kind": kind})
    backlog = _sum(seen.realtime_backlog for seen in told)
    if backlog is not None:
        yield Reading(gauges.QUEUE_LEVEL.name, float(backlog), {"queue": REALTIME_QUEUE})


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
