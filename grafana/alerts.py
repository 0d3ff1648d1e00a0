"""Alerts, each defined once: for Prometheus and, provisioned, for Grafana.

What goes out: `ALERTS`, and their two renderings. Every alert has a page in `docs/runbooks/`.
Thresholds state their source. It must not know how alerts are delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from exporter import gauges, stages
from exporter.stages import Outcome, Stage
from grafana import names, rules
from grafana.queries import BY_TARGET, family, share_above

RUNBOOKS: Final = "https://github.com/talkscope/talkscope/blob/main/docs/runbooks"

REGRESSION_MEAN: Final = 1.08
"""Rise of the recent mean over its baseline that matters."""
REGRESSION_NOISE: Final = 3.3
"""How many times its usual scatter the rise must be as well. Turns that scatter by a fifth move
the mean of forty (probe traffic in ten minutes) by 3 %, and a week has a thousand such windows:
tests/grafana/test_week.py counts the false alarms."""
REGRESSION_BLIND: Final = 1.12
"""Rise that matters while the usual scatter is not known yet."""
REGRESSION_MEDIAN: Final = 1.05
"""The median has to rise too: a few stuck turns move a mean, and are no regression."""
BURN_TURNS: Final = 20
"""Turns that a window needs before its share of slow ones means something."""

SLO_TTFV_S: Final = 3.03
"""Objective of the perceived TTFV, seconds. An edge of the histogram's buckets, so that the share
of slow turns is counted and not interpolated."""
SLO_TTFA_S: Final = 2.07
SLO_SHARE: Final = 0.95
"""Share of turns that must meet it."""

DRIFT_WARN_S: Final = (0.045, -0.125)
DRIFT_PAGE_S: Final = (0.09, -0.185)
"""ITU-R BT.1359-1: thresholds of detectability and of acceptability; sound early, sound late."""

NOMINAL_FPS: Final = 25.0

PROBE: Final = 'job="talkscope-probe"'
"""Selector of the synthetic viewer's series; the job is of deploy/prometheus/prometheus.yml."""

