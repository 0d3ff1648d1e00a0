"""What the agent told of a speech, asked of the exporter: a session in, RTP timestamps out.

It must not know how they are used. An exporter that does not answer, or has no agent, costs the
best basis of the drift and nothing else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import httpx

from loadgen.loopback import is_loopback
from loadgen.media.onset import FirstTimestamps

FirstTimestampsOf = Callable[[str, float], Awaitable[FirstTimestamps | None]]
"""Of a session: with which timestamps the speech began that answers an input of `seconds` ago."""

_TIMEOUT_S: Final = 2.0
_AGAIN_S: Final = 30.0
"""An exporter that did not answer is left alone for so long: asking it would hold up the turns."""
_EARLY_S: Final = 0.25
"""A speech's pipeline cannot begin before its input; clocks and requests take their time."""
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.1
"""An agent that has told of other speeches will tell of this one, be it late on a busy machine."""


class AgentTimestamps:
    """Give it to `Session` as `first_timestamps`; an async context manager."""

    def __init__(self, exporter: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`exporter` is the exporter's URL; `transport` replaces the network in tests."""
        self._http = httpx.AsyncClient(
            base_url=exporter,
            timeout=_TIMEOUT_S,
            trust_env=not is_loopback(exporter),
            # Shorter than the server's own limit: a turn must not meet a closing connection.
            limits=httpx.Limits(keepalive_expiry=2.0),
            transport=transport,
        )
        self._has_agent = False
        self._not_before = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __call__(self, session: str, seconds: float) -> FirstTimestamps | None:
        """The timestamps of the session's speech that answers an input of `seconds` ago."""
        asked = time.monotonic()
        while time.monotonic() >= self._not_before:
            waited = time.monotonic() - asked
            told = await self._ask(session, seconds + waited)
            if told is not None:
                self._has_agent = True
                return told
            if not self._has_agent or waited >= _PATIENCE_S:
                return None
            await asyncio.sleep(_POLL_S)
        return None

    async def _ask(self, session: str, seconds: float) -> FirstTimestamps | None:
        try:
            reply = await self._http.get(f"/v1/sessions/{session}/speech")
            told = reply.json() if reply.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError):
            self._not_before = time.monotonic() + _AGAIN_S
            return None
        match told:
            case {"age_seconds": float(age), "video": int(video), "audio": int(audio)}:
                # An older one answers an earlier input.
                return FirstTimestamps(video, audio) if age <= seconds + _EARLY_S else None
        return None
