"""What a listener would have heard: arrivals of audio packets in, gaps and concealed time out.

Pure. It must not know speeches' text, video or sessions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BUFFER_S: Final = 0.08
"""Delay of the simulated playout: aiortc's audio jitter buffer waits for four packets of 20 ms."""

_INAUDIBLE_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Listening:
    """How a speech's sound came across."""

    gaps: int
    """How often the sound was interrupted."""
    concealed_s: float
    """Seconds that had to be filled in: lost packets, and waiting for late ones."""


def listen(packets: Iterable[tuple[float, float]], packet_s: float) -> Listening:
    """Play (arrival, media time) pairs, both in seconds, each `packet_s` of sound.

    A player begins `BUFFER_S` after the first packet. Sound that is not there when it is due is
    concealed: for good where it never comes; where it comes later, the player waits, and all
    that follows is due so much later.
    """
    in_order = sorted(packets, key=lambda packet: packet[1])
    gaps, concealed = 0, 0.0
    offset = played_to = 0.0
    for index, (arrival, media) in enumerate(in_order):
        if index == 0:
            offset = arrival + BUFFER_S - media
        else:
            lost = media - played_to
            late = arrival - (media + offset)
            # Half a packet: timestamps are exact, and clocks of arrival are not.
            if lost > packet_s / 2:
                gaps += 1
                concealed += lost
            elif late > _INAUDIBLE_S:
                gaps += 1
            if late > _INAUDIBLE_S:
                concealed += late
                offset += late
        played_to = media + packet_s
    return Listening(gaps, concealed)
