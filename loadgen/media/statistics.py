"""What RFC 3550 counts of one RTP source: packets in; loss, jitter and report blocks out.

Pure: no clock, no I/O. It must not know media, feedback or sessions. Retransmissions have a
source of their own (RFC 4588), so what is counted here is the loss of the network, before any
repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_TALK_SPURT_S: Final = 0.5
"""A deviation beyond this is a sender that paused and not jitter: OpenTalking's audio clock
stands still between speeches."""


class SourceStatistics:
    """Counts one source with the algorithms of RFC 3550, appendix A."""

    __slots__ = (
        "_base",
        "_clock_hz",
        "_expected_prior",
        "_jitter",
        "_last_arrival",
        "_last_timestamp",
        "_received_prior",
        "bytes",
        "highest",
        "packets",
    )

    def __init__(self, clock_hz: int) -> None:
        self.packets = 0
        self.bytes = 0
        """Of whole datagrams."""
        self.highest = -1
        """Extended highest sequence number received; -1 before the first packet."""
        self._clock_hz = clock_hz
        self._base = 0
        self._jitter = 0.0
        self._last_arrival = 0.0
        self._last_timestamp = -1
        self._expected_prior = 0
        self._received_prior = 0

    def add(self, sequence: int, timestamp: int, size: int, arrival: float) -> None:
        """Count one packet: header fields as sent, bytes, and arrival in seconds."""
        self.packets += 1
        self.bytes += size
        highest = self.highest
        if highest < 0:
            self.highest = self._base = sequence
        else:
            step = (sequence - highest) & 0xFFFF
            if not 0 < step < 0x8000:
                return
            self.highest = highest + step
        # Packets of one picture share its timestamp, so only the first of them tells the
        # network's jitter (as aiortc and libwebrtc do).
        if timestamp == self._last_timestamp:
            return
        if self._last_timestamp >= 0:
            elapsed = (timestamp - self._last_timestamp + 0x80000000) % 0x100000000 - 0x80000000
            deviation = abs((arrival - self._last_arrival) - elapsed / self._clock_hz)
            if deviation < _TALK_SPURT_S:
                self._jitter += (deviation - self._jitter) / 16
        self._last_timestamp = timestamp
        self._last_arrival = arrival

    @property
    def expected(self) -> int:
        """Packets sent so far, as far as sequence numbers tell."""
        return self.highest - self._base + 1 if self.highest >= 0 else 0

    @property
    def lost(self) -> int:
        """Packets lost; negative where duplicates came (RFC 3550, section 6.4.1)."""
        return self.expected - self.packets

    @property
    def jitter_s(self) -> float:
        """Interarrival jitter (RFC 3550, section 6.4.1) in seconds."""
        return self._jitter

    @property
    def jitter_units(self) -> int:
        """The same in the medium's clock, as a report block carries it."""
        return int(self._jitter * self._clock_hz)

    def fraction_lost(self) -> int:
        """Share lost since the last call, in 1/256 (RFC 3550, appendix A.3)."""
        expected = self.expected - self._expected_prior
        received = self.packets - self._received_prior
        self._expected_prior, self._received_prior = self.expected, self.packets
        lost = expected - received
        return 0 if expected <= 0 or lost <= 0 else min(255, (lost << 8) // expected)


def jitter_s(points: Iterable[tuple[float, float]]) -> float | None:
    """Interarrival jitter in seconds of (arrival, media time) pairs, both in seconds."""
    jitter: float | None = None
    previous: tuple[float, float] | None = None
    for point in points:
        if previous is not None:
            deviation = abs((point[0] - previous[0]) - (point[1] - previous[1]))
            if deviation < _TALK_SPURT_S:
                jitter = (jitter or 0.0) + (deviation - (jitter or 0.0)) / 16
        previous = point
    return jitter
