"""Two results → is the second one worse, by how much, and which stage moved.

What comes in: two `Result`s, of bundles or of windows of Prometheus, and the least change that
matters. What goes out: a `Comparison`. It must not know how either was read nor how it is shown.

The verdict rests on one metric that is declared before the data is looked at, and on the rate of
failed turns, each at 2.5 %: together a comparison of equals is called a regression at most one
time in twenty. The other stages are explanation: their p-values are corrected for their number,
and no verdict hangs on them.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from exporter import stages
from exporter.stages import Kind, Stage
from report.absence import Missing
from report.result import FAILURES, MOCK_MODEL, Result, StageResult
from report.statistics import (
    SMALLEST_SIDE,
    Shift,
    holm,
    more_failures,
    shift,
    side_for_change,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRIMARY: Final = (stages.PERCEIVED_TTFV, stages.FIRST_TURN_TOTAL, stages.TTFV)
"""The metric of the verdict, unless one is asked for: the first that both sides have."""

MIN_CHANGE: Final = 0.05
"""Least change that matters, as a share of the first side's median."""

SIDE: Final = 2000
METRIC_SIDE: Final = 20_000
"""Values a side that are compared, of a stage and of the metric, spread evenly over all: more cost
time, and with a spread of 20 % these tell a change of some 2 % and 0.6 % from none."""

_ALPHA: Final = 0.025


class Conclusion(StrEnum):
    """What a comparison comes to."""

    BETTER = "better"
    SAME = "no regression"
    REGRESSION = "regression"
    NOT_ENOUGH_DATA = "not enough data"
    INVALID = "invalid"

    @property
    def exit_status(self) -> int:
        """Exit status of a command that ends with this conclusion."""
        return {Conclusion.REGRESSION: 1, Conclusion.NOT_ENOUGH_DATA: 2, Conclusion.INVALID: 3}.get(
            self, 0
        )


@dataclass(frozen=True, slots=True)
class MinChange:
    """The least change that matters: a share of the median before, or an amount in the metric's
    unit."""

    amount: float
    relative: bool = True

    def of(self, before: float) -> float:
        """In the metric's unit, for a metric whose median was `before`."""
        return abs(before) * self.amount if self.relative else self.amount


@dataclass(frozen=True, slots=True)
class Change:
    """How one stage moved; in the key's unit. Drift is compared by its magnitude."""

    stage: Stage
    n: tuple[int, int]
    """Values before and after."""
    median: tuple[float, float]
    found: Shift
    p: float
    """Two-sided, corrected by Holm for all stages that were compared."""

    @property
    def moved(self) -> bool:
        """Whether the stage moved at all, by the corrected p-value."""
        return self.p < 2 * _ALPHA


@dataclass(frozen=True, slots=True)
class Part:
    """What one stage contributes to the change of the metric's mean."""

    stage: Stage | None
    """None: the time between the stages that are known."""
    change: float
    low: float
    high: float
    """95 % interval of `change`, widened for the number of parts (Bonferroni)."""
    share: float
    """Of the metric's change."""

    @property
    def certain(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, slots=True)
class Attribution:
    """The metric's change of mean, divided among its stages without rest."""

    change: float
    n: tuple[int, int]
    """Turns before and after that have the metric and every part; all, from histograms."""
    parts: tuple[Part, ...]
    """The largest in the direction of the change first."""

    @property
    def main(self) -> Part | None:
        """The part that explains most of the change, when it is certain that it moved."""
        first = self.parts[0]
        return first if first.certain and first.share > 0.0 else None


