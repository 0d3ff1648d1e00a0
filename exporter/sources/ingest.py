"""`POST /v1/marks` (docs/marks.md) → observations.

What comes in: a decoded JSON batch. What goes out: observations on the exporter's clock, each
record once. It must not know HTTP nor turns. A malformed batch is refused whole, with the name
of the field that is wrong.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from exporter import stages
from exporter.health import SourceHealth
from exporter.observations import (
    ClockBasis,
    Observation,
    SessionSeen,
    TargetEvent,
    TurnOpened,
    TurnReported,
)
from exporter.sources import Emit
from exporter.stages import InputKind, Outcome, Phase

ORIGINS_REMEMBERED = 10_000
RECORDS_A_BATCH = 1_000

_Session = Annotated[str, Field(min_length=1, max_length=128)]
_Text = Annotated[str, Field(max_length=2_000)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Unix = Annotated[float, Field(gt=0, lt=1e11, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_marks(marks: dict[str, float]) -> dict[str, float]:
    for name in marks:
        if name not in stages.MARKS:
            raise ValueError(f"{name!r} is not a mark; known: {', '.join(stages.MARKS)}")
    return marks


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

    @field_validator("outcome")
    @classmethod
    def _is_over(cls, outcome: Outcome) -> Outcome:
        if outcome is Outcome.INCOMPLETE:
            raise ValueError("a client reports a turn when it is over")
        return outcome

    @field_validator("samples")
    @classmethod
    def _known_samples(cls, samples: dict[str, float]) -> dict[str, float]:
        for key in samples:
            stage = stages.STAGES.get(key)
            if stage is None or stage.kind is not stages.Kind.SAMPLE:
                raise ValueError(f"{key!r} is not a sample of the catalogue")
        return samples


class ClockRecord(_Model):
    """The client's clock on ours."""

    offset_seconds: _Number = 0.0
    uncertainty_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


Record = Annotated[
    SessionRecord | EventRecord | TurnOpenedRecord | TurnRecord, Field(discriminator="kind")
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


class Ingest:
    """Takes batches. `accept_events` is asked whether relayed events are wanted just now."""

    def __init__(self) -> None:
        self.health = SourceHealth("marks")
        self._last_sequence: OrderedDict[str, int] = OrderedDict()

    def take(self, body: bytes, emit: Emit, *, relayed_events: bool) -> tuple[int, int]:
        """Parse and emit a batch; return how many records were new and how many were not.

        `relayed_events`: whether events that clients relay are wanted; they are not while the
        same events come from Redis. Raises `BadBatchError`.
        """
        try:
            batch = _BATCH.validate_json(body)
        except ValidationError as error:
            self.health.dropped += 1
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
            emit(_observation(record, batch.clock))
        self._last_sequence[batch.origin] = last
        while len(self._last_sequence) > ORIGINS_REMEMBERED:
            self._last_sequence.popitem(last=False)
        self.health.succeeded(time.time(), events=accepted)
        return accepted, len(batch.records) - accepted


def _observation(
    record: SessionRecord | EventRecord | TurnOpenedRecord | TurnRecord, clock: ClockRecord
) -> Observation:
    now = time.time()
    offset = clock.offset_seconds
    if isinstance(record, EventRecord):
        return TargetEvent(
            record.unix + offset, stages.Source.SSE, record.session, record.event, record.data
        )
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


_KINDS = frozenset({"session", "event", "turn_opened", "turn"})


def _named(error: ValidationError) -> BadBatchError:
    """The first problem, with the field's path as a reader writes it."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ""
    for step in problem["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not (step in _KINDS and path.endswith("]")):
            path += f".{step}" if path else str(step)
    return BadBatchError(path or "body", problem["msg"].removeprefix("Value error, "))
