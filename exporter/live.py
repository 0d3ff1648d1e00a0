"""Which sessions live just now, and how they do.

What comes in: the same observations that `exporter.turns` gets, and the turns that it finished.
What goes out: counts by state, and how the last turns of live sessions did. Pure. It must not
know Prometheus, nor how turns are assembled.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from exporter import gauges, stages, upstream
from exporter.observations import (
    Observation,
    PipelineReported,
    SessionSeen,
    TargetEvent,
    TurnOpened,
    TurnReported,
)
from exporter.stages import Outcome
from exporter.turn_record import Turn

SILENT_S = 900.0
"""A session without any news for this long is taken for gone: OpenTalking may close one without
an event, and its keys then expire after 600 s."""

SESSIONS_REMEMBERED = 100_000


class SessionState(StrEnum):
    """What a session does just now."""

    QUEUED = "queued"
    IDLE = "idle"
    SPEAKING = "speaking"


_LIVE = tuple(stages.STAGES[key] for key in gauges.LIVE)


@dataclass(slots=True)
class _Live:
    news_at: float
    state: SessionState = SessionState.IDLE
    values: dict[str, float] = field(default_factory=dict)
    """Of `gauges.LIVE`, as last told, in base units."""


class LiveSessions:
    """Feed it observations; ask it how things stand. Bounded by time and by count."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Live] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.seen = 0
        """Sessions that have been seen since the start."""
        self.speeches = 0
        """How often a session went from idle to talking."""

    def feed(self, seen: Observation) -> None:
        """Take one observation."""
        match seen:
            case TargetEvent():
                self._event(seen)
            case SessionSeen(state=state, outcome=outcome):
                if outcome is not None or state in upstream.GONE_STATES:
                    self._forget(seen.session)
                else:
                    live = self._session(seen.session, seen.at)
                    if live is not None and state == upstream.SPEAKING_STATE:
                        live.state = SessionState.SPEAKING
            case TurnOpened():
                self._session(seen.session, seen.at)
            case TurnReported():
                self._session(seen.opened.session, seen.opened.at)
            case PipelineReported():
                self._session(seen.session, seen.at)
            case _:
                pass

    def finished(self, turn: Turn) -> None:
        """Take a finished turn."""
        live = self._sessions.get(turn.session)
        if live is None:
            return
        if turn.outcome is Outcome.INCOMPLETE:
            # Nothing is heard of it any more: the session cannot be said to speak.
            live.state = SessionState.IDLE
        for stage in _LIVE:
            if stage.key in turn.values:
                live.values[stage.key] = stage.to_base(turn.values[stage.key])

    def tick(self, now: float) -> None:
        """Forget what has long been silent; sessions are kept in order of their last news."""
        while self._sessions:
            name, live = next(iter(self._sessions.items()))
            if now - live.news_at <= SILENT_S:
                return
            del self._sessions[name]

    def counts(self) -> dict[SessionState, int]:
        """Live sessions by state; every state is there, since none is a count too."""
        found = dict.fromkeys(SessionState, 0)
        for live in self._sessions.values():
            found[live.state] += 1
        return found

    @property
    def open(self) -> int:
        """Sessions that the target works for: all that live, without those that wait."""
        return sum(n for state, n in self.counts().items() if state is not SessionState.QUEUED)

    def last(self, stage: stages.Stage) -> tuple[float, float] | None:
        """The worst and the median of the sessions' last values, in base units; None: unknown.

        Of drift the worst is the furthest from zero, with its sign.
        """
        known = [v for s in self._sessions.values() if (v := s.values.get(stage.key)) is not None]
        if not known:
            return None
        match stage.better:
            case "higher":
                worst = min(known)
            case "lower":
                worst = max(known)
            case _:
                worst = max(known, key=abs)
        return worst, median(known)

    def _event(self, event: TargetEvent) -> None:
        live = self._session(event.session, event.at)
        if live is None:
            return
        match event.name:
            case upstream.SPEECH_STARTED:
                self.speeches += live.state is not SessionState.SPEAKING
                live.state = SessionState.SPEAKING
            case upstream.SPEECH_ENDED | upstream.ERROR:
                live.state = SessionState.IDLE
            case upstream.SESSION_QUEUED:
                waits = event.data.get("position")
                queued = isinstance(waits, int) and waits > 0
                live.state = SessionState.QUEUED if queued else SessionState.IDLE
            case upstream.SESSION_EXPIRED:
                self._forget(event.session)
            case _:
                pass

    def _session(self, name: str, at: float) -> _Live | None:
        """The session, or None when it is gone: late news does not bring it back."""
        if name in self._gone:
            return None
        live = self._sessions.get(name)
        if live is None:
            live = self._sessions[name] = _Live(at)
            self.seen += 1
            if len(self._sessions) > SESSIONS_REMEMBERED:
                self._sessions.popitem(last=False)
        live.news_at = max(live.news_at, at)
        self._sessions.move_to_end(name)
        return live

    def _forget(self, name: str) -> None:
        self._sessions.pop(name, None)
        self._gone[name] = None
        while len(self._gone) > SESSIONS_REMEMBERED:
            self._gone.popitem(last=False)
