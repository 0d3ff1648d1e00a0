"""What becomes of the spans: sent or lost, counted.

What comes in: an OTLP exporter, which says only whether a batch arrived. What goes out: the same
exporter with a health of its own, so that an outage of the endpoint shows in the metrics: every
span that was ended is counted as sent, or as lost with the cause, or is waiting. It must not know
turns.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from exporter.health import SourceHealth
from exporter.spans import Spans

DEFAULT_QUEUE: Final = 2048
"""Of OTEL_BSP_MAX_QUEUE_SIZE, as its specification says."""


class Waiting:
    """How many ended spans are not with the exporter yet; from two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    def add(self, most: int) -> bool:
        """Count one more, unless there are `most` already; say whether."""
        with self._lock:
            if self._number >= most:
                return False
            self._number += 1
            return True

    def take(self, number: int) -> None:
        """So many are with the exporter now."""
        with self._lock:
            self._number -= number

    def take_all(self) -> int:
        """Give up the rest; return how many."""
        with self._lock:
            rest, self._number = self._number, 0
            return rest


class CountedExporter(SpanExporter):
    """Passes batches on. The SDK calls it from one thread, and drops a batch that failed."""

    def __init__(self, exporter: SpanExporter, health: SourceHealth, waiting: Waiting) -> None:
        self._exporter = exporter
        self._health = health
        self._waiting = waiting

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; count its spans as sent or as lost."""
        started = time.monotonic()
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._lost(len(spans), f"{type(error).__name__}: {error}")
            raise
        finally:
            # Only now: what is on its way when the exporter stops is not delivered either.
            self._waiting.take(len(spans))
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


class CountedProcessor(BatchSpanProcessor):
    """The SDK's queue, which drops silently when it is full: this one counts, and before it is."""

    def __init__(self, exporter: SpanExporter, health: SourceHealth, waiting: Waiting) -> None:
        self._health = health
        self._waiting = waiting
        told = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "")
        self._most = int(told) if told.isdigit() and int(told) > 0 else DEFAULT_QUEUE
        super().__init__(exporter, max_queue_size=self._most)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue an ended span; the newest is dropped where the SDK would drop the oldest."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._waiting.add(self._most):
            super().on_end(span)
        else:
            self._health.drop("queue_full")


class CountedSpans(Spans):
    """Spans whose delivery is counted in `health`."""

    def __init__(self, exporter: SpanExporter | None) -> None:
        self.health = SourceHealth("otlp")
        self._waiting = Waiting()
        super().__init__(exporter)

    def _processor(self, exporter: SpanExporter) -> SpanProcessor:
        counted = CountedExporter(exporter, self.health, self._waiting)
        return CountedProcessor(counted, self.health, self._waiting)

    @classmethod
    def from_environment(cls) -> CountedSpans:
        """As `Spans.from_environment`; raises `exporter.spans.ProtocolError`."""
        spans = super().from_environment()
        assert isinstance(spans, cls)
        return spans

    def give_up(self) -> int:
        """Count what still waits as lost, since nobody will send it; return how many."""
        left = self._waiting.take_all()
        if left:
            self.health.drop("left_at_stop", left)
        return left
