"""What can go wrong between a client and its target, as one exception type with a category.

What comes in: nothing. What goes out: `TargetError` and `Cause`. It must not know HTTP, WebRTC
or the command line; whoever maps failures to exit codes or retries looks at `cause` only.
"""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why something asked of the target did not happen."""

    UNREACHABLE = "unreachable"
    """No connection to the target."""
    HTTP_STATUS = "http_status"
    """The target answered, with a status that means refusal or failure."""
    TIMEOUT = "timeout"
    """The target took longer than it was given."""
    BAD_ANSWER = "bad_answer"
    """The target answered something that OpenTalking does not answer."""
    REFUSED = "refused"
    """The target understood and said no, outside HTTP's status (WebSocket, session state)."""
    STREAM_LOST = "stream_lost"
    """The session's event stream ended while it was needed."""
    CONNECTION_LOST = "connection_lost"
    """The WebRTC connection could not be made or broke."""
    NO_MEDIA = "no_media"
    """Connected, and no usable media arrives."""
    CLIENT_FAULT = "client_fault"
    """This client's own receive path failed: what it measured is not the target's doing."""


class TargetError(Exception):
    """A request to the target, or a session on it, failed.

    The message names the cause and, where there is one, the fix. `status` is the HTTP status
    of an answer, else None; `retry_after` the seconds that its Retry-After asks for, else None.
    """

    def __init__(
        self,
        message: str,
        cause: Cause,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.retry_after = retry_after
