"""Exit statuses, and the one exception that carries a status and a message to the terminal."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a command's end says to the shell."""

    GOOD = 0
    FAILED = 1
    """A regression or a failed run."""
    NOT_ENOUGH_DATA = 2
    INVALID = 3
    """The load generator was the bottleneck."""
    USAGE = 64
    """Wrong usage: an option's value cannot be used."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; everything was put away first."""


class CommandError(Exception):
    """A command cannot go on. The message is one line that names cause and fix.

    `names_logs`: it, or what was printed before it, sends the reader to log files, which must stay.
    """

    def __init__(
        self, message: str, status: Status = Status.FAILED, *, names_logs: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.names_logs = names_logs
