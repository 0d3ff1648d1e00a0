"""How well this process keeps up with its datagrams: passes over the sockets in, windows out.

What comes in: one note for each pass. What goes out: what happened since somebody last asked.
It must not know what the datagrams are.

The time between the kernel's receipt of a datagram and its handling is the best sign that a
client, and not the server, is slow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 20_000
"""Delays kept when nobody asks: minutes of passes."""


@dataclass(frozen=True, slots=True)
class ReceiveWindow:
    """What happened between two calls of `ReceiveLoad.take`."""

    delays_s: list[float]
    """For each slice of a pass that found datagrams: how long the one that had waited longest
    had been in the kernel, in seconds beyond the polling interval. Zero while this process keeps
    up."""
    dropped: int
    """Datagrams that the kernel dropped because a socket's buffer was full."""
    packets: int


@dataclass(slots=True)
class ReceiveLoad:
    """Collects the notes of one event loop's sockets. Not for other threads."""

    delays_s: list[float] = field(default_factory=list)
    dropped: int = 0
    packets: int = 0

    def take(self) -> ReceiveWindow:
        """Return what was noted since the last call."""
        window = ReceiveWindow(self.delays_s, self.dropped, self.packets)
        self.delays_s, self.dropped, self.packets = [], 0, 0
        return window

    def note(self, delay_s: float, packets: int, dropped: int) -> None:
        """A pass took `packets`, the oldest of which was late by `delay_s`."""
        self.packets += packets
        self.dropped += dropped
        if len(self.delays_s) < _KEPT:
            self.delays_s.append(delay_s)
