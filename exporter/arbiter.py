"""Of several sources that bring the same events: which event counts.

What comes in: events of OpenTalking, from Redis, from the agent and from clients that relay them,
and word of when Redis could not be heard. What goes out: each event once. Pure. It must not know
turns, sessions' meaning or sinks.

Events have no id. So the sources are ranked, and of each session the best source that has brought
an event is believed (docs/decisions/0006). While sources change, because a better one has just
appeared or Redis was away, all of them are heard, and an event is taken for the one that another
source brought if the two have one name and lie within `SAME_EVENT_S`, each paired once and in
order.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from exporter.observations import TargetEvent
from exporter.stages import Source

SAME_EVENT_S: Final = 2.0
"""An event that two sources bring is one event if they bring it within this time."""

HELD_S: Final = 30.0
"""How long an event of a lesser source may turn out to count: a dead connection to Redis is
noticed by its silence, after some ten seconds."""

HELD_OF_A_SESSION: Final = 64
RECENT_OF_A_SESSION: Final = 16
SESSIONS_REMEMBERED: Final = 100_000
GAPS_REMEMBERED: Final = 8

_RANK: Final = {Source.SSE: 0, Source.AGENT: 1, Source.BUS: 2}


@dataclass(slots=True)
class _Taken:
    """An event that counted, and who brought it so far."""

    at: float
    name: str
    sources: tuple[Source, ...]


@dataclass(slots=True)
class _Session:
    source: Source
    """The best source that has brought an event."""
    unsettled_until: float
    """Until when what the lesser source brought may come again from the better one."""
    recent: deque[_Taken] = field(default_factory=lambda: deque(maxlen=RECENT_OF_A_SESSION))
    held: deque[TargetEvent] = field(default_factory=lambda: deque(maxlen=HELD_OF_A_SESSION))
    """Events of lesser sources, which did not count."""


class EventArbiter:
    """Ask it of every event, in order of arrival, whether it counts."""

    def __init__(self) -> None:
        self.repeated = 0
        """Events that did not count, because another source brings them."""
        self.recovered = 0
        """Of those, the ones that counted later: the better source turned out to be away."""
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._gaps: deque[tuple[float, float]] = deque(maxlen=GAPS_REMEMBERED)
        self._away_since: float | None = None
        self._gaps_end = -math.inf

    def take(self, event: TargetEvent) -> bool:
        """Whether this event counts."""
        session = self._sessions.get(event.session)
        if session is None:
            session = self._remember(event)
        elif event.source is not session.source:
            if _RANK[event.source] < _RANK[session.source]:
                if not self._in_gap(event.at):
                    self._hold(session, event)
                    return False
            else:
                session.source = event.source
                session.unsettled_until = event.at + SAME_EVENT_S
        if (event.at <= session.unsettled_until or self._in_gap(event.at)) and _is_known(
            session, event
        ):
            self.repeated += 1
            return False
        session.recent.append(_Taken(event.at, event.name, (event.source,)))
        return True

    def bus_lost(self, since: float) -> list[TargetEvent]:
        """Redis has not been heard since: return the held events that count after all."""
        self._away_since = since
        found = []
        for session in self._sessions.values():
            held, session.held = session.held, deque(maxlen=HELD_OF_A_SESSION)
            for event in held:
                if not self._in_gap(event.at):
                    continue
                if not _is_known(session, event):
                    session.recent.append(_Taken(event.at, event.name, (event.source,)))
                    self.recovered += 1
                    found.append(event)
        return found

    def bus_returned(self, began: float, ended: float) -> None:
        """Redis is heard again, and was not between these instants."""
        self._away_since = None
        self._gaps.append((began, ended))
        self._gaps_end = max(self._gaps_end, ended + SAME_EVENT_S)

    def _in_gap(self, at: float) -> bool:
        """Whether Redis may have missed what happened at `at`."""
        if self._away_since is not None and at >= self._away_since - SAME_EVENT_S:
            return True
        if at > self._gaps_end:
            return False
        return any(b - SAME_EVENT_S <= at <= e + SAME_EVENT_S for b, e in self._gaps)

    def _hold(self, session: _Session, event: TargetEvent) -> None:
        self.repeated += 1
        while session.held and event.at - session.held[0].at > HELD_S:
            session.held.popleft()
        session.held.append(event)

    def _remember(self, event: TargetEvent) -> _Session:
        session = self._sessions[event.session] = _Session(event.source, event.at)
        while len(self._sessions) > SESSIONS_REMEMBERED:
            self._sessions.popitem(last=False)
        return session


def _is_known(session: _Session, event: TargetEvent) -> bool:
    """Whether another source brought it already; if so it is paired with that one."""
    for taken in session.recent:
        if (
            taken.name == event.name
            and event.source not in taken.sources
            and abs(event.at - taken.at) < SAME_EVENT_S
        ):
            taken.sources += (event.source,)
            return True
    return False
