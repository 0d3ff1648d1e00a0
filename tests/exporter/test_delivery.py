import threading

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from exporter.delivery import CountedSpans
from tests.exporter import example

QUEUE = 40
SPANS_A_TURN = 10


class Endpoint(SpanExporter):
    """Takes batches only while `open` is set; what it took is in `spans`."""

    def __init__(self):
        self.open = threading.Event()
        self.busy = threading.Event()
        self.answer = SpanExportResult.SUCCESS
        self.spans = []

    def export(self, spans):
        self.busy.set()
        self.open.wait(30)
        if self.answer is SpanExportResult.SUCCESS:
            self.spans += spans
        return self.answer

    def shutdown(self):
        self.open.set()


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.open.set()


@pytest.fixture
def spans(endpoint, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    return CountedSpans(endpoint)


def emit(spans, turns):
    for number in range(turns):
        spans.turn(example.turn(turn=number))


def test_what_is_delivered_is_counted(spans, endpoint):
    endpoint.open.set()
    emit(spans, 3)
    spans.close()
    assert spans.health.events == len(endpoint.spans) == 3 * SPANS_A_TURN
    assert spans.give_up() == 0
    assert spans.health.dropped == 0


def test_what_the_queue_cannot_hold_is_counted(spans, endpoint):
    emit(spans, 10)
    overflow = 10 * SPANS_A_TURN - QUEUE
    assert spans.health.dropped_by == {"queue_full": overflow}
    endpoint.open.set()
    spans.close()
    assert spans.health.events == len(endpoint.spans) == QUEUE


def test_what_is_left_at_the_stop_is_counted(spans, endpoint):
    emit(spans, 2)
    assert endpoint.busy.wait(10)
    assert spans.give_up() == 2 * SPANS_A_TURN
    assert spans.health.dropped_by == {"left_at_stop": 2 * SPANS_A_TURN}
    assert spans.give_up() == 0


def test_every_span_is_sent_or_lost_for_one_cause(spans, endpoint):
    endpoint.answer = SpanExportResult.FAILURE
    emit(spans, 10)
    endpoint.open.set()
    spans.close()
    lost = spans.health.dropped_by
    assert lost["not_delivered"] == QUEUE
    assert lost.total() + spans.health.events + spans.give_up() == 10 * SPANS_A_TURN
    assert not spans.health.up
