"""Objectives → pass or fail, with the evidence.

What comes in: the parsed content of a threshold file, and a `Result`. What goes out: one
`Check` an objective. It must not know in what language the file was written.

An objective says that at least a share of all turns is good: `percentile: 95` with
`at_most: 3000` means that 95 of 100 turns take at most 3000. It passes when the turns that were
measured prove it, fails when they prove the contrary, and is open otherwise: both by the exact
binomial test, one-sided at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from exporter import stages
from exporter.stages import Outcome
from report.absence import Missing
from report.decode import DecodeError, decode
from report.statistics import share_is_above, share_is_below, values_for_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.result import Result, StageResult

DEFAULT_PERCENTILE: Final = 95.0


class Status(StrEnum):
    """What the turns prove about an objective."""

    PASS = "pass"
    FAIL = "fail"
    OPEN = "not enough data"

    @property
    def exit_status(self) -> int:
        """Exit status of a command that ends with it."""
        return {Status.PASS: 0, Status.FAIL: 1, Status.OPEN: 2}[self]


@dataclass(frozen=True, slots=True)
class Objective:
    """One entry of `objectives`; exactly one of the two limits is given, in the key's unit."""

    metric: str
    percentile: float | None
    at_most: float | None
    at_least: float | None


@dataclass(frozen=True, slots=True)
class Objectives:
    """A threshold file."""

    objectives: tuple[Objective, ...]
    completed: float | None
    """Share of the measured turns that must complete, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Check:
    """An objective and what the turns say about it."""

    claim: str
    status: Status
    evidence: str


class SloError(ValueError):
    """A threshold file that says something impossible; the message names the field."""


def read(content: object) -> Objectives:
    """The objectives of a parsed file. Raises `SloError`."""
    try:
        _no_others(content, Objectives, "")
        found = decode(Objectives, content)
    except DecodeError as error:
        raise SloError(str(error)) from error
    assert isinstance(content, dict)
    for number, (raw, one) in enumerate(zip(content["objectives"], found.objectives, strict=True)):
        place = f"objectives[{number}]"
        _no_others(raw, Objective, f"{place}.")
        stage = stages.STAGES.get(one.metric)
        if stage is None or stage.scope is stages.Scope.RUN:
            known = ", ".join(
                key for key, s in stages.STAGES.items() if s.scope is not stages.Scope.RUN
            )
            raise SloError(f"{place}.metric is {one.metric!r}, which is none of: {known}")
        if (one.at_most is None) == (one.at_least is None):
            raise SloError(f"{place} needs either at_most or at_least")
        if one.percentile is not None and not 0.0 < one.percentile < 100.0:
            raise SloError(f"{place}.percentile is {one.percentile:g}; it lies between 0 and 100")
    if found.completed is not None and not 0.0 < found.completed < 1.0:
        raise SloError(f"completed is {found.completed:g}; it is a share between 0 and 1")
    return found


def _no_others(content: object, schema: type[Objective | Objectives], place: str) -> None:
    """A misspelt limit would silently limit nothing."""
    if isinstance(content, dict):
        known = [part.name for part in fields(schema)]
        for name in content:
            if name not in known:
                raise SloError(f"{place}{name} is unknown; there are: {', '.join(known)}")


def check(result: Result, objectives: Objectives) -> list[Check]:
    """What the result says about each objective."""
    checks = [_check(result, one) for one in objectives.objectives]
    if objectives.completed is not None:
        checks.append(_completed(result, objectives.completed))
    return checks


def worst(checks: Sequence[Check]) -> Status:
    """The status of them all: a failure before an open question."""
    statuses = {one.status for one in checks}
    return next((s for s in (Status.FAIL, Status.OPEN) if s in statuses), Status.PASS)


def _check(result: Result, objective: Objective) -> Check:
    found = {**result.sessions, **result.turns}[objective.metric]
    percentile = objective.percentile or DEFAULT_PERCENTILE
    share = (100.0 - percentile) / 100.0
    limit = objective.at_most if objective.at_least is None else objective.at_least
    assert limit is not None
    words = "at most" if objective.at_least is None else "at least"
    unit = found.stage.key.rpartition("_")[2] if found.stage.key.endswith("_ms") else ""
    claim = f"{percentile:g} % of {objective.metric} {words} {limit:g} {unit}".rstrip()
    if found.values is None:
        reason = found.statistics.reason if isinstance(found.statistics, Missing) else ""
        return Check(claim, Status.OPEN, f"not measured: {reason}")
    low, high = _bad(found, limit, at_most=objective.at_least is None)
    return _judge(claim, low, high, found.values.n, share)


def _bad(found: StageResult, limit: float, *, at_most: bool) -> tuple[int, int]:
    """The least and the most values that can break the limit; of drift, its magnitude counts."""
    assert found.values is not None
    values = found.values
    if not found.stage.is_signed:
        return values.above(limit) if at_most else values.below(limit)
    above, below = values.above(limit), values.below(-limit)
    low, high = above[0] + below[0], above[1] + below[1]
    return (low, high) if at_most else (values.n - high, values.n - low)


def _completed(result: Result, share: float) -> Check:
    total = sum(result.outcomes.values())
    bad = total - result.outcomes.get(Outcome.COMPLETED, 0)
    return _judge(f"{100.0 * share:g} % of the turns completed", bad, bad, total, 1.0 - share)


def _judge(claim: str, low: int, high: int, n: int, share: float) -> Check:
    seen = f"{low} of {n} break it" if low == high else f"{low} to {high} of {n} break it"
    if share_is_below(high, n, share):
        return Check(claim, Status.PASS, seen)
    if share_is_above(low, n, share):
        return Check(claim, Status.FAIL, seen)
    if low != high:
        return Check(
            claim,
            Status.OPEN,
            f"{seen}: the limit lies inside a bucket of the histogram; choose one of its edges",
        )
    needed = values_for_share(low, n, share)
    return Check(
        claim,
        Status.OPEN,
        f"{seen}: that is the share allowed, so no number of turns tells"
        if needed is None
        else f"{seen}: about {needed} turns prove it, if the share stays as it is",
    )
