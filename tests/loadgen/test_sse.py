"""The event stream: recordings of the real server, and streams that break."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from loadgen import sse
from loadgen.errors import Cause, TargetError
from tests.recordings import CAPTURES, sse_events

STREAM = {"content-type": "text/event-stream; charset=utf-8"}


async def chunks(data, size):
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(body, *, size=4096, headers=STREAM):
    """(events, error) of a response whose body comes in chunks of `size` bytes."""

    async def run():
        response = httpx.Response(200, headers=headers, content=chunks(body, size))
        seen = []
        try:
            async for event in sse.events(response):
                seen.append(event)  # noqa: PERF401 - what came before the error counts
        except TargetError as error:
            return seen, error
        return seen, None

    return asyncio.run(run())


@pytest.mark.parametrize(
    "name", ["unified_mock.sse.txt", "split_mock.sse.txt", "err_omnirt_fail.sse.txt"]
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_recorded_stream(name, size):
    events, _ = read((CAPTURES / name).read_bytes(), size=size)
    recorded = [(e, d) for _, e, d in sse_events(name) if e != "ping"]
    assert [(e.name, e.data) for e in events] == recorded


def test_pings_are_swallowed_and_arrivals_stamped():
    events, _ = read(b"event: ping\ndata: {}\n\nevent: a\ndata: {}\n\nevent: b\ndata: {}\n\n")
    assert [e.name for e in events] == ["a", "b"]
    assert 0 < events[0].at <= events[1].at
    assert events[0].unix > 1e9


def test_text_may_hold_separators_that_only_python_takes_for_line_ends():
    text = "eins\u2028zwei\x0bdrei\x85vier"
    events, _ = read(f'event: subtitle.chunk\ndata: {{"text": "{text}"}}\n\n'.encode())
    # JSON forbids raw control characters, so the reader skips what it cannot parse ...
    assert events == []
    text = "eins\u2028zwei\x85drei"
    events, _ = read(f'event: subtitle.chunk\ndata: {{"text": "{text}"}}\n\n'.encode())
    # ... but these two are plain text.
    assert events[0].data == {"text": text}


def test_what_is_no_json_object_is_skipped():
    events, _ = read(b"event: a\ndata: oops\n\nevent: b\ndata: 3\n\nevent: c\ndata: {}\n\n")
    assert [e.name for e in events] == ["c"]


def test_a_stream_never_ends_by_itself_so_an_end_is_a_loss():
    _, error = read(b"event: a\ndata: {}\n\n")
    assert error is not None
    assert error.cause is Cause.STREAM_LOST


def test_an_answer_that_is_no_event_stream():
    _, error = read(b"<html>", headers={"content-type": "text/html"})
    assert error is not None
    assert error.cause is Cause.BAD_ANSWER
