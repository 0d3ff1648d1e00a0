"""When viewers arrive in the open model: a specification in, intended instants out. Pure.

Arrivals do not wait for one another, so a slow target meets the same load as a fast one and no
latency is left out of the figures (Schroeder, Wierman, Harchol-Balter: "Open versus closed: a
cautionary tale", NSDI 2006). It must not know Locust nor who starts the visits.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

POISSON: Final = "poisson:"
MAX_RATE: Final = 1000.0
"""Arrivals a second beyond which no machine starts sessions."""


class ArrivalsError(ValueError):
    """The specification cannot be used; the message says why and what is wanted."""


class Arrivals(Protocol):
    """A schedule of intended starts."""

    def until(self, seconds: float) -> list[float]:
        """The instants before `seconds` that no earlier call has returned, in order.

        Instants are seconds from the start of the run.
        """

    @property
    def over(self) -> bool:
        """Whether nobody will arrive any more."""


class PoissonArrivals:
    """Independent viewers: exponentially distributed times between arrivals."""

    over = False

    def __init__(self, rate: float, rng: random.Random) -> None:
        """`rate` in arrivals a second."""
        self._instants = _accumulated(rate, rng)
        self._next = next(self._instants)

    def until(self, seconds: float) -> list[float]:
        """See `Arrivals`."""
        due = []
        while self._next < seconds:
            due.append(self._next)
            self._next = next(self._instants)
        return due


class RecordedArrivals:
    """Arrivals as they were once recorded."""

    def __init__(self, instants: list[float]) -> None:
        self._instants = instants
        self._told = 0

    @property
    def over(self) -> bool:
        """See `Arrivals`."""
        return self._told == len(self._instants)

    def until(self, seconds: float) -> list[float]:
        """See `Arrivals`."""
        end = bisect_left(self._instants, seconds, lo=self._told)
        due, self._told = self._instants[self._told : end], end
        return due


def parse(specification: str, rng: random.Random) -> Arrivals:
    """`poisson:RATE` (arrivals a second), or the name of a file. Raises ArrivalsError.

    The file has one instant a line, in seconds from the start; empty lines and what follows a
    `#` are left out.
    """
    if specification.startswith(POISSON):
        return PoissonArrivals(_rate(specification.removeprefix(POISSON)), rng)
    return RecordedArrivals(_recorded(Path(specification)))


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= MAX_RATE:
        raise ArrivalsError(
            f"{POISSON}{text}: the rate is not a number of arrivals a second, above 0 and at "
            f"most {MAX_RATE:.0f}, such as {POISSON}0.5"
        )
    return rate


def _recorded(path: Path) -> list[float]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArrivalsError(
            f"{path}: neither {POISSON}RATE nor a file that can be read ({error})"
        ) from error
    instants: list[float] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            instant = float(text)
        except ValueError:
            instant = math.nan
        if not 0 <= instant < math.inf:
            raise ArrivalsError(f"{path}:{number}: {text!r} is not a number of seconds from 0")
        if instants and instant < instants[-1]:
            raise ArrivalsError(f"{path}:{number}: {text} is before the line above it")
        instants.append(instant)
    if not instants:
        raise ArrivalsError(f"{path}: holds no arrival")
    return instants


def _accumulated(rate: float, rng: random.Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += rng.expovariate(rate)
        yield now


class LeastDelay:
    """Another machine's clock on this one, from messages that say when they were sent.

    Each message is late by its way and by the wait for whoever takes it, never early; so the
    least of all differences is the nearest to the truth, and a receiver that falls behind does
    not shift what it was told (a shifted arrival would hide that it began late).
    """

    def __init__(self) -> None:
        self._least = math.inf

    def place(self, theirs: float, sent: float, received: float) -> float:
        """The instant `theirs` here, of a message `sent` there and `received` here (seconds)."""
        self._least = min(self._least, received - sent)
        return theirs + self._least
