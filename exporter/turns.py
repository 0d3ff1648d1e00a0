"""Observations → turns. A pure state machine: no I/O and no clock of its own.

What comes in: `exporter.observations`, each with its time, in any order a network can produce,
and `tick(now)`. What goes out: finished `Turn` records. It must not know Prometheus,
OpenTelemetry, files or sockets.

OpenTalking gives turns no id. A session speaks one turn at a time, so a turn is joined by its
session and the order of `speech.started`; a client's account joins the first `speech.started`
that follows its input. Log lines without a session id are given to a turn only when no other
turn was speaking at their instant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from exporter import stages, timeline, upstream
from exporter.observations import (
    BackendsSeen,
    BusGap,
    LanguageModelSeen,
    LogLine,
    Observation,
    PipelineReported,
    ProcessReported,
    SessionSeen,
    TargetEvent,
    TargetStarted,
    TurnOpened,
    TurnReported,
)
from exporter.stages import Outcome, ProcessRole, Source, Startup
from exporter.turn_record import JOIN_TOLERANCE_S, Evidence, SessionRecord, Turn

LOG_GRACE_S = 1.0
"""How long a finished turn waits for its log line, which may be read after the event."""

CLIENT_GRACE_S = 30.0
"""How long a turn the server has ended waits for the client's account: playback may go on."""

AGENT_GRACE_S = 2.0
"""How long a finished turn waits for the agent's account, which comes in batches."""

AGENT_MEMORY_S = 600.0
"""An agent that has been silent for this long is not waited for."""

SAME_SPEECH_S = 2.0
"""The agent's account belongs to the speech whose start was seen within this time of its own."""

GAP_GRACE_S = 2.0
"""How long a turn whose end the bus missed waits for whoever relays the session's events."""

TURN_LIMIT_S = 600.0
"""A turn without any news for this long is closed as it is."""

SESSION_LIMIT_S = 3600.0
"""A session without any news for this long is forgotten."""

SESSIONS_LIMIT = 100_000
"""Of more sessions than this, the one that was seen first is forgotten."""

DRAFTS_LIMIT = 64
"""Of more open turns in a session than this, the oldest is closed as it is."""


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    news_at: float
    turns: int = 0
    drafts: deque[Evidence] = field(default_factory=deque)
    has_news: bool = False
    published: set[str] = field(default_factory=set)


