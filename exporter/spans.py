"""Turns → OpenTelemetry: one trace a turn, its stages as children.

What comes in: finished `Turn` records. What goes out: spans with explicit start and end, over
OTLP, as the standard OTEL_* variables say. It must not know how a mark was seen. Off unless an
OTLP endpoint is configured.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from exporter import __version__, attributes, stages
from exporter.stages import Outcome
from exporter.turn_record import Turn

GRPC = "grpc"
HTTP = "http/protobuf"
TURN_SPAN = "turn"
CHUNK_SPAN = "render_chunk"

SESSIONS_REMEMBERED = 10_000
"""Sessions whose next turn is linked to their last one."""

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
            self._provider.add_span_processor(self._processor(exporter))
        self._tracer = self._provider.get_tracer("talkscope", __version__)
        self._last_of_session: OrderedDict[str, SpanContext] = OrderedDict()

    def _processor(self, exporter: SpanExporter) -> SpanProcessor:
        """What takes ended spans to the exporter."""
        return BatchSpanProcessor(exporter)

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
            TURN_SPAN,
            context=_parent(turn),
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(begin),
            attributes=_turn_attributes(turn),
            links=self._links(turn),
        )
        if not root.is_recording():
            # Not sampled: an exemplar must not point at a trace that nobody keeps.
            return
        context = trace.set_span_in_context(root)
        for stage in IN_TRACES:
            if stage.start in turn.marks and stage.end in turn.marks:
                self._stage(stage, turn, context)
        for number, chunk in enumerate(turn.chunks, 1):
            self._chunk(number, chunk, context, (begin, end))
        _set_outcome(root, turn, end)
        root.end(_nanoseconds(end))
        own = root.get_span_context()
        self._remember(turn.session, own)
        turn.trace_id = trace.format_trace_id(own.trace_id)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is waiting, for at most `timeout_s`, and stop."""
        self._provider.force_flush(int(timeout_s * 1000))
        self._provider.shutdown()

    def _links(self, turn: Turn) -> list[Link]:
        """A turn is linked to the session's turn before it."""
        before = self._last_of_session.get(turn.session)
        return [] if before is None else [Link(before)]

    def _remember(self, session: str, context: SpanContext) -> None:
        self._last_of_session[session] = context
        self._last_of_session.move_to_end(session)
        while len(self._last_of_session) > SESSIONS_REMEMBERED:
            self._last_of_session.popitem(last=False)

    def _chunk(
        self,
        number: int,
        chunk: tuple[float, float],
        context: Context,
        bounds: tuple[float, float],
    ) -> None:
        begin, end = (min(max(at, bounds[0]), bounds[1]) for at in chunk)
        span = self._tracer.start_span(
            CHUNK_SPAN,
            context=context,
            kind=SpanKind.CLIENT,
            start_time=_nanoseconds(begin),
            attributes={attributes.CHUNK: number},
        )
        span.end(_nanoseconds(max(begin, end)))

    def _stage(self, stage: stages.Stage, turn: Turn, context: Context) -> None:
        assert stage.start is not None
        assert stage.end is not None
        begin, end = turn.marks[stage.start], turn.marks[stage.end]
        if end < begin:
            return
        span = self._tracer.start_span(
            span_name(stage),
            context=context,
            kind=SpanKind.CLIENT if stage in _CALLS else SpanKind.INTERNAL,
            start_time=_nanoseconds(begin),
            attributes={
                attributes.STAGE_OWNER: stage.owner,
                attributes.STAGE_SOURCE: turn.mark_sources.get(stage.end, ""),
                **(_language_model(turn) if stage is stages.LLM_FIRST_TOKEN_LATENCY else {}),
            },
        )
        span.end(_nanoseconds(end))


_CALLS = frozenset(
    {
        stages.STT,
        stages.LLM_FIRST_TOKEN_LATENCY,
        stages.TTS_FIRST_PCM_LATENCY,
        stages.AVATAR_FIRST_FRAME_LATENCY,
    }
)
"""Stages that wait for another service."""

IN_TRACES = tuple(
    stage
    for stage in stages.turn_intervals()
    # Recognition is part of what the client sees as its latency, and no other stage shows it.
    if (stage.kind is stages.Kind.ELEMENTARY or stage is stages.STT) and not stage.unseen
)
"""Stages that have a span."""

_PROVIDERS = {"openai_compatible": "openai"}
"""OpenTalking's name of a provider → the well-known value of `gen_ai.provider.name`. The
conventions name the interface that is asked, whoever runs the model behind it."""

_PROPAGATOR = TraceContextTextMapPropagator()


def _parent(turn: Turn) -> Context:
    """The remote span that asked for the turn; without one the turn begins a trace."""
    if turn.traceparent is None:
        return Context()
    return _PROPAGATOR.extract({"traceparent": turn.traceparent}, Context())


def _language_model(turn: Turn) -> dict[str, str]:
    """Attributes after the semantic conventions for generative AI, of a chat's first token."""
    told = {attributes.GEN_AI_OPERATION: "chat"}
    if turn.llm_provider is not None:
        told[attributes.GEN_AI_PROVIDER] = _PROVIDERS.get(turn.llm_provider, turn.llm_provider)
    if turn.llm_model is not None:
        told[attributes.GEN_AI_MODEL] = turn.llm_model
    return told


def span_name(stage: stages.Stage) -> str:
    """Name of a stage's span: the benchmark name without its unit."""
    return stage.key.removesuffix("_ms")


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