@dataclass(frozen=True, slots=True)
class Failures:
    """Turns that failed, vanished, stayed without media or timed out."""

    before: tuple[int, int]
    """Failed, of."""
    after: tuple[int, int]
    p: float
    """One-sided p-value that they did not become more frequent (Fisher's exact test)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer and its evidence."""

    conclusion: Conclusion
    reason: str
    names: tuple[str, str]
    results: tuple[Result, Result]
    metric: Stage | None
    primary: Change | None
    least: float | None
    """Least change that matters, in the metric's unit."""
    needed: int | None
    """Values a side with which a change of `least` would be told from none."""
    failures: Failures
    changes: tuple[Change, ...]
    missing: Mapping[str, str]
    """Stages that cannot be compared, and why."""
    attribution: Attribution | Missing
    mismatches: tuple[str, ...]
    """In what else the two differ, besides the revisions."""


def compare(
    before: Result,
    after: Result,
    *,
    names: tuple[str, str] = ("A", "B"),
    metric: Stage | None = None,
    least: MinChange = MinChange(MIN_CHANGE),
) -> Comparison:
    """Compare `after` with `before`. Raises nothing: what cannot be compared is told."""
    chosen = metric or next((stage for stage in PRIMARY if _enough(before, after, stage)), None)
    changes, missing = _changes(before, after, chosen)
    primary = changes.get(chosen.key) if chosen else None
    failures = _failures(before, after)
    threshold = least.of(primary.median[0]) if primary else None
    needed = (
        side_for_change(
            primary.found,
            min(primary.n[0], METRIC_SIDE),
            min(primary.n[1], METRIC_SIDE),
            threshold,
        )
        if primary and threshold
        else None
    )
    conclusion, reason = _conclude(
        before, after, names, chosen, primary, threshold, needed, failures, missing
    )
    return Comparison(
        conclusion=conclusion,
        reason=reason,
        names=names,
        results=(before, after),
        metric=chosen,
        primary=primary,
        least=threshold,
        needed=needed,
        failures=failures,
        changes=tuple(changes.values()),
        missing=missing,
        attribution=_attribute(before, after, chosen)
        if primary and chosen
        else Missing("the metric was not compared"),
        mismatches=mismatches(before, after),
    )


# --- the verdict ---------------------------------------------------------------------------


def _conclude(
    before: Result,
    after: Result,
    names: tuple[str, str],
    metric: Stage | None,
    primary: Change | None,
    least: float | None,
    needed: int | None,
    failures: Failures,
    missing: Mapping[str, str],
) -> tuple[Conclusion, str]:
    for name, result in zip(names, (before, after), strict=True):
        if result.invalid:
            return Conclusion.INVALID, f"{name} measured its load generator: {result.invalid}"
    if _made_up(before) != _made_up(after):
        return Conclusion.INVALID, "one side is of a mock or synthetic model, the other is not"
    if failures.p < _ALPHA:
        (few, of), (many, of_after) = failures.before, failures.after
        return (
            Conclusion.REGRESSION,
            f"turns that fail rose from {few} of {of} to {many} of {of_after} "
            f"(Fisher's exact test, p = {failures.p:.2g})",
        )
    if metric is None:
        return Conclusion.NOT_ENOUGH_DATA, "no time to first video was measured on both sides"
    if primary is None:
        return (
            Conclusion.NOT_ENOUGH_DATA,
            f"{metric.key}: {missing.get(metric.key, 'not compared')}",
        )
    if not least:
        return (
            Conclusion.NOT_ENOUGH_DATA,
            f"the median of {metric.key} is 0, of which no share can be taken: "
            "give the least change as an amount",
        )
    sign = -1.0 if metric.better == "higher" else 1.0
    worse = sign * primary.found.estimate
    low, high = sorted((sign * primary.found.low, sign * primary.found.high))
    if low > 0.0 and worse >= least:
        return Conclusion.REGRESSION, "it became worse, by at least the least change that matters"
    if high < 0.0:
        return Conclusion.BETTER, "it became better"
    if high < least:
        return Conclusion.SAME, "a change as large as the least that matters is ruled out"
    return (
        Conclusion.NOT_ENOUGH_DATA,
        "neither a regression nor its absence is proved: to tell the least change that matters "
        f"from none takes about {needed} turns a side, there are {primary.n[0]} and {primary.n[1]}",
    )


