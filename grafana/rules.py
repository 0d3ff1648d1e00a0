"""Recording rules: what alerts and long ranges need again and again, once.

What goes out: groups of Prometheus recording rules. For each stage that is watched for
regressions they hold the mean, the median and the number of steady turns of the last ten minutes
and of the last hour, and a baseline from the same hour of the previous days.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from exporter import stages
from exporter.stages import Stage
from grafana.queries import BY_TARGET, family, increase, mean, quantile, steady

WATCHED: Final = (stages.PERCEIVED_TTFV, stages.TTFV, stages.PERCEIVED_TTFA, stages.TTFA)
"""Stages whose regressions alert: both TTFVs and both TTFAs."""

RECENT: Final = "10m"
HOUR: Final = "1h"

DAYS: Final = 7
"""Days that the baseline looks back: a whole week, so that weekends and weekdays are both in it."""

BASELINE_RANK: Final = 0.8
"""Quantile over the days. The slow days decide (a Monday is not compared with its Sunday), and
still one bad day in a week does not become the norm."""

BASELINE_TURNS: Final = 50
"""Turns that an hour needs before it may speak for its day."""


def name(stage: Stage, what: str) -> str:
    """Name of a recorded series: talkscope:FAMILY:WHAT."""
    return f"talkscope:{family(stage)}:{what}"


def groups() -> list[dict[str, Any]]:
    """The rule groups, as Prometheus' rule files have them."""
    return [
        {"name": "talkscope-recent", "interval": "15s", "rules": list(_recent())},
        # A baseline moves with the hours, so it is not worth evaluating often.
        {"name": "talkscope-baseline", "interval": "1m", "rules": list(_baseline())},
    ]


def _recent() -> Iterator[dict[str, str]]:
    for stage in WATCHED:
        yield _record(
            name(stage, "turns_10m"), increase(stage, "count", steady(), RECENT, BY_TARGET)
        )
        yield _record(name(stage, "mean_10m"), mean(stage, steady(), RECENT, BY_TARGET))
        yield _record(name(stage, "p50_10m"), quantile(0.5, stage, steady(), RECENT, BY_TARGET))
        yield _record(name(stage, "p95_10m"), quantile(0.95, stage, steady(), RECENT, BY_TARGET))


def _baseline() -> Iterator[dict[str, str]]:
    for stage in WATCHED:
        turns = increase(stage, "count", steady(), HOUR, BY_TARGET)
        enough = f"and ({turns}) >= {BASELINE_TURNS}"
        values = {
            "mean": f"({mean(stage, steady(), HOUR, BY_TARGET)}) {enough}",
            "p50": f"{quantile(0.5, stage, steady(), HOUR, BY_TARGET)} {enough}",
        }
        for statistic, expression in values.items():
            yield _record(name(stage, f"{statistic}_1h"), expression)
        for statistic in values:
            yield _record(
                name(stage, f"{statistic}_baseline"), _same_hour(name(stage, f"{statistic}_1h"))
            )


def _same_hour(series: str) -> str:
    """The hour around this time of day, on each of the previous days."""
    # The hour that ends half an hour later than this time of day is centred on it.
    days = [
        f'label_replace({series} offset {24 * day - 1}h30m, "day", "{day}", "", "")'
        for day in range(1, DAYS + 1)
    ]
    return f"quantile by ({BY_TARGET}) ({BASELINE_RANK}, {' or '.join(days)})"


def _record(series: str, expression: str) -> dict[str, str]:
    return {"record": series, "expr": expression}