FLAGGED_SHARE: Final = 0.1
"""Share of a generator's windows that may be flagged before it voids its run, and `FLAGGED_LEAST`
of them at the least: loadgen/load/verdict.py."""
FLAGGED_LEAST: Final = 1


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: what must hold, for how long, and what it says to whom."""

    name: str
    expr: str
    lasts: str
    """How long it must hold before it fires."""
    severity: str
    """`page`: a viewer suffers now; `warning`: somebody should look in working hours."""
    summary: str
    description: str
    runbook: str
    """Page in docs/runbooks/, without its suffix."""
    keeps: str = "0s"
    """How long it goes on firing after it no longer holds, so that it does not flap."""
    labels: dict[str, str] = field(default_factory=dict)


def regression(
    stage: Stage, alert: str, severity: str, windows: rules.Windows = rules.SHIPPED
) -> Alert:
    """The recent mean against the same hour of the previous days, of one stage."""
    ratio, noise = rules.name(stage, "mean_ratio"), rules.name(stage, "mean_noise")
    median, usual = rules.recent(stage, "p50", windows), rules.name(stage, "p50_baseline")
    turns = rules.recent(stage, "turns", windows)
    stands_out = (
        f"({ratio} > 1 + {REGRESSION_NOISE} * {noise} "
        f"or ({ratio} > {REGRESSION_BLIND} unless {noise}))"
    )
    return Alert(
        name=alert,
        expr=(
            f"{ratio} > {REGRESSION_MEAN} and {stands_out} "
            f"and {median} / {usual} > {REGRESSION_MEDIAN} "
            f"and {turns} >= {windows.turns}"
        ),
        lasts=windows.lasts,
        keeps=windows.keeps,
        severity=severity,
        summary=f"{stage.title} of {{{{ $labels.model }}}} is slower than on previous days",
        description=(
            f"The mean of the last {windows.recent} is {{{{ $value | humanize }}}} times that of "
            "the same hour of the previous days, and the median rose as well. Steady turns only."
        ),
        runbook="ttfv-regression",
    )


def _burn(stage: Stage, edge: float, alert: str) -> Iterator[Alert]:
    """Multiwindow, multi-burn-rate alerts: Google SRE workbook, chapter 5, table 5-8."""
    budget = 1.0 - SLO_SHARE
    for factor, long, short, lasts, severity in (
        (14.4, "1h", "5m", "2m", "page"),
        (6.0, "6h", "30m", "15m", "page"),
        (1.0, "3d", "6h", "1h", "warning"),
    ):
        limit = f"{min(factor * budget, 1.0):.3g}"
        over = [
            f"({share_above(stage, edge, '', window, BY_TARGET)}) > {limit}"
            for window in (long, short)
        ]
        count = f"{family(stage)}_count"
        enough = f"sum by ({BY_TARGET}) (increase({count}[{long}])) >= {BURN_TURNS}"
        yield Alert(
            name=f"{alert}{long}",
            expr=f"{over[0]} and {over[1]} and {enough}",
            lasts=lasts,
            severity=severity,
            summary=f"{stage.title} of {{{{ $labels.model }}}} uses up its error budget",
            description=(
                f"Over the last {long}, {{{{ $value | humanizePercentage }}}} of the turns took "
                f"longer than {edge:g} s, and over the last {short} as well; the objective allows "
                f"{budget:.0%}. At {factor:g} times the budget's rate."
            ),
            runbook="slo-burn",
            labels={"window": long},
        )


def _drift(limits: tuple[float, float], severity: str) -> Alert:
    early, late = limits
    level = gauges.LIVE_DRIFT.family
    median = f'{level}{{statistic="median"}}'
    return Alert(
        name="OpenTalkingLipSync" + ("Unacceptable" if severity == "page" else "Noticeable"),
        expr=f"{median} > {early} or {median} < {late}",
        lasts="2m",
        keeps="5m",
        severity=severity,
        summary="Lips and voice are apart",
        description=(
            "The median A/V drift of live sessions is {{ $value | humanizeDuration }} (positive: "
            f"sound early). ITU-R BT.1359-1 puts the limit at {1000 * early:+.0f} and "
            f"{1000 * late:+.0f} ms."
        ),
        runbook="av-drift",
    )


def _share_of_turns(outcome: Outcome, window: str) -> str:
    turns = f"{gauges.TURNS.family}_total"
    some = f'sum by ({BY_TARGET}) (increase({turns}{{outcome="{outcome.value}"}}[{window}]))'
    return f"{some} / sum by ({BY_TARGET}) (increase({turns}[{window}]))"


def _turns_lost(outcome: Outcome, alert: str, share: float, what: str, runbook: str) -> Alert:
    turns = f"{gauges.TURNS.family}_total"
    some = f'sum by ({BY_TARGET}) (increase({turns}{{outcome="{outcome.value}"}}[15m]))'
    return Alert(
        name=alert,
        expr=f"{_share_of_turns(outcome, '15m')} > {share} and {some} >= 3",
        lasts="1m",
        keeps="5m",
        severity="page",
        summary=f"Turns of {{{{ $labels.model }}}} {what}",
        description=(
            f"{{{{ $value | humanizePercentage }}}} of the turns of the last 15 minutes {what}."
        ),
        runbook=runbook,
    )


def _flagged(window: str) -> str:
    # A window may carry several flags, and counts once.
    return f"max by (instance) (increase({names.WINDOWS_FLAGGED}[{window}]))"


def flagged_share(window: str) -> str:
    """Of each generator: share (0 to 1) of its windows that are flagged for the commonest sign."""
    return f"{_flagged(window)} / max by (instance) (increase({names.WINDOWS}[{window}]))"


def _alerts() -> Iterator[Alert]:
    yield regression(stages.PERCEIVED_TTFV, "TTFVRegression", "page")
    yield regression(stages.TTFV, "ServerTTFVRegression", "warning")
    yield regression(stages.PERCEIVED_TTFA, "TTFARegression", "page")
    yield regression(stages.TTFA, "ServerTTFARegression", "warning")
    yield from _burn(stages.PERCEIVED_TTFV, SLO_TTFV_S, "TTFVBudgetBurn")
    yield from _burn(stages.PERCEIVED_TTFA, SLO_TTFA_S, "TTFABudgetBurn")
    yield _drift(DRIFT_WARN_S, "warning")
    yield _drift(DRIFT_PAGE_S, "page")
    fps = family(stages.PLAYBACK_FPS)
    rate = (
        f"sum by ({BY_TARGET}) (increase({fps}_sum[10m])) "
        f"/ sum by ({BY_TARGET}) (increase({fps}_count[10m]))"
    )
    yield Alert(
        name="PlaybackBelowNominal",
        expr=f"{rate} < {0.95 * NOMINAL_FPS:g} "
        f"and sum by ({BY_TARGET}) (increase({fps}_count[10m])) >= 5",
        lasts="2m",
        keeps="5m",
        severity="page",
        summary="{{ $labels.model }} plays slower than its nominal frame rate",
        description=(
            "Viewers got {{ $value | humanize }} frames a second while the avatar spoke, of "
            f"{NOMINAL_FPS:g}."
        ),
        runbook="fps",
    )
    queue, busy = gauges.QUEUE_LEVEL.family, gauges.ACCELERATOR_UTILIZATION.family
    yield Alert(
        name="HiddenQueue",
        expr=(
            f"sum(avg_over_time({queue}[5m])) > 2 "
            f"and sum(deriv({queue}[10m])) > 0 and avg(avg_over_time({busy}[5m])) < 0.5"
        ),
        lasts="5m",
        severity="warning",
        summary="Tasks wait while the accelerator idles",
        description=(
            "{{ $value | humanize }} tasks wait on average, ever more of them, and the "
            "accelerators are less than half busy: something else holds them up."
        ),
        runbook="hidden-queue",
    )
    yield Alert(
        name="AcceleratorMemoryForecast",
        expr=f'min by (device) ({gauges.VRAM_SESSIONS_LEFT.family}{{bound="lower"}}) < 2',
        lasts="5m",
        severity="warning",
        summary="Device {{ $labels.device }} has memory for hardly another session",
        description=(
            "At the memory that sessions have cost so far, {{ $value | humanize }} more fit "
            "(lower end of the 95 % interval)."
        ),
        runbook="vram",
    )
    yield Alert(
        name="AcceleratorLost",
        expr=f"{gauges.ACCELERATOR_HEALTHY.family} == 0",
        lasts="1m",
        severity="page",
        summary="Device {{ $labels.device }} is lost or faulty",
        description="Its management library says that it is not healthy.",
        runbook="accelerator",
    )
    yield _turns_lost(Outcome.VANISHED, "TurnsVanish", 0.01, "vanish", "turns-vanish")
    yield _turns_lost(Outcome.FAILED, "TurnsFail", 0.05, "fail", "turns-fail")
    yield _turns_lost(Outcome.NO_MEDIA, "TurnsWithoutMedia", 0.01, "play nothing", "turns-fail")
    yield Alert(
        name="TalkscopeExporterDown",
        expr=f'{names.UP}{{job="talkscope"}} == 0',
        lasts="1m",
        severity="page",
        summary="The exporter {{ $labels.instance }} cannot be scraped",
        description="Nothing is known of OpenTalking until it can be.",
        runbook="exporter-down",
    )
    yield Alert(
        name="TalkscopeSourceDown",
        # A source that never delivered is not there by intent, such as an accelerator.
        expr=f"{names.SOURCE_UP} == 0 and {names.SOURCE_SEEN} > 0",
        lasts="2m",
        severity="warning",
        summary="The exporter has lost its source {{ $labels.source }}",
        description="What that source tells is missing since; /readyz of the exporter says why.",
        runbook="source-down",
    )
    yield Alert(
        name="ProbeFailing",
        # A turn that was due and had no session has an outcome of its own.
        expr=(
            f'sum by (instance) (increase({names.PROBE_TURNS}{{outcome!="completed"}}[5m])) >= 3'
        ),
        lasts="0s",
        keeps="5m",
        severity="page",
        summary="The synthetic viewer gets no answer",
        description="{{ $value | humanize }} of its turns failed in the last 5 minutes.",
        runbook="probe",
    )
    yield Alert(
        name="ProbeSilent",
        expr=(
            f"{names.UP}{{{PROBE}}} == 0 or "
            f"sum by (instance) (increase({names.PROBE_TURNS}[5m])) == 0"
        ),
        lasts="2m",
        severity="warning",
        summary="The synthetic viewer has stopped",
        description="No turn for five minutes: quiet hours are not measured.",
        runbook="probe",
    )
    yield Alert(
        name="GeneratorSaturated",
        expr=f"{flagged_share('5m')} > {FLAGGED_SHARE} and {_flagged('5m')} > {FLAGGED_LEAST}",
        lasts="0s",
        keeps="1m",
        severity="warning",
        summary="The load generator is itself the bottleneck",
        description=(
            "It was late itself in {{ $value | humanizePercentage }} of the last five minutes: "
            "what it measures now does not count. Add workers."
        ),
        runbook="generator-saturated",
    )


ALERTS: Final[tuple[Alert, ...]] = tuple(_alerts())


def prometheus_group(chosen: Sequence[Alert] = ALERTS) -> dict[str, Any]:
    """The alerts as a group of Prometheus' rule files."""
    return {
        "name": "talkscope-alerts",
        "rules": [
            {
                "alert": alert.name,
                "expr": alert.expr,
                "for": alert.lasts,
                "keep_firing_for": alert.keeps,
                "labels": {"severity": alert.severity, **alert.labels},
                "annotations": _annotations(alert),
            }
            for alert in chosen
        ],
    }