def _made_up(result: Result) -> bool:
    return result.synthetic or result.facts.model == MOCK_MODEL


def _failures(before: Result, after: Result) -> Failures:
    (failed, of), (failed_after, of_after) = (
        (
            sum(count for outcome, count in result.outcomes.items() if outcome in FAILURES),
            sum(result.outcomes.values()),
        )
        for result in (before, after)
    )
    p = more_failures(failed, of, failed_after, of_after) if of and of_after else 1.0
    return Failures((failed, of), (failed_after, of_after), p)


# --- stages --------------------------------------------------------------------------------


def _enough(before: Result, after: Result, stage: Stage) -> bool:
    return all(_count(r.turns[stage.key]) >= SMALLEST_SIDE for r in (before, after))


def _changes(
    before: Result, after: Result, metric: Stage | None
) -> tuple[dict[str, Change], dict[str, str]]:
    found: dict[str, tuple[StageResult, StageResult, Shift]] = {}
    missing: dict[str, str] = {}
    ours = {**before.sessions, **before.turns}
    theirs = {**after.sessions, **after.turns}
    for key, one in ours.items():
        other = theirs[key]
        for side in (one, other):
            if isinstance(side.statistics, Missing):
                missing[key] = side.statistics.reason
                break
        else:
            most = METRIC_SIDE if one.stage is metric else SIDE
            a, b = (_sample(side, most) for side in (one, other))
            if min(len(a), len(b)) < SMALLEST_SIDE:
                missing[key] = (
                    f"{len(a)} and {len(b)} values; fewer than {SMALLEST_SIDE} a side prove nothing"
                )
            else:
                found[key] = one, other, shift(a, b)
    corrected = holm({key: shifted.p for key, (_, _, shifted) in found.items()})
    changes = {
        key: Change(
            stage=one.stage,
            n=(_count(one), _count(other)),
            median=(_median(one), _median(other)),
            found=shifted,
            p=corrected[key],
        )
        for key, (one, other, shifted) in found.items()
    }
    return changes, missing


def _median(side: StageResult) -> float:
    """Of drift, that of its magnitude."""
    if side.stage.is_signed or isinstance(side.statistics, Missing):
        return statistics.median(_sample(side, METRIC_SIDE))
    return side.statistics.median


def _sample(side: StageResult, most: int) -> list[float]:
    if side.values is None:
        return []
    values = side.values.sample(most)
    return [abs(value) for value in values] if side.stage.is_signed else values


def _count(side: StageResult) -> int:
    return side.values.n if side.values else 0


# --- attribution ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mean:
    mean: float
    variance_of_mean: float


def _attribute(before: Result, after: Result, metric: Stage) -> Attribution | Missing:
    inside = _inside(metric)
    known = [stage for stage in inside if _mostly_known(before, after, stage, metric)]
    if not known:
        return Missing(
            f"no stage inside {metric.key} was measured in most turns of both sides"
            if inside
            else f"{metric.key} is not made of stages"
        )
    keys = [stage.key for stage in known]
    sides = [_means(result, metric.key, keys) for result in (before, after)]
    (n, a), (m, b) = sides
    if min(n, m) < SMALLEST_SIDE:
        return Missing(f"fewer than {SMALLEST_SIDE} turns a side have {metric.key} and its stages")
    total = b[0].mean - a[0].mean
    z = statistics.NormalDist().inv_cdf(1.0 - _ALPHA / (len(known) + 1))
    parts = []
    for stage, x, y in zip([*known, None], a[1:], b[1:], strict=True):
        change = y.mean - x.mean
        half = z * math.sqrt(x.variance_of_mean + y.variance_of_mean)
        share = change / total if total else 0.0
        parts.append(Part(stage, change, change - half, change + half, share))
    return Attribution(total, (n, m), tuple(sorted(parts, key=lambda part: -part.share)))


