"""What a receiver tells a sender of the bandwidth: pictures in, estimates for REMB out.

Pure. It must not know RTP or RTCP (draft-alvestrand-rmcat-remb).

As in Google congestion control (draft-ietf-rmcat-gcc), a path is overused while packets take
ever longer; the rate then falls to 85 % of what arrives, and else grows. The rate's control is
aiortc's. Its detection of overuse, a Kalman filter fed with each packet, would be a quarter of
what receiving costs; here the shortest transit of each second is compared with that of the
second before, which a queue that builds up raises as well.
"""

from __future__ import annotations

import math
from typing import Final

from aiortc.rate import AimdRateControl, BandwidthUsage

INTERVAL_S: Final = 1.0
"""Time between two estimates (libwebrtc, `ReceiveSideCongestionController`)."""
_OVERUSE_S: Final = 0.0125
"""Growth of transit within an interval that means a queue (libwebrtc, `TrendlineEstimator`:
12.5 ms)."""
_WRAPS_S: Final = 64.0
"""abs-send-time has 6 bits of seconds."""


class BandwidthEstimator:
    """Estimates the bandwidth of one connection."""

    def __init__(self) -> None:
        self._control = AimdRateControl()
        self._began = math.nan
        self._bytes = 0
        self._shortest = math.inf
        self._before = math.inf

    def add(self, send_time: int, arrival: float, size: int) -> int | None:
        """Take a picture of `size` bytes; return an estimate in bit/s when it is time for one.

        `send_time` is abs-send-time (24 bits, 18 of them fractions of a second), `arrival` is
        in seconds on any clock.
        """
        # Clocks differ by anything; only changes of the transit count.
        transit = (arrival - send_time / (1 << 18)) % _WRAPS_S
        if math.isnan(self._began):
            self._began = arrival
        if math.isinf(self._shortest):
            self._shortest = transit
        else:
            step = (transit - self._shortest + _WRAPS_S / 2) % _WRAPS_S - _WRAPS_S / 2
            if step < 0:
                self._shortest += step
        self._bytes += size
        seconds = arrival - self._began
        if seconds < INTERVAL_S:
            return None
        estimate = self._control.update(
            self._usage(), round(8 * self._bytes / seconds), round(arrival * 1e3)
        )
        self._before, self._shortest = self._shortest, math.inf
        self._began, self._bytes = arrival, 0
        return estimate

    def _usage(self) -> BandwidthUsage:
        if math.isinf(self._before):
            return BandwidthUsage.NORMAL
        growth = (self._shortest - self._before + _WRAPS_S / 2) % _WRAPS_S - _WRAPS_S / 2
        if growth > _OVERUSE_S:
            return BandwidthUsage.OVERUSING
        return BandwidthUsage.UNDERUSING if growth < -_OVERUSE_S else BandwidthUsage.NORMAL
