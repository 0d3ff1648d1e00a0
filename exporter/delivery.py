"""What becomes of the spans: sent or lost, counted.

What comes in: an OTLP exporter, which says only whether a batch arrived. What goes out: the same
exporter with a health of its own, so that an outage of the endpoint shows in the metrics. It must
not know turns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from exporter.health import SourceHealth
from exporter.spans import Spans


class CountedExporter(SpanExporter):
    """Passes batches on. The SDK calls it from one thread, and drops a batch that failed."""

    def __init__(self, exporter: SpanExporter, health: SourceHealth) -> None:
        self._exporter = exporter
        self._health = health

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; count its spans as sent or as lost."""
        started = time.monotonic()
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._lost(len(spans), f"{type(error).__name__}: {error}")
            raise
        if result is SpanExportResult.SUCCESS:
            duration = time.monotonic() - started
            self._health.succeeded(time.time(), events=len(spans), duration=duration)
        else:
            self._lost(len(spans), "the OTLP endpoint did not take the spans; see the log")
        return result

    def shutdown(self) -> None:
        """Stop sending, whatever is on its way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter itself holds back."""
        return self._exporter.force_flush(timeout_millis)

    def _lost(self, spans: int, reason: str) -> None:
        self._health.failed(reason)
        self._health.drop("not_delivered", spans)


class CountedSpans(Spans):
    """Spans whose delivery is counted in `health`."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self.health = SourceHealth("otlp")
        super().__init__(CountedExporter(exporter, self.health) if exporter is not None else None)

    @classmethod
    def from_environment(cls) -> CountedSpans:
        """As `Spans.from_environment`; raises `exporter.spans.ProtocolError`."""
        spans = super().from_environment()
        assert isinstance(spans, cls)
        return spans
