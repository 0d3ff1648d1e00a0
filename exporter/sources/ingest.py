"""`POST /v1/marks` (docs/marks.md) → observations.

What comes in: a JSON batch, and who sends it. What goes out: observations on the exporter's
clock, each record once. It must not know HTTP nor turns. A malformed batch is refused whole, with
the name of the field that is wrong.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import OrderedDict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from exporter import stages
from exporter.health import SourceHealth
from exporter.observations import (
    AgentLosses,
    ClockBasis,
    LoopLag,
    Observation,
    PipelineReported,
    ProcessReported,
    SessionSeen,
    TargetEvent,
    TurnOpened,
    TurnReported,
)
from exporter.sources import Emit
from exporter.stages import InputKind, Outcome, Phase, ProcessRole

AGENT_ORIGIN = "agent-"
"""How the origin of an agent begins: it relays events from inside, ahead of any client."""

ORIGINS_REMEMBERED = 10_000
ADDRESSES_REMEMBERED = 10_000
RECORDS_A_BATCH = 1_000

_Session = Annotated[str, Field(min_length=1, max_length=128)]
_Text = Annotated[str, Field(max_length=2_000)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Unix = Annotated[float, Field(gt=0, lt=1e11, allow_inf_nan=False)]


_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
"""W3C Trace Context, section 3.2: versions to come may have more fields, version 00 has not."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_marks(marks: dict[str, float]) -> dict[str, float]:
    for name in marks:
        if name not in stages.MARKS:
            raise ValueError(f"{name!r} is not a mark; known: {', '.join(stages.MARKS)}")
    return marks


def _known_samples(samples: dict[str, float]) -> dict[str, float]:
    for key in samples:
        stage = stages.STAGES.get(key)
        if stage is None or stage.kind is not stages.Kind.SAMPLE:
            raise ValueError(f"{key!r} is not a sample of the catalogue")
    return samples


class SessionRecord(_Model):
    """What a client knows of its session; marks are seconds since `started_unix`."""

    kind: Literal["session"]
    sequence: Annotated[int, Field(ge=1)]
    session: _Session
    started_unix: _Unix
    model: _Text | None = None
    avatar: _Text | None = None
    marks: dict[str, _Number] = {}
    absent: dict[str, _Text] = {}
    outcome: Outcome | None = None

    _marks = field_validator("marks")(_known_marks)


class EventRecord(_Model):
    """One event of the session's event stream, relayed."""

    kind: Literal["event"]
    sequence: Annotated[int, Field(ge=1)]
    session: _Session
    unix: _Unix
    event: Annotated[str, Field(min_length=1, max_length=128)]
    data: dict[str, Any]


class TurnOpenedRecord(_Model):
    """The client has given its input."""

    kind: Literal["turn_opened"]
    sequence: Annotated[int, Field(ge=1)]
    session: _Session
    turn: Annotated[str, Field(min_length=1, max_length=64)]
    started_unix: _Unix
    input: InputKind | None = None
    phase: Phase | None = None


class DriftRecord(_Model):
    """A/V drift of one speech, in milliseconds, positive when sound is early."""

    basis: Annotated[str, Field(min_length=1, max_length=128)]
    onset_ms: _Number | None = None
    median_ms: _Number | None = None
    p95_ms: _Number | None = None
    slope_ms_per_min: _Number | None = None
    frames: Annotated[int, Field(ge=0)] | None = None


class ErrorRecord(_Model):
    """Why a turn failed."""

    code: _Text
    message: _Text


class TurnRecord(_Model):
    """The client's whole account of one turn; marks are seconds since its input."""

    kind: Literal["turn"]
    sequence: Annotated[int, Field(ge=1)]
    session: _Session
    turn: Annotated[str, Field(min_length=1, max_length=64)]
    started_unix: _Unix
    outcome: Outcome
    input: InputKind | None = None
    phase: Phase | None = None
    marks: dict[str, _Number] = {}
    samples: dict[str, _Number] = {}
    drift: DriftRecord | None = None
    bases: dict[str, _Text] = {}
    absent: dict[str, _Text] = {}
    error: ErrorRecord | None = None

    _marks = field_validator("marks")(_known_marks)
    _samples = field_validator("samples")(_known_samples)

    @field_validator("outcome")
    @classmethod
    def _is_over(cls, outcome: Outcome) -> Outcome:
        if outcome is Outcome.INCOMPLETE:
            raise ValueError("a client reports a turn when it is over")
        return outcome


_Timestamp = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]


class MediaRecord(_Model):
    """RTP timestamps of a speech's first talking frame and first audio sample."""

    first_video_timestamp: _Timestamp | None = None
    first_audio_timestamp: _Timestamp | None = None