def grafana_provisioning(datasource: str) -> dict[str, Any]:
    """The same alerts as Grafana's provisioning files have them (apiVersion 1)."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "talkscope",
                "folder": "Talkscope",
                "interval": "15s",
                "rules": [_grafana_rule(alert, datasource) for alert in ALERTS],
            }
        ],
    }


def _annotations(alert: Alert) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{RUNBOOKS}/{alert.runbook}.md",
    }


def _grafana_rule(alert: Alert, datasource: str) -> dict[str, Any]:
    return {
        "uid": "ts-" + hashlib.sha256(alert.name.encode()).hexdigest()[:16],
        "title": alert.name,
        "condition": "firing",
        "for": alert.lasts,
        "keepFiringFor": alert.keeps,
        # Prometheus' comparisons return nothing while all is well.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {
            name: text.replace("{{ $value", "{{ $values.value.Value")
            for name, text in _annotations(alert).items()
        },
        "data": [
            _query("value", alert.expr, datasource),
            # Grafana fires on a number other than 0, and a value of 0 may be what is wrong.
            _query("holds", f"count without (__none__) ({alert.expr})", datasource),
            {
                "refId": "firing",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "firing",
                    "type": "threshold",
                    "expression": "holds",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                },
            },
        ],
    }


def _query(name: str, expr: str, datasource: str) -> dict[str, Any]:
    return {
        "refId": name,
        "datasourceUid": datasource,
        "relativeTimeRange": {"from": 600, "to": 0},
        "model": {"refId": name, "expr": expr, "instant": True, "range": False},
    }
