"""The record of one turn, and the evidence it is made from.

What comes in: nothing; these are the shapes that `exporter.turns` fills, `exporter.timeline`
computes on and the sinks read. It must not know where evidence comes from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from exporter import upstream
from exporter.observations import PipelineReported, TurnOpened, TurnReported
from exporter.stages import InputKind, Outcome, Phase, Source, Startup

JOIN_TOLERANCE_S = 0.1
"""How much earlier than its input a `speech.started` may seem, for clocks and delivery."""


@dataclass(slots=True)
class Turn:
    """One finished turn. Fields as in docs/bundle.md; `to_json` gives the bundle's line."""

    session: str
    turn: int
    model: str | None
    backend: str | None
    avatar: str | None
    startup: Startup
    outcome: Outcome
    client_turn: str | None = None
    trace_id: str | None = None
    input: InputKind | None = None
    phase: Phase | None = None
    llm_model: str | None = None
    """The language model: as the agent saw it asked, or as the target says it is configured."""
    llm_provider: str | None = None
    traceparent: str | None = None
    """The trace of the request that asked for the turn, when the agent tells."""
    error: dict[str, str] | None = None
    marks: dict[str, float] = field(default_factory=dict)
    mark_sources: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    value_sources: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    drift: dict[str, Any] | None = None
    chunks: list[tuple[float, float]] = field(default_factory=list)
    """When each chunk of the synthesis backend was requested and returned; the agent tells."""
    first_timestamps: dict[str, int] | None = None
    """RTP timestamps of the answer's first talking frame (`video`) and sound (`audio`)."""
    timing: dict[str, Any] | None = None
    clock: dict[str, Any] = field(default_factory=lambda: {"basis": "exporter"})

    def moved(self, seconds: float) -> Turn:
        """The same turn on a clock that is ahead by this much; itself for none."""
        if not seconds:
            return self
        return replace(
            self,
            marks={name: at + seconds for name, at in self.marks.items()},
            chunks=[(begin + seconds, end + seconds) for begin, end in self.chunks],
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of the record's fields."""
        return asdict(self)


@dataclass(slots=True)
class SessionRecord:
    """What is known of one session. Fields as in docs/bundle.md."""

    session: str
    model: str | None = None
    backend: str | None = None
    avatar: str | None = None
    marks: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of the record's fields."""
        return asdict(self)


@dataclass(slots=True)
class Evidence:
    """What was seen of one turn so far; the server's and the client's part come in either order.

    All instants are seconds since the epoch on the exporter's clock.
    """

    news_at: float
    opened: TurnOpened | None = None
    reported: TurnReported | None = None
    started_at: float | None = None
    source: Source | None = None
    """Who brought the latest of its events."""
    media_started_at: float | None = None
    timing_at: float | None = None
    timing: dict[str, Any] | None = None
    ended_at: float | None = None
    ended_source: Source | None = None
    interrupted: bool = False
    gap: bool = False
    """The bus was away while this turn spoke: its end may have been missed."""
    missed_at: float | None = None
    """When the session was found not speaking afterwards; whoever relays its events may still
    tell how it ended."""
    error: dict[str, str] | None = None
    line: upstream.PipelineTimingLine | None = None
    pipeline: PipelineReported | None = None
    """The agent's account, which is exact and takes the place of what was estimated."""

    entered: float | None = None
    """When the log says that the pipeline was entered, by the line's own time."""
    llm_started: float | None = None
    """When the log says that the language model was asked, by the line's own time."""
    first_pcm_ms: float | None = None

    @property
    def speaking(self) -> bool:
        """The server is generating this turn's answer."""
        return self.started_at is not None and self.ended_at is None and self.error is None

    def speech_window(self) -> tuple[float, float] | None:
        """When log lines of this turn can have been written."""
        if self.started_at is None:
            return None
        begin = self.started_at - JOIN_TOLERANCE_S
        if self.opened is not None:
            begin = max(begin, self.opened.started - self.opened.clock.uncertainty)
        return begin, self.ended_at if self.ended_at is not None else math.inf

    @property
    def outcome(self) -> Outcome:
        """How the turn ended."""
        if self.error is not None:
            return Outcome.FAILED
        if self.reported is not None:
            return self.reported.outcome
        if self.interrupted:
            return Outcome.INTERRUPTED
        if self.pipeline is not None:
            return self.pipeline.outcome
        return Outcome.COMPLETED if self.ended_at is not None else Outcome.INCOMPLETE
