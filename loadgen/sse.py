"""A session's event stream: a response in, events with their time of arrival out.

It must not know what an event means, nor whose session it is. The parsing is httpx-sse's.

OpenTalking sends `ping` every 30 s and never ends the stream by itself, not even when the
session is closed: the reader stops by closing the stream.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from httpx_sse import EventSource, SSEError

from exporter import steady_clock
from loadgen.errors import Cause, TargetError

SILENCE_LIMIT_S: Final = 75.0
"""Longest silence on a live stream: two pings and a half."""

_PING: Final = "ping"


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it arrived."""

    name: str
    data: Mapping[str, Any]
    at: float
    """Arrival, `time.monotonic()` seconds."""
    unix: float
    """Arrival, seconds since the Unix epoch, on `exporter.steady_clock`."""


async def events(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Yield the stream's events, pings left out, until the stream breaks.

    Raises TargetError: `stream_lost` when it ends or falls silent, `bad_answer` when the
    answer is no event stream. An event whose data is not a JSON object is skipped, as the
    HTML standard has a reader skip what it does not understand.
    """
    try:
        async for sse in EventSource(response).aiter_sse():
            at, unix = time.monotonic(), steady_clock.now()
            if sse.event == _PING:
                continue
            try:
                data = json.loads(sse.data)
            except ValueError:
                continue
            if isinstance(data, dict):
                yield Event(sse.event, data, at, unix)
    except SSEError as error:
        raise TargetError(
            f"the session's events are not an event stream: {error}. Is this an OpenTalking API?",
            Cause.BAD_ANSWER,
        ) from error
    except httpx.ReadTimeout as error:
        raise TargetError(
            f"the session's event stream was silent for {SILENCE_LIMIT_S:.0f} s, not even a ping: "
            "the target hangs or a proxy holds the stream back",
            Cause.STREAM_LOST,
        ) from error
    except httpx.HTTPError as error:
        raise TargetError(
            f"the session's event stream broke ({type(error).__name__}: {error}): "
            "the target stopped, or a proxy between cut it",
            Cause.STREAM_LOST,
        ) from error
    raise TargetError(
        "the session's event stream was ended by the target: it stopped, or a proxy cut it",
        Cause.STREAM_LOST,
    )