class TurnAssembler:
    """Feed it observations; it yields each turn once, when nothing more can be said of it.

    `expect_log`: a log source is attached, so a finished turn waits a moment for its line.
    `turn_limit_s`: as `TURN_LIMIT_S`; both may change while it runs.
    `explain`: give a reason for each value that a turn lacks; only a bundle keeps them.
    """

    def __init__(self, *, expect_log: bool = False, explain: bool = True) -> None:
        self.expect_log = expect_log
        self.turn_limit_s = TURN_LIMIT_S
        self._explain = explain
        self.log_lines_unattributed = 0
        self.events_ignored = 0
        self.sessions_dropped = 0
        self.turns_dropped = 0
        self._values_of_nobody: list[tuple[stages.Stage, float]] = []
        self._sessions: dict[str, _Session] = {}
        self._with_news: list[_Session] = []
        self._backends: dict[str, str] = {}
        self._language_model = LanguageModelSeen(0.0, None, None)
        self._lines: deque[LogLine] = deque(maxlen=10_000)
        self._windows: deque[tuple[float, float]] = deque(maxlen=10_000)
        self._next_is_cold = False
        self._agent_until = 0.0

    @property
    def open_turns(self) -> int:
        """Number of turns that have begun and are not finished."""
        return sum(len(s.drafts) for s in self._sessions.values())

    def feed(self, seen: Observation) -> list[Turn]:
        """Take one observation; return the turns it finished."""
        match seen:
            case TargetEvent():
                if seen.source is Source.AGENT:
                    self._agent_is_heard(seen.at)
                self._event(seen)
                session, now = seen.session, seen.at
            case ProcessReported(role=ProcessRole.UNIFIED | ProcessRole.WORKER):
                self._agent_is_heard(seen.at)
                return []
            case TurnOpened():
                self._draft_of_client(seen)
                session, now = seen.session, seen.at
            case TurnReported():
                draft = self._draft_of_client(seen.opened)
                draft.reported = seen
                session, now = seen.opened.session, seen.opened.at
            case PipelineReported():
                self._pipeline_reported(seen)
                session, now = seen.session, seen.at
            case LogLine(line=upstream.PipelineTimingLine(session=name)):
                self._pipeline_line(seen)
                session, now = name, seen.at
            case LogLine():
                self._keep(seen)
                return []
            case SessionSeen():
                self._session_seen(seen)
                session, now = seen.session, seen.at
            case BackendsSeen():
                self._backends.update(seen.backends)
                return []
            case LanguageModelSeen():
                self._language_model = seen
                return []
            case TargetStarted():
                self._next_is_cold = True
                return []
            case BusGap():
                self._gap()
                return []
            case _:
                return []
        state = self._sessions.get(session)
        return list(self._close_ready(state, now)) if state else []

    def tick(self, now: float) -> list[Turn]:
        """Let time pass: close what has waited long enough, forget what is long gone."""
        done: list[Turn] = []
        for name, state in list(self._sessions.items()):
            done.extend(self._close_ready(state, now))
            if not state.drafts and now - state.news_at > SESSION_LIMIT_S:
                del self._sessions[name]
        while self._lines and now - self._lines[0].at > TURN_LIMIT_S:
            self._disown(self._lines.popleft())
        while self._windows and now - self._windows[0][1] > TURN_LIMIT_S:
            self._windows.popleft()
        return done

    def finish(self) -> list[Turn]:
        """Close every turn as it is, in order: the exporter stops."""
        done = []
        for state in self._sessions.values():
            while state.drafts:
                done.append(self._close(state, state.drafts.popleft()))
        return done

    def take_sessions(self) -> list[tuple[SessionRecord, frozenset[str]]]:
        """Session records that have news since the last call, with the keys that are new."""
        news = []
        for state in self._with_news:
            fresh = frozenset(state.record.values.keys() - state.published)
            state.published |= fresh
            state.has_news = False
            news.append((state.record, fresh))
        self._with_news.clear()
        return news

    def take_values_of_nobody(self) -> list[tuple[stages.Stage, float]]:
        """Values, in the key's unit, of log lines that no turn could take, since the last call."""
        values, self._values_of_nobody = self._values_of_nobody, []
        return values

    # --- what comes in ---------------------------------------------------------------------

    def _session(self, name: str, now: float) -> _Session:
        state = self._sessions.get(name)
        if state is None:
            state = self._sessions[name] = _Session(SessionRecord(name), now)
            if len(self._sessions) > SESSIONS_LIMIT:
                oldest = self._sessions.pop(next(iter(self._sessions)))
                self.sessions_dropped += 1
                self.turns_dropped += len(oldest.drafts)
        state.news_at = max(state.news_at, now)
        return state

    def _session_seen(self, seen: SessionSeen) -> None:
        state = self._session(seen.session, seen.at)
        record = state.record
        record.model = seen.model or record.model
        record.avatar = seen.avatar or record.avatar
        record.outcome = seen.outcome or record.outcome
        if seen.state is not None and seen.state != upstream.SPEAKING_STATE:
            self._end_missed(state, seen.at)
        if seen.marks or seen.absent or seen.outcome:
            for name, at in seen.marks.items():
                # A client and the agent both tell of the creation, on clocks of their own: an
                # interval must not begin on one and end on the other.
                record.marks.setdefault(name, at)
            record.absent.update(seen.absent)
            if not state.has_news:
                state.has_news = True
                self._with_news.append(state)
        record.backend = self._backends.get(record.model or "")
        for stage in stages.STAGES.values():
            if stage.scope is stages.Scope.SESSION:
                value = stages.value_between(stage, record.marks)
                if value is not None:
                    record.values[stage.key] = value
                    record.absent.pop(stage.key, None)

    def _gap(self) -> None:
        for state in self._sessions.values():
            for draft in state.drafts:
                draft.gap = draft.gap or draft.speaking

    def _end_missed(self, state: _Session, at: float) -> None:
        """The session does not speak any more, and the bus was away when its turn ended."""
        for draft in state.drafts:
            if draft.gap and draft.speaking and draft.missed_at is None:
                draft.missed_at = draft.news_at = at

    def _event(self, event: TargetEvent) -> None:
        state = self._session(event.session, event.at)
        if event.name == upstream.SPEECH_STARTED:
            self._speech_started(state, event)
            return
        draft = _told_of(state, event)
        if draft is None or draft.ended_at is not None:
            # Late news of a turn that is closed, such as speech.ended twelve seconds after
            # an error, or of one that began before we did.
            self.events_ignored += event.name.startswith("speech.")
            return
        draft.news_at, draft.source = event.at, event.source
        match event.name:
            case upstream.SPEECH_MEDIA_STARTED:
                draft.media_started_at = event.at
            case upstream.SPEECH_TIMING:
                draft.timing_at = event.at
                draft.timing = upstream.clean_timing(event.data)
                state.record.model = state.record.model or _text(draft.timing.get("model"))
            case upstream.SPEECH_ENDED:
                draft.ended_at = event.at
                draft.ended_source = event.source
                draft.interrupted = "text" not in event.data and draft.error is None
            case upstream.ERROR:
                draft.error = {
                    "code": _text(event.data.get("code")) or "UNKNOWN",
                    "message": _text(event.data.get("message")) or "",
                }
            case _:
                pass

    def _speech_started(self, state: _Session, event: TargetEvent) -> None:
        for draft in state.drafts:
            # A turn whose end was missed had ended before: the session was not speaking.
            if draft.speaking and draft.missed_at is None:
                # OpenTalking interrupts a running speech before it begins the next.
                draft.ended_at, draft.ended_source = event.at, event.source
                draft.interrupted = True
        waiting = next(
            (
                d
                for d in state.drafts
                if d.started_at is None
                and d.opened is not None
                and d.opened.started <= event.at + JOIN_TOLERANCE_S + d.opened.clock.uncertainty
            ),
            None,
        )
        if waiting is None:
            waiting = Evidence(event.at)
            state.drafts.append(waiting)
        waiting.started_at, waiting.source = event.at, event.source
        waiting.news_at = event.at

    def _draft_of_client(self, opened: TurnOpened) -> Evidence:
        state = self._session(opened.session, opened.at)
        for draft in state.drafts:
            if draft.opened is not None and draft.opened.turn == opened.turn:
                draft.news_at = opened.at
                return draft
        tolerance = JOIN_TOLERANCE_S + opened.clock.uncertainty
        for draft in state.drafts:
            if (
                draft.opened is None
                and draft.started_at is not None
                and draft.started_at >= opened.started - tolerance
            ):
                draft.opened, draft.news_at = opened, opened.at
                return draft
        draft = Evidence(opened.at, opened=opened)
        state.drafts.append(draft)
        return draft

    def _agent_is_heard(self, at: float) -> None:
        """There is an agent where the pipeline runs: turns wait for its account."""
        self._agent_until = max(self._agent_until, at + AGENT_MEMORY_S)

    def _pipeline_reported(self, seen: PipelineReported) -> None:
        self._agent_is_heard(seen.at)
        state = self._session(seen.session, seen.at)
        fitting = [
            d
            for d in state.drafts
            if d.pipeline is None
            and d.started_at is not None
            and abs(d.started_at - seen.entered) < SAME_SPEECH_S
        ]
        if fitting:
            draft = min(fitting, key=lambda d: abs((d.started_at or 0.0) - seen.entered))
        else:
            # Nobody brings this session's events: the agent alone tells of the turn.
            draft = Evidence(seen.at, started_at=seen.entered, source=Source.AGENT)
            state.drafts.append(draft)
        draft.pipeline, draft.news_at = seen, seen.at
        if draft.error is None and seen.error is not None:
            draft.error = dict(seen.error)
        if draft.ended_at is None:
            draft.ended_at = seen.marks.get(stages.SPEECH_GENERATED, seen.at)
            draft.ended_source = Source.AGENT

    def _pipeline_line(self, seen: LogLine) -> None:
        assert isinstance(seen.line, upstream.PipelineTimingLine)
        state = self._session(seen.line.session, seen.at)
        for draft in state.drafts:
            if draft.started_at is not None and draft.line is None and draft.error is None:
                draft.line, draft.news_at = seen.line, seen.at
                return
        self._keep(seen)

    def _keep(self, seen: LogLine) -> None:
        if len(self._lines) == self._lines.maxlen:
            self._disown(self._lines.popleft())
        self._lines.append(seen)

    def _disown(self, seen: LogLine) -> None:
        """No turn took the line: what it measured still belongs into the histograms."""
        self.log_lines_unattributed += 1
        match seen.line:
            case upstream.SentenceLine(first_pcm_ms=value):
                self._values_of_nobody.append((stages.TTS_FIRST_PCM_LATENCY, value))
            case upstream.PipelineTimingLine(fields=fields) if _LLM_FIELD in fields:
                self._values_of_nobody.append((stages.LLM_FIRST_TOKEN_LATENCY, fields[_LLM_FIELD]))
            case _:
                pass

    # --- what goes out ---------------------------------------------------------------------

    def _close_ready(self, state: _Session, now: float) -> Iterator[Turn]:
        if not state.drafts:
            return
        while len(state.drafts) > DRAFTS_LIMIT:
            yield self._close(state, state.drafts.popleft())
        for draft in list(state.drafts):
            if self._is_over(draft, now):
                state.drafts.remove(draft)
                yield self._close(state, draft)

    def _is_over(self, draft: Evidence, now: float) -> bool:
        if now - draft.news_at > self.turn_limit_s:
            return True
        missed = draft.speaking and draft.missed_at is not None
        if missed and draft.reported is None and now - draft.news_at <= GAP_GRACE_S:
            return False
        ended = draft.ended_at if draft.ended_at is not None else draft.news_at
        server_done = draft.ended_at is not None or draft.error is not None or missed
        if draft.reported is not None:
            if draft.started_at is None:
                return (
                    draft.reported.outcome is not Outcome.COMPLETED
                    or now - draft.news_at > LOG_GRACE_S
                )
            if not server_done:
                return now - draft.news_at > CLIENT_GRACE_S
        elif draft.opened is not None:
            if not server_done or now - ended <= CLIENT_GRACE_S:
                return False
        elif not server_done:
            return False
        if now < self._agent_until and draft.pipeline is None and now - ended <= AGENT_GRACE_S:
            return False
        if self.expect_log and draft.line is None and draft.error is None:
            return now - ended > LOG_GRACE_S
        return True

    def _close(self, state: _Session, draft: Evidence) -> Turn:
        record = state.record
        state.turns += 1
        turn = Turn(
            session=record.session,
            turn=state.turns,
            model=record.model,
            backend=self._backends.get(record.model or ""),
            avatar=record.avatar,
            startup=self._startup(state.turns),
            outcome=draft.outcome,
            llm_model=self._language_model.model,
            llm_provider=self._language_model.provider,
            error=draft.error,
            timing=draft.timing,
        )
        if turn.outcome is Outcome.INCOMPLETE and draft.missed_at is not None:
            turn.error = dict(_BUS_GAP)
        window = draft.speech_window()
        if window is not None:
            begin, end = window
            self._attribute_lines(record.session, draft, begin, end)
            self._windows.append((begin, min(end, draft.news_at)))
        timeline.fill(turn, draft)
        if self._explain:
            timeline.explain(turn, draft, expect_log=self.expect_log)
        return turn

    def _startup(self, ordinal: int) -> Startup:
        if self._next_is_cold:
            self._next_is_cold = False
            return Startup.COLD
        return Startup.WARM if ordinal == 1 else Startup.STEADY

    def _attribute_lines(self, session: str, draft: Evidence, begin: float, end: float) -> None:
        """Give the turn the kept lines that can only belong to it."""
        for seen in list(self._lines):
            # A line without a time of its own is dated when it was read, which is later.
            if not begin <= seen.at <= end + (0.0 if seen.stamped else LOG_GRACE_S):
                continue
            match seen.line:
                case upstream.PipelineTimingLine(session=name) if name != session:
                    continue
                case upstream.PipelineTimingLine() as line:
                    draft.line = draft.line or line
                case upstream.EnteredLine(session=name) if name != session:
                    continue
                case upstream.EnteredLine() if seen.stamped:
                    draft.entered = seen.at
                case _ if self._others_speaking(seen.at, draft):
                    continue
                case upstream.LlmStartedLine() if seen.stamped and draft.llm_started is None:
                    draft.llm_started = seen.at
                case upstream.SentenceLine(first_pcm_ms=value) if draft.first_pcm_ms is None:
                    draft.first_pcm_ms = value
                case _:
                    pass
            self._lines.remove(seen)

    def _others_speaking(self, instant: float, besides: Evidence) -> bool:
        if any(begin <= instant <= end for begin, end in self._windows):
            return True
        drafts = (d for s in self._sessions.values() for d in s.drafts if d is not besides)
        windows = (d.speech_window() for d in drafts)
        return any(w is not None and w[0] <= instant <= w[1] for w in windows)


def _told_of(state: _Session, event: TargetEvent) -> Evidence | None:
    """The turn that an event tells of: the last that had begun by then.

    If by its time none had, the clock was set back, and it is the last of all.
    """
    last: Evidence | None = None
    for draft in reversed(state.drafts):
        if draft.started_at is not None:
            if draft.started_at <= event.at:
                return draft
            last = last or draft
    return last


_BUS_GAP = {
    "code": "BUS_GAP",
    "message": "the connection to Redis was lost while the turn spoke",
}

_LLM_FIELD = stages.LLM_FIRST_TOKEN_LATENCY.log_field or ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
