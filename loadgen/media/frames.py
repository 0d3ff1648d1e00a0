"""RTP video packets → complete pictures with their time of arrival.

What comes in: video `Packet`s in the order of arrival, with loss, reordering and duplicates.
What goes out: `Frame`s, each once, when its last missing packet has come. Pure: no clock, no
I/O. It must not know codecs beyond the flags on a packet, nor speeches or sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from loadgen.media.packets import Packet, Unwrapper

_HISTORY = 2048
"""Sequence numbers remembered: over a second of the largest stream seen (1,500 packets/s)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One complete picture."""

    timestamp: int
    """RTP timestamp, extended so that it never wraps."""
    arrival: float
    """When its last packet arrived, `time.monotonic()` seconds."""
    key: bool
    packets: int
    size: int
    """Payload bytes."""


@dataclass(slots=True)
class _Partial:
    arrivals: dict[int, float] = field(default_factory=dict)
    start: int | None = None
    end: int | None = None
    key: bool = False
    size: int = 0


class FrameAssembler:
    """Feed it packets; it tells which pictures they complete.

    A picture is complete when every sequence number from its first packet to its marker is
    there. Its first packet is the one whose payload says so, else the one that follows a
    packet of another picture.
    """

    def __init__(self) -> None:
        self._sequences = Unwrapper(16)
        self._timestamps = Unwrapper(32)
        self._owner: dict[int, int] = {}
        self._partial: dict[int, _Partial] = {}
        self._newest = 0

    def extend_timestamp(self, timestamp: int) -> int:
        """Place a 32-bit RTP timestamp of this stream on the extended scale of `Frame`."""
        return self._timestamps.locate(timestamp)

    def add(self, packet: Packet) -> list[Frame]:
        """Take one packet; return the pictures it completed, in media order."""
        sequence = self._sequences.extend(packet.sequence)
        timestamp = self._timestamps.extend(packet.timestamp)
        if sequence in self._owner:
            return []
        self._owner[sequence] = timestamp
        self._newest = max(self._newest, sequence)
        self._forget()

        partial = self._partial.setdefault(timestamp, _Partial())
        partial.arrivals[sequence] = packet.arrival
        partial.size += packet.size
        partial.key = partial.key or packet.key
        if packet.starts_frame and (partial.start is None or sequence < partial.start):
            partial.start = sequence
        if packet.marker:
            partial.end = sequence

        done = [self._complete(timestamp)]
        # This packet may be what shows where the next picture begins.
        following = self._owner.get(sequence + 1)
        if following is not None and following != timestamp:
            done.append(self._complete(following))
        return [frame for frame in done if frame is not None]

    def _complete(self, timestamp: int) -> Frame | None:
        partial = self._partial.get(timestamp)
        if partial is None or partial.end is None:
            return None
        start = partial.start
        if start is None:
            start = min(partial.arrivals)
            if start - 1 not in self._owner:
                return None
        if any(s not in partial.arrivals for s in range(start, partial.end + 1)):
            return None
        del self._partial[timestamp]
        return Frame(
            timestamp=timestamp,
            arrival=max(partial.arrivals.values()),
            key=partial.key,
            packets=len(partial.arrivals),
            size=partial.size,
        )

    def _forget(self) -> None:
        if len(self._owner) <= 2 * _HISTORY:
            return
        oldest = self._newest - _HISTORY
        self._owner = {s: t for s, t in self._owner.items() if s >= oldest}
        live = set(self._owner.values())
        self._partial = {t: p for t, p in self._partial.items() if t in live}