def _inside(metric: Stage) -> list[Stage]:
    """The elementary stages of a turn between the metric's two marks."""
    if metric.start is None or metric.end is None or metric.kind is not Kind.COMPOSITE:
        return []
    order = {mark: place for place, mark in enumerate(stages.MARKS)}
    first, last = order[metric.start], order[metric.end]
    return [
        stage
        for stage in stages.turn_intervals()
        if stage.kind is Kind.ELEMENTARY
        and stage.start is not None
        and stage.end is not None
        and order[stage.start] >= first
        and order[stage.end] <= last
    ]


def _mostly_known(before: Result, after: Result, stage: Stage, metric: Stage) -> bool:
    return all(
        _count(result.turns[stage.key]) >= 0.9 * _count(result.turns[metric.key])
        for result in (before, after)
    )


def _means(result: Result, total: str, keys: Sequence[str]) -> tuple[int, list[_Mean]]:
    """Turns that count, and the means of the metric, of each stage, and of the time between."""
    if result.table is not None:
        rows = [(*row, row[0] - sum(row[1:])) for row in result.table.row_sums(keys, total)]
        columns = zip(*rows, strict=True) if rows else ()
        return len(rows), [_mean_of(column) for column in columns] or [_Mean(0.0, 0.0)] * (
            len(keys) + 2
        )
    found = []
    for key in (total, *keys):
        values = result.turns[key].values
        assert values is not None, "a stage that is mostly known has values"
        spread = _mean_of(values.sample(SIDE))
        found.append(_Mean(values.mean(), spread.variance_of_mean * min(values.n, SIDE) / values.n))
    between = found[0].mean - sum(one.mean for one in found[1:])
    # Of the time between, a histogram tells no spread: the metric's own is not exceeded by it.
    return _count(result.turns[total]), [*found, _Mean(between, found[0].variance_of_mean)]


def _mean_of(column: Sequence[float]) -> _Mean:
    mean = math.fsum(column) / len(column)
    if len(column) < 2:
        return _Mean(mean, math.inf)
    variance = math.fsum((value - mean) ** 2 for value in column) / (len(column) - 1)
    return _Mean(mean, variance / len(column))


# --- settings ------------------------------------------------------------------------------


def mismatches(before: Result, after: Result) -> tuple[str, ...]:
    """In what the two settings differ, besides date and revisions, in words."""
    one, other = before.facts, after.facts
    pairs: dict[str, tuple[object, object]] = {
        "model": (one.model, other.model),
        "backend": (one.backend, other.backend),
        "hardware": (one.hardware, other.hardware),
        "driver": (one.driver, other.driver),
        "operating system": (one.os, other.os),
        "CPUs": (one.cpus, other.cpus),
        "mode": (one.mode, other.mode),
        "avatar": (one.avatar, other.avatar),
        "weights": (one.weights, other.weights),
        "quantization": (one.quantization, other.quantization),
        "caching": (one.caching, other.caching),
        "kind of input": (one.input, other.input),
        "prompt": (one.prompt, other.prompt),
        "audio": (one.audio, other.audio),
        "resolution": (before.video.resolution, after.video.resolution),
        "frame rate": (before.video.fps, after.video.fps),
        "chunk size": (before.video.chunk_ms, after.video.chunk_ms),
        "stand-ins": (", ".join(before.stand_ins), ", ".join(after.stand_ins)),
    }
    return tuple(
        f"{name}: {_shown(a)} → {_shown(b)}" for name, (a, b) in pairs.items() if _differ(a, b)
    )


def _differ(a: object, b: object) -> bool:
    return a != b and not (isinstance(a, Missing) and isinstance(b, Missing))


def _shown(value: object) -> str:
    return "unknown" if isinstance(value, Missing) else str(value) or "none"
