"""What a source yields: one small record for each thing it saw.

Sources create these, `exporter.turns` consumes them. All times are seconds since the Unix
epoch on the exporter's clock. They carry no Prometheus or OpenTelemetry type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter import stages
from exporter.upstream import Line


@dataclass(frozen=True, slots=True)
class TargetEvent:
    """An event of OpenTalking, from Redis or relayed from a client's event stream."""

    at: float
    source: stages.Source
    session: str
    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A measuring line of the pipeline's log; `stamped` when `at` is the line's own time."""

    at: float
    line: Line
    stamped: bool


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """What is known of a session: its hash in Redis, or what a client tells.

    `marks` are absolute; None means "not told", never "has none".
    """

    at: float
    session: str
    model: str | None = None
    avatar: str | None = None
    state: str | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    outcome: stages.Outcome | None = None


@dataclass(frozen=True, slots=True)
class ClockBasis:
    """How well a client's clock is known on the exporter's clock (seconds)."""

    offset: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """A client has given its input and now waits for the answer."""

    at: float
    session: str
    turn: str
    started: float
    input: stages.InputKind | None
    phase: stages.Phase | None
    clock: ClockBasis


@dataclass(frozen=True, slots=True)
class TurnReported:
    """A client's whole account of one turn; `marks` are absolute."""

    opened: TurnOpened
    marks: Mapping[str, float]
    outcome: stages.Outcome
    samples: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, Any] | None = None
    bases: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PipelineReported:
    """The agent's whole account of one speech, from inside the pipeline.

    `marks` are absolute, on the exporter's clock, as are `chunks`: (requested, returned) of each
    chunk of the synthesis backend. `first_video` and `first_audio` are the RTP timestamps
    (32 bit, media clock) of the speech's first talking frame and first audio sample.
    """

    at: float
    session: str
    entered: float
    marks: Mapping[str, float]
    outcome: stages.Outcome
    chunks: tuple[tuple[float, float], ...] = ()
    first_video: int | None = None
    first_audio: int | None = None
    error: Mapping[str, str] | None = None
    samples: Mapping[str, float] = field(default_factory=dict)
    traceparent: str | None = None
    """The W3C trace context of the request that asked for the speech; valid where it is set."""
    llm_model: str | None = None


@dataclass(frozen=True, slots=True)
class LoopLag:
    """How late an event loop ran its timers within one interval (seconds)."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class AgentLosses:
    """What an agent has lost since its process started."""

    dropped: int = 0
    """Records never taken, because its queue was full."""
    refused: int = 0
    """Records that the exporter answered with 4xx."""
    failures: int = 0
    """Hooks that failed, and were caught."""


@dataclass(frozen=True, slots=True)
class ProcessReported:
    """How one of OpenTalking's processes does; None: the agent cannot read it.

    `origin` tells processes apart. `media_queue` is kind (`video`, `audio`) → items waiting,
    `realtime_backlog` the audio chunks that wait for the synthesis backend.
    """

    at: float
    origin: str
    role: stages.ProcessRole
    rss_bytes: int | None = None
    lag: LoopLag | None = None
    media_queue: Mapping[str, int] = field(default_factory=dict)
    realtime_backlog: int | None = None
    losses: AgentLosses | None = None


@dataclass(frozen=True, slots=True)
class TargetStarted:
    """The target's processes have just come up: the next turn is a cold one."""

    at: float


@dataclass(frozen=True, slots=True)
class BusGap:
    """Nobody listened to the bus between these instants: events may have been lost."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class BackendsSeen:
    """Which backend serves which model, as `/models` lists them."""

    at: float
    backends: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One level: `name` is a catalogue key or gauge name, `value` in its base unit."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything one source can say at this moment.

    It replaces what the source said before, so a source that fails sends an empty one and its
    values are withdrawn instead of being served for ever.
    """

    at: float
    source: str
    readings: tuple[Reading, ...] = ()


Observation = (
    TargetEvent
    | LogLine
    | SessionSeen
    | TurnOpened
    | TurnReported
    | PipelineReported
    | ProcessReported
    | TargetStarted
    | BusGap
    | BackendsSeen
    | Readings
)
