"""Turns → OpenTelemetry: one trace a turn, its stages as children.

What comes in: finished `Turn` records. What goes out: spans with explicit start and end, over
OTLP, as the standard OTEL_* variables say. It must not know how a mark was seen. Off unless an
OTLP endpoint is configured.
"""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Status, StatusCode

from exporter import __version__, attributes, stages
from exporter.stages import Outcome
from exporter.turn_record import Turn

GRPC = "grpc"
HTTP = "http/protobuf"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class ProtocolError(ValueError):
    """OTEL_EXPORTER_OTLP_PROTOCOL names a protocol that is not supported."""


class Spans:
    """Turns into spans. `enabled` is false when no OTLP endpoint is configured."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self.enabled = exporter is not None
        resource = Resource.create(
            {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "opentalking")}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("talkscope", __version__)

    @classmethod
    def from_environment(cls) -> Spans:
        """Spans for the OTLP endpoint and protocol that the environment names, or none.

        Raises `ProtocolError` for an unknown protocol.
        """
        if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
            return cls(None)
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", HTTP
        )
        if protocol == GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
                OTLPSpanExporter as GrpcExporter,
            )

            return cls(GrpcExporter())
        if protocol == HTTP:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter as HttpExporter,
            )

            return cls(HttpExporter())
        raise ProtocolError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} is not supported; use {GRPC} or {HTTP}"
        )

    def turn(self, turn: Turn) -> None:
        """Emit a turn's trace and note its id in the record. A turn without marks has none."""
        if not self.enabled or not turn.marks:
            return
        begin, end = min(turn.marks.values()), max(turn.marks.values())
        root = self._tracer.start_span(
            "turn",
            context=Context(),
            kind=trace.SpanKind.SERVER,
            start_time=_nanoseconds(begin),
            attributes=_turn_attributes(turn),
        )
        context = trace.set_span_in_context(root)
        for stage in stages.turn_intervals():
            if stage.start in turn.marks and stage.end in turn.marks:
                self._stage(stage, turn, context)
        _set_outcome(root, turn, end)
        root.end(_nanoseconds(end))
        turn.trace_id = trace.format_trace_id(root.get_span_context().trace_id)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is waiting, for at most `timeout_s`, and stop."""
        self._provider.force_flush(int(timeout_s * 1000))
        self._provider.shutdown()

    def _stage(self, stage: stages.Stage, turn: Turn, context: Context) -> None:
        if stage.kind is not stages.Kind.ELEMENTARY or stage.start is None or stage.end is None:
            return
        begin, end = turn.marks[stage.start], turn.marks[stage.end]
        if end < begin:
            return
        span = self._tracer.start_span(
            stage.key.removesuffix("_ms"),
            context=context,
            start_time=_nanoseconds(begin),
            attributes={
                attributes.STAGE_OWNER: stage.owner,
                attributes.STAGE_SOURCE: turn.mark_sources.get(stage.end, ""),
            },
        )
        span.end(_nanoseconds(end))


def _turn_attributes(turn: Turn) -> dict[str, str | int | float]:
    told: dict[str, str | int | float | None] = {
        attributes.SESSION: turn.session,
        attributes.TURN: turn.turn,
        attributes.CLIENT_TURN: turn.client_turn,
        attributes.PHASE: turn.phase,
        attributes.STARTUP: str(turn.startup),
        attributes.INPUT: turn.input,
        attributes.OUTCOME: turn.outcome,
        attributes.MODEL: turn.model,
        attributes.BACKEND: turn.backend,
        attributes.AVATAR: turn.avatar,
        attributes.CLOCK_BASIS: turn.clock.get("basis"),
        attributes.CLIENT_CLOCK_OFFSET: turn.clock.get("client_offset_seconds"),
        attributes.CLIENT_CLOCK_UNCERTAINTY: turn.clock.get("client_uncertainty_seconds"),
    }
    told |= {attributes.VALUE_PREFIX + key: value for key, value in turn.values.items()}
    return {name: value for name, value in told.items() if value is not None}


def _set_outcome(root: Span, turn: Turn, end: float) -> None:
    if turn.outcome is Outcome.COMPLETED:
        return
    if turn.outcome is Outcome.INTERRUPTED:
        root.add_event("interrupted", timestamp=_nanoseconds(end))
        return
    code = (turn.error or {}).get("code", turn.outcome)
    root.add_event("error", {attributes.ERROR_TYPE: code}, timestamp=_nanoseconds(end))
    root.set_attribute(attributes.ERROR_TYPE, code)
    root.set_status(Status(StatusCode.ERROR, code))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
