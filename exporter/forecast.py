"""Memory over sessions → how many sessions fit.

What comes in: readings of device memory, and how many sessions were live. What goes out: the
slope in bytes a session and the number of sessions at which the device is full, each with its
95 % confidence interval; or the reason why the data do not allow it. Pure. It must not know
vendors, nor how a session is seen.

A point is a number of sessions and the highest memory while there were that many. Only the
numbers on the way up count: allocators keep what a closed session used, so on the way down
memory says nothing. Fewer sessions than one say nothing either: the first one loads the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exporter import gauges
from exporter.observations import Reading, Readings

POINTS_NEEDED: Final = 3
"""A line through two points has no scatter, and so no confidence."""

CONFIDENCE: Final = 0.95

SOURCE: Final = "forecast"
ESTIMATE: Final = "estimate"
LOWER: Final = "lower"
UPPER: Final = "upper"
"""Values of the label `bound`."""

# Upper critical values of Student's t for 1 to 30 degrees of freedom, 0.975:
# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class NoForecastError(Exception):
    """The data do not allow a forecast; the message says why."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the ends of its confidence interval."""

    estimate: float
    lower: float
    upper: float

    def bounds(self) -> dict[str, float]:
        """By value of the label `bound`."""
        return {ESTIMATE: self.estimate, LOWER: self.lower, UPPER: self.upper}


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory as a line over sessions."""

    per_session: Interval
    """Bytes."""
    sessions_fit: Interval
    """Sessions at which the device is full, whole ones."""
    points: int


def fit(points: Mapping[int, float], total: float) -> Growth:
    """Ordinary least squares of memory (bytes) over sessions; `total` is the device's memory.

    The interval of the slope is b ± t(0.975, n − 2) · s / √Σ(x − x̄)², s² the residual variance.
    That of the sessions that fit is where the lines of those slopes through the centroid (x̄, ȳ)
    reach `total`; ȳ's own error is left out, being the smaller part far from the data. Raises
    `NoForecastError` for fewer than three points, or when the slope may be zero.
    """
    n = len(points)
    if n < POINTS_NEEDED:
        raise NoForecastError(
            f"a line takes memory at {POINTS_NEEDED} different numbers of sessions, there are {n}"
        )
    mean_x = math.fsum(points) / n
    mean_y = math.fsum(points.values()) / n
    spread = math.fsum((x - mean_x) ** 2 for x in points)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in points.items()) / spread
    residuals = math.fsum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points.items())
    # Beyond the table its last value, which is a little too wide, stays.
    t = _T[min(n - 2, len(_T)) - 1]
    error = t * math.sqrt(residuals / (n - 2) / spread)
    per_session = Interval(slope, slope - error, slope + error)
    if per_session.lower <= 0:
        raise NoForecastError("memory does not grow with sessions by more than it scatters")

    def full(by: float) -> float:
        return float(math.floor(mean_x + (total - mean_y) / by))

    fits = Interval(full(slope), full(per_session.upper), full(per_session.lower))
    return Growth(per_session, fits, n)


@dataclass(slots=True)
class _Device:
    total: float = 0.0
    points: dict[int, float] = field(default_factory=dict)

    def add(self, sessions: int, used: float) -> None:
        lowest = min(self.points.values(), default=0.0)
        if sessions == 0 and used < lowest / 2:
            # The target itself has gone: another one starts from the beginning.
            self.points.clear()
        if sessions >= max(self.points, default=1):
            self.points[sessions] = max(used, self.points.get(sessions, 0.0))

    def growth(self) -> Growth:
        if not self.points:
            raise NoForecastError("no memory was read while a session was live")
        return fit(self.points, self.total)


class MemoryForecast:
    """Feed it readings; it holds a forecast for every device that has one."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._readable: dict[str, frozenset[str]] = {}
        self._told: tuple[Reading, ...] = ()

    def feed(self, seen: Readings, sessions: int) -> Readings | None:
        """Take readings of any kind, and how many sessions are live.

        Return the forecast's own readings when they have changed, else None.
        """
        mine = (gauges.VRAM_USED.name, gauges.VRAM_TOTAL.name)
        memory = [reading for reading in seen.readings if reading.name in mine]
        if not memory and seen.source not in self._readable:
            return None
        # A device that cannot be read any more has no forecast either.
        self._readable[seen.source] = frozenset(r.labels["device"] for r in memory)
        for reading in memory:
            device = self._devices.setdefault(reading.labels["device"], _Device())
            if reading.name == gauges.VRAM_TOTAL.name:
                device.total = reading.value
            elif reading.labels["scope"] == gauges.MemoryScope.DEVICE:
                device.add(sessions, reading.value)
        told = tuple(self._readings(sessions))
        if told == self._told:
            return None
        self._told = told
        return Readings(seen.at, SOURCE, told)

    def describe(self) -> dict[str, Any]:
        """`memory_forecast` of the bundle's `target.json` (docs/bundle.md)."""
        found, reasons = [], {}
        for name, device in self._devices.items():
            try:
                growth = device.growth()
            except NoForecastError as error:
                reasons[name] = str(error)
                continue
            found.append(
                {
                    "device": name,
                    "per_session_bytes": growth.per_session.bounds(),
                    "sessions_fit": growth.sessions_fit.bounds(),
                    "points": growth.points,
                    "confidence": CONFIDENCE,
                }
            )
        why = "; ".join(f"device {name}: {reason}" for name, reason in reasons.items())
        return {
            "memory_forecast": found,
            "memory_forecast_absent": None if found else why or "no memory was read",
        }

    def _readings(self, sessions: int) -> list[Reading]:
        told = []
        for name in sorted(frozenset().union(*self._readable.values())):
            try:
                growth = self._devices[name].growth()
            except NoForecastError:
                continue
            for gauge, interval, less in (
                (gauges.VRAM_PER_SESSION, growth.per_session, 0),
                (gauges.VRAM_SESSIONS_LEFT, growth.sessions_fit, sessions),
            ):
                told += [
                    Reading(gauge.name, max(value - less, 0.0), {"device": name, "bound": bound})
                    for bound, value in interval.bounds().items()
                ]
        return told
