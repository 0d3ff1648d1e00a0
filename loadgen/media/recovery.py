"""When to ask for missing packets again, and when for a key frame: gaps in, decisions out.

Pure: no clock, no I/O. It must not know RTCP's format nor who sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FIRST_GUESS_S: Final = 0.05
_SHORTEST_S: Final = 0.02
_LONGEST_S: Final = 0.5
_PATIENCE: Final = 1.5
"""Round trips to wait before a packet is asked for again."""
_MAX_ASKED: Final = 128
"""Packets asked for at once: what aiortc keeps for retransmission (`RTP_HISTORY_SIZE`)."""

KEY_FRAME_WAIT_S: Final = 0.2
"""How long a stream may lack a key frame before one is asked for (libwebrtc,
`kMaxWaitForKeyFrame`)."""
KEY_FRAME_AGAIN_S: Final = 0.5
"""Shortest time between two requests."""


class NackSchedule:
    """Decides which missing packets are asked for now (RFC 4585, section 6.2.1).

    Each is asked for at once and again after one and a half round trips, until it comes or the
    assembler gives it up: both the request and the retransmission may be lost themselves.
    """

    def __init__(self) -> None:
        self._asked: dict[int, tuple[float, int]] = {}
        self._round_trip = _FIRST_GUESS_S

    def due(self, missing: Mapping[int, float], now: float) -> list[int]:
        """Return the extended sequence numbers to ask for at `now`, in order."""
        if not missing:
            self._asked.clear()
            return []
        again = min(max(_PATIENCE * self._round_trip, _SHORTEST_S), _LONGEST_S)
        due = []
        for number in missing:
            asked_at, times = self._asked.get(number, (0.0, 0))
            if times and now - asked_at < again:
                continue
            due.append(number)
            if len(due) == _MAX_ASKED:
                break
        for number in due:
            self._asked[number] = (now, self._asked.get(number, (0.0, 0))[1] + 1)
        if len(self._asked) > 2 * len(missing) + _MAX_ASKED:
            self._asked = {n: a for n, a in self._asked.items() if n in missing}
        return due

    def repaired(self, number: int, arrival: float) -> None:
        """A retransmission of `number` arrived: learn the round trip from it."""
        asked_at, times = self._asked.pop(number, (0.0, 0))
        # Of a packet asked for twice nobody knows which request was answered (Karn's rule).
        if times == 1 and arrival > asked_at:
            self._round_trip += (arrival - asked_at - self._round_trip) / 8


class KeyFrameSchedule:
    """Decides when a key frame is asked for (RFC 4585, section 6.3.1)."""

    def __init__(self) -> None:
        self._lacking_since: float | None = None
        self._asked_at = float("-inf")

    def due(self, awaits_key: bool, now: float, *, at_once: bool) -> bool:
        """Whether to ask at `now`; `at_once` when pictures were given up."""
        if not awaits_key:
            self._lacking_since = None
            return False
        if self._lacking_since is None:
            self._lacking_since = now
        patient = at_once or now - self._lacking_since >= KEY_FRAME_WAIT_S
        if not patient or now - self._asked_at < KEY_FRAME_AGAIN_S:
            return False
        self._asked_at = now
        return True
