"""Recording rules: what alerts and long ranges need again and again, once.

What goes out: groups of Prometheus recording rules. For each stage that is watched for
regressions they hold the mean, the median and the number of steady turns of the last ten minutes
and of the last hour, a baseline from the same hour of the previous days, and how far the recent
mean usually strays from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from exporter import stages
from exporter.stages import Stage
from grafana.queries import BY_TARGET, family, increase, mean, quantile, steady

WATCHED: Final = (stages.PERCEIVED_TTFV, stages.TTFV, stages.PERCEIVED_TTFA, stages.TTFA)
"""Stages whose regressions alert: both TTFVs and both TTFAs."""

HOUR: Final = "1h"

DAYS: Final = 7
"""Days that the baseline looks back: a whole week, so that every type of day is in it."""

DAYTYPES: Final = {
    "weekend": "day_of_week() == 0 or day_of_week() == 6",
    "weekday": "day_of_week() > 0 and day_of_week() < 6",
}
"""A Monday is not compared with its Sunday, nor a Saturday with its Friday (days in UTC)."""

BASELINE_RANK: Final = 0.8
"""Quantile over those days. The slow ones decide, so that an ordinary slow day is no alarm, and
still one bad day in a week does not become the norm."""

NOISE_WINDOW: Final = "1d"
"""Over which the usual scatter is taken of the recent mean around its baseline."""

NOISE_SAMPLES: Final = 360
"""Evaluations, one a minute, before that scatter counts as known."""

BASELINE_TURNS: Final = 50
"""Turns that an hour needs before it may speak for its day."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What "recent" means, and how often it is looked at: shorter ones prove the chain sooner."""

    recent: str = "10m"
    turns: int = 20
    """Turns that the recent window needs before it may alert."""
    recent_every: str = "15s"
    baseline_every: str = "1m"
    """A baseline moves with the hours, so it is not worth evaluating often."""
    lasts: str = "1m"
    """How long a regression must hold before it alerts."""
    keeps: str = "10m"
    """How long it goes on alerting after it no longer holds."""


SHIPPED: Final = Windows()


def recent(stage: Stage, statistic: str, windows: Windows = SHIPPED) -> str:
    """Name of a series over the recent window: `turns`, `mean`, `p50` or `p95`."""
    return name(stage, f"{statistic}_{windows.recent}")


def name(stage: Stage, what: str) -> str:
    """Name of a recorded series: talkscope:FAMILY:WHAT."""
    return f"talkscope:{family(stage)}:{what}"


def groups(windows: Windows = SHIPPED) -> list[dict[str, Any]]:
    """The rule groups, as Prometheus' rule files have them."""
    recent_rules, baseline_rules = list(_recent(windows)), list(_baseline(windows))
    return [
        {"name": "talkscope-recent", "interval": windows.recent_every, "rules": recent_rules},
        {"name": "talkscope-baseline", "interval": windows.baseline_every, "rules": baseline_rules},
    ]


def _recent(windows: Windows) -> Iterator[dict[str, str]]:
    for stage in WATCHED:
        over = (stage, steady(), windows.recent, BY_TARGET)
        values = {
            "turns": increase(stage, "count", *over[1:]),
            "mean": mean(*over),
            "p50": quantile(0.5, *over),
            "p95": quantile(0.95, *over),
        }
        for statistic, expression in values.items():
            yield _record(recent(stage, statistic, windows), expression)


def _baseline(windows: Windows) -> Iterator[dict[str, Any]]:
    for stage in WATCHED:
        turns = increase(stage, "count", steady(), HOUR, BY_TARGET)
        enough = f"and ({turns}) >= {BASELINE_TURNS}"
        values = {
            "mean": f"({mean(stage, steady(), HOUR, BY_TARGET)}) {enough}",
            "p50": f"{quantile(0.5, stage, steady(), HOUR, BY_TARGET)} {enough}",
        }
        for statistic, expression in values.items():
            for kind, today in DAYTYPES.items():
                yield {
                    "record": name(stage, f"{statistic}_1h"),
                    "expr": f"({expression}) and on () ({today})",
                    "labels": {"daytype": kind},
                }
        for statistic in values:
            hourly = name(stage, f"{statistic}_1h")
            yield _record(name(stage, f"{statistic}_baseline"), _same_hour(hourly))
        ratio = name(stage, "mean_ratio")
        yield _record(ratio, f"{recent(stage, 'mean', windows)} / {name(stage, 'mean_baseline')}")
        # Half the distance of these quantiles is a normal distribution's standard deviation, and
        # an incident of an hour or two in the window does not widen it.
        high, low = (f"quantile_over_time({q}, {ratio}[{NOISE_WINDOW}])" for q in (0.84, 0.16))
        known = f"count_over_time({ratio}[{NOISE_WINDOW}]) >= {NOISE_SAMPLES}"
        yield _record(name(stage, "mean_noise"), f"({high} - {low}) / 2 and {known}")


def _same_hour(hourly: str) -> str:
    """The hour around this time of day on previous days of today's type, else on all of them."""
    alike = [f"({_of_days(hourly, kind)} and on () ({today}))" for kind, today in DAYTYPES.items()]
    return " or ".join([*alike, _of_days(hourly)])


def _of_days(hourly: str, kind: str = "") -> str:
    selector = f'{{daytype="{kind}"}}' if kind else ""
    # The hour that ends half an hour later than this time of day is centred on it.
    days = [
        f'label_replace({hourly}{selector} offset {24 * day - 1}h30m, "day", "{day}", "", "")'
        for day in range(1, DAYS + 1)
    ]
    return f"quantile by ({BY_TARGET}) ({BASELINE_RANK}, {' or '.join(days)})"


def _record(series: str, expression: str) -> dict[str, str]:
    return {"record": series, "expr": expression}
