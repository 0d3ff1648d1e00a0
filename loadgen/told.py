"""What the agent told of a speech, asked of the exporter: a session in, RTP timestamps out.

It must not know how they are used. An exporter that does not answer, or has no agent, costs the
best basis of the drift and nothing else.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import httpx

from loadgen.loopback import is_loopback
from loadgen.media.onset import FirstTimestamps

_TIMEOUT_S: Final = 2.0
_EARLY_S: Final = 0.25
"""A speech's pipeline cannot begin before its input; clocks and requests take their time."""


class AgentTimestamps:
    """Give it to `Session` as `first_timestamps`; an async context manager."""

    def __init__(self, exporter: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`exporter` is the exporter's URL; `transport` replaces the network in tests."""
        self._http = httpx.AsyncClient(
            base_url=exporter,
            timeout=_TIMEOUT_S,
            trust_env=not is_loopback(exporter),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def __call__(self, session: str, seconds: float) -> FirstTimestamps | None:
        """The timestamps of the session's speech that answers an input of `seconds` ago."""
        try:
            reply = await self._http.get(f"/v1/sessions/{session}/speech")
            told = reply.json() if reply.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError):
            return None
        match told:
            case {"age_seconds": float(age), "video": int(video), "audio": int(audio)}:
                # An older one answers an earlier input.
                return FirstTimestamps(video, audio) if age <= seconds + _EARLY_S else None
        return None