class PipelineRecord(_Model):
    """The agent's whole account of one speech; marks are seconds since the pipeline began."""

    kind: Literal["pipeline"]
    sequence: Annotated[int, Field(ge=1)]
    session: _Session
    started_unix: _Unix
    marks: dict[str, _Number]
    samples: dict[str, _Number] = {}
    chunks: list[tuple[_Number, _Number]] = []
    media: MediaRecord = MediaRecord()
    outcome: Literal[Outcome.COMPLETED, Outcome.INTERRUPTED, Outcome.FAILED]
    error: ErrorRecord | None = None
    traceparent: Annotated[str, Field(max_length=512)] | None = None
    llm_model: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    _marks = field_validator("marks")(_known_marks)
    _samples = field_validator("samples")(_known_samples)

    @field_validator("traceparent")
    @classmethod
    def _trace_context(cls, told: str | None) -> str | None:
        if told is None:
            return None
        match = _TRACEPARENT.fullmatch(told)
        if match is None or (told.startswith("00") and match[1] is not None):
            raise ValueError("not a W3C traceparent, such as 00-<32 hex>-<16 hex>-01")
        return told

    @field_validator("chunks")
    @classmethod
    def _forward(cls, chunks: list[tuple[float, float]]) -> list[tuple[float, float]]:
        for requested, returned in chunks:
            if returned < requested:
                raise ValueError(f"a chunk returned at {returned}, requested at {requested}")
        return chunks


_Count = Annotated[int, Field(ge=0)]


class LagRecord(_Model):
    """How late the event loop ran its timers since the record before, in seconds."""

    p50: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    p99: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MediaQueueRecord(_Model):
    """Items that wait for WebRTC, summed over the process's sessions."""

    video: _Count | None = None
    audio: _Count | None = None


class AgentRecord(_Model):
    """What the agent has lost since the process started."""

    dropped: _Count
    refused: _Count
    failures: _Count


class ProcessRecord(_Model):
    """How the agent's process does; null where the agent cannot read it."""

    kind: Literal["process"]
    sequence: Annotated[int, Field(ge=1)]
    unix: _Unix
    role: ProcessRole
    rss_bytes: _Count | None = None
    event_loop_lag_seconds: LagRecord | None = None
    media_queue: MediaQueueRecord = MediaQueueRecord()
    realtime_backlog: _Count | None = None
    agent: AgentRecord | None = None


class ClockRecord(_Model):
    """The client's clock on ours."""

    offset_seconds: _Number = 0.0
    uncertainty_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


Record = Annotated[
    SessionRecord | EventRecord | TurnOpenedRecord | TurnRecord | PipelineRecord | ProcessRecord,
    Field(discriminator="kind"),
]


class Batch(_Model):
    """The body of one request."""

    version: Literal[1]
    origin: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    clock: ClockRecord = ClockRecord()
    records: Annotated[list[Record], Field(min_length=1, max_length=RECORDS_A_BATCH)]


_BATCH = TypeAdapter(Batch)


class BadBatchError(ValueError):
    """A batch is malformed; `field` is the path of the field, such as `records[3].marks`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class TokenBuckets:
    """At most `burst` at once and `rate` a second in the long run, for each key by itself.

    No limit while `rate` is 0. Times are of any monotonic clock, in seconds.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Take one token; 0.0 if there was one, else the seconds until there is."""
        if self._rate <= 0:
            return 0.0
        level, at = self._levels.pop(key, (float(self._burst), now))
        level = min(float(self._burst), level + (now - at) * self._rate)
        taken = level >= 1
        self._levels[key] = (level - taken, now)
        while len(self._levels) > ADDRESSES_REMEMBERED:
            # The one that has been quiet longest has the fullest bucket.
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / self._rate


class Ingest:
    """Takes batches. `token`, where set, is the one that senders must know."""

    def __init__(self) -> None:
        self.health = SourceHealth("marks")
        self.token: str | None = None
        self._buckets = TokenBuckets(0.0, 1)
        self._last_sequence: OrderedDict[str, int] = OrderedDict()

    def limit(self, rate: float, burst: int) -> None:
        """Let each address send `rate` batches a second, `burst` at once; 0: no limit."""
        self._buckets = TokenBuckets(rate, burst)

    def wait(self, address: str) -> float:
        """0.0 if this address may send a batch now, else the seconds it has to wait."""
        seconds = self._buckets.wait(address, time.monotonic())
        if seconds > 0:
            self.health.drop("rate_limited")
        return seconds

    def knows(self, token: str | None) -> bool:
        """Whether a sender's bearer token is the right one, or none is asked for."""
        if self.token is None:
            return True
        # In constant time, so that a wrong token does not tell how much of it was right.
        right = hmac.compare_digest((token or "").encode(), self.token.encode())
        if not right:
            self.health.drop("unauthorized")
        return right

    def take(self, body: bytes, emit: Emit, *, relayed_events: bool) -> tuple[int, int]:
        """Parse and emit a batch; return how many records were new and how many were not.

        `relayed_events`: whether events that clients relay are wanted; they are not while the
        same events come from Redis. Raises `BadBatchError`.
        """
        try:
            batch = _BATCH.validate_json(body)
        except ValidationError as error:
            self.health.drop("malformed")
            raise _named(error) from error
        last = self._last_sequence.pop(batch.origin, 0)
        accepted = 0
        for record in batch.records:
            if record.sequence <= last:
                continue
            last = record.sequence
            accepted += 1
            if isinstance(record, EventRecord) and not relayed_events:
                continue
            if isinstance(record, EventRecord):
                emit(_event(record, batch))
            elif isinstance(record, ProcessRecord):
                emit(_process(record, batch))
            else:
                emit(_observation(record, batch.clock))
        self._last_sequence[batch.origin] = last
        while len(self._last_sequence) > ORIGINS_REMEMBERED:
            self._last_sequence.popitem(last=False)
        self.health.succeeded(time.time(), events=accepted)
        return accepted, len(batch.records) - accepted


