"""Whether a run's figures can be believed: health windows in, a verdict and advice out. Pure.

What comes in: for each worker, one `Window` for every five seconds in which it had sessions.
What goes out: which windows are flagged and why, and whether the generator was the bottleneck.
It must not know how anything was sampled.

The limits are where results began to be wrong in measurements of this generator beside an
unloaded one (5 s windows, kernel times as the truth). The median of the loop's lag stayed under
1 ms even then, so it is no sign of anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Final

WINDOW_S: Final = 5.0

LOOP_LAG_P99_S: Final = 0.010
LOOP_CPU: Final = 0.70
"""Share of a core that the loop's thread may use; trust ends between 65 and 75 %."""
KERNEL_DELAY_P99_S: Final = 0.010
SCHEDULE_DELAY_P99_S: Final = 0.100
"""Ours, not measured: an input that is later than this shifts the offered load noticeably."""
OPEN_FILES: Final = 0.90
"""Share of the limit on open files."""

TOLERATED: Final = 0.10
"""Share of flagged windows that a valid run may have: one of a short run, whatever its length,
because a machine's hiccup is no saturation."""

GOAL_CPU: Final = 0.60
"""Share of a core that advice aims at."""


class Flag(StrEnum):
    """Why a window's figures may be the generator's own doing."""

    LOOP_LAG = "event loop lag"
    LOOP_CPU = "CPU of the event loop's thread"
    KERNEL_DELAY = "kernel-to-handler delay"
    SCHEDULE_DELAY = "schedule delay"
    UDP_DROPS = "datagrams dropped by this machine"
    OPEN_FILES = "open files"


@dataclass(frozen=True, slots=True)
class Window:
    """What a worker knows of itself for some seconds; None where nothing was to be sampled."""

    started_unix: float
    seconds: float
    sessions: int
    """Most sessions at once."""
    loop_lag_p50_s: float
    loop_lag_p99_s: float
    loop_lag_max_s: float
    loop_cpu: float
    """CPU of the thread that receives, share of one core."""
    process_cpu: float
    """CPU of the whole process, share of one core."""
    schedule_delay_p99_s: float | None
    kernel_delay_p99_s: float | None
    udp_drops: int
    open_files: int
    open_files_limit: int

    def to_json(self) -> dict[str, Any]:
        """As it stands in the bundle, with the flags."""
        return asdict(self) | {"flags": [str(flag) for flag in flags(self)]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Window:
        """The window again."""
        return cls(**{name: content[name] for name in cls.__slots__})


def flags(window: Window) -> tuple[Flag, ...]:
    """Which limits the window exceeds."""
    checks = (
        (Flag.LOOP_LAG, window.loop_lag_p99_s, LOOP_LAG_P99_S),
        (Flag.LOOP_CPU, window.loop_cpu, LOOP_CPU),
        (Flag.KERNEL_DELAY, window.kernel_delay_p99_s, KERNEL_DELAY_P99_S),
        (Flag.SCHEDULE_DELAY, window.schedule_delay_p99_s, SCHEDULE_DELAY_P99_S),
        (Flag.UDP_DROPS, window.udp_drops, 0),
        (Flag.OPEN_FILES, window.open_files, OPEN_FILES * window.open_files_limit),
    )
    return tuple(flag for flag, value, limit in checks if value is not None and value > limit)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the run is worth as far as the generator goes."""

    saturated: bool
    windows: int
    flagged: int
    reasons: Mapping[str, int]
    """Flag → windows that carry it."""
    workers_to_add: int
    advice: str | None

    @property
    def text(self) -> str:
        """In a few words."""
        if not self.windows:
            return "unknown: no window of the generator's own health"
        if self.saturated:
            return "invalid: generator saturated"
        return "valid" if not self.flagged else f"valid ({self.flagged} flagged windows tolerated)"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the bundle."""
        return asdict(self) | {"text": self.text}


def judge(workers: Mapping[str, Sequence[Window]]) -> Verdict:
    """Judge a run by the windows of all its workers.

    A worker whose own share of flagged windows is too large spoils the run: its sessions are
    among the figures, and averaging over workers would hide it.
    """
    windows = [window for of_one in workers.values() for window in of_one]
    reasons: dict[str, int] = {}
    for window in windows:
        for flag in flags(window):
            reasons[str(flag)] = reasons.get(str(flag), 0) + 1
    spoiled = [of_one for of_one in workers.values() if _spoiled(of_one)]
    more = _workers_to_add(workers) if spoiled else 0
    return Verdict(
        saturated=bool(spoiled),
        windows=len(windows),
        flagged=sum(bool(flags(window)) for window in windows),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        workers_to_add=more,
        advice=_advice([w for of_one in spoiled for w in of_one], more) if spoiled else None,
    )


def _spoiled(windows: Sequence[Window]) -> bool:
    flagged = sum(bool(flags(window)) for window in windows)
    if not flagged:
        return False
    return flagged == len(windows) or flagged > max(1.0, TOLERATED * len(windows))


def _workers_to_add(workers: Mapping[str, Sequence[Window]]) -> int:
    """So many that the busiest worker's load, spread evenly, takes `GOAL_CPU` of a core."""
    busiest = max(median(w.loop_cpu for w in of_one) for of_one in workers.values() if of_one)
    needed = math.ceil(len(workers) * busiest / GOAL_CPU)
    return max(1, needed - len(workers))


def _advice(windows: Sequence[Window], more: int) -> str:
    flagged = [window for window in windows if flags(window)]
    seen = {flag for window in flagged for flag in flags(window)}
    if seen == {Flag.OPEN_FILES}:
        return "raise the limit on open files (ulimit -n) of the workers"
    if seen == {Flag.SCHEDULE_DELAY} and all(w.loop_cpu < GOAL_CPU for w in flagged):
        return (
            "the load was held back although the generator was idle: raise --max-sessions or "
            "--max-ramp, or ask for less"
        )
    plural = "s" if more > 1 else ""
    if Flag.LOOP_CPU not in seen and all(w.process_cpu < LOOP_CPU for w in flagged):
        return (
            f"the worker{plural} got too little of a core, so something else runs there: give the "
            f"generator cores of its own, or add {more} worker{plural} on another machine"
        )
    return f"add {more} worker{plural}, each on a core of its own"