def _event(record: EventRecord, batch: Batch) -> TargetEvent:
    agent = batch.origin.startswith(AGENT_ORIGIN)
    source = stages.Source.AGENT if agent else stages.Source.SSE
    at = record.unix + batch.clock.offset_seconds
    return TargetEvent(at, source, record.session, record.event, record.data)


def _process(record: ProcessRecord, batch: Batch) -> ProcessReported:
    lag, losses = record.event_loop_lag_seconds, record.agent
    return ProcessReported(
        # Nothing is newer than now, whatever the process's clock says.
        min(time.time(), record.unix + batch.clock.offset_seconds),
        batch.origin,
        record.role,
        rss_bytes=record.rss_bytes,
        lag=None if lag is None else LoopLag(lag.p50, lag.p99, lag.max),
        media_queue=record.media_queue.model_dump(exclude_none=True),
        realtime_backlog=record.realtime_backlog,
        losses=None
        if losses is None
        else AgentLosses(losses.dropped, losses.refused, losses.failures),
    )


def _observation(
    record: SessionRecord | TurnOpenedRecord | TurnRecord | PipelineRecord, clock: ClockRecord
) -> Observation:
    now = time.time()
    offset = clock.offset_seconds
    started = record.started_unix + offset
    if isinstance(record, SessionRecord):
        return SessionSeen(
            now,
            record.session,
            model=record.model,
            avatar=record.avatar,
            marks={name: started + at for name, at in record.marks.items()},
            absent=record.absent,
            outcome=record.outcome,
        )
    if isinstance(record, PipelineRecord):
        return PipelineReported(
            now,
            record.session,
            started,
            marks={name: started + at for name, at in record.marks.items()},
            outcome=record.outcome,
            chunks=tuple((started + begin, started + end) for begin, end in record.chunks),
            first_video=record.media.first_video_timestamp,
            first_audio=record.media.first_audio_timestamp,
            error=record.error.model_dump() if record.error is not None else None,
            samples=record.samples,
            traceparent=record.traceparent,
            llm_model=record.llm_model,
        )
    opened = TurnOpened(
        now,
        record.session,
        record.turn,
        started,
        record.input,
        record.phase,
        ClockBasis(offset, clock.uncertainty_seconds),
    )
    if isinstance(record, TurnOpenedRecord):
        return opened
    return TurnReported(
        opened,
        marks={name: started + at for name, at in record.marks.items()},
        outcome=record.outcome,
        samples=record.samples,
        drift=record.drift.model_dump() if record.drift is not None else None,
        bases=record.bases,
        absent=record.absent,
        error=record.error.model_dump() if record.error is not None else None,
    )


_KINDS = frozenset({"session", "event", "turn_opened", "turn", "pipeline", "process"})


def _named(error: ValidationError) -> BadBatchError:
    """The first problem, with the field's path as a reader writes it."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ""
    before: int | str = ""
    for step in problem["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        # Behind a record's index pydantic names its kind, which is no field.
        elif not (isinstance(before, int) and step in _KINDS):
            path += f".{step}" if path else str(step)
        before = step
    return BadBatchError(path or "body", problem["msg"].removeprefix("Value error, "))
