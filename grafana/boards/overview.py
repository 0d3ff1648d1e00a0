"""Is it healthy? What a viewer feels, how many there are, and what goes wrong."""

from __future__ import annotations

from typing import Any

from exporter import gauges, stages
from exporter.stages import Stage
from grafana import alerts, names, panels, rules
from grafana.boards import variables
from grafana.panels import HALF, QUARTER, Query, distribution, graph, number
from grafana.queries import (
    COUNTED,
    RATE,
    TARGET_VARIABLES,
    added,
    buckets,
    chosen,
    family,
    off_zero,
    quantile,
)

TURNS = f"{gauges.TURNS.family}_total{{{TARGET_VARIABLES}}}"


def dashboard() -> Any:
    """The first dashboard to look at."""
    board = panels.board(
        "talkscope-overview",
        "Talkscope: overview",
        "Is the deployment healthy? Time to first audio and video, sessions, frame rate, drift.",
    )
    return panels.lay_out(
        variables.of_turns(board),
        [
            ("Now", _now()),
            ("What a viewer feels", _viewer()),
            ("Against the previous days", _history()),
            ("Sessions and errors", _sessions()),
            ("What is seen at all", _sources()),
        ],
    )


def _now() -> list[Any]:
    sessions = gauges.SESSIONS.family
    fps = family(stages.PLAYBACK_FPS)
    return [
        number(
            "Perceived TTFV p95",
            Query(quantile(0.95, stages.PERCEIVED_TTFV, chosen(stages.PERCEIVED_TTFV), "5m")),
            unit=panels.SECONDS,
            meaning=stages.PERCEIVED_TTFV.meaning + " Last five minutes.",
            bad="red: one turn in twenty shows its first talking frame after the objective.",
            limits=(0.8 * alerts.SLO_TTFV_S, alerts.SLO_TTFV_S),
        ),
        number(
            "Perceived TTFA p95",
            Query(quantile(0.95, stages.PERCEIVED_TTFA, chosen(stages.PERCEIVED_TTFA), "5m")),
            unit=panels.SECONDS,
            meaning=stages.PERCEIVED_TTFA.meaning + " Last five minutes.",
            bad="red: one turn in twenty is heard after the objective.",
            limits=(0.8 * alerts.SLO_TTFA_S, alerts.SLO_TTFA_S),
        ),
        number(
            "Live sessions",
            Query(f"sum({sessions})"),
            unit=panels.NUMBER,
            meaning="Sessions that live just now, whatever they do.",
            bad="a sudden fall to zero while users are there.",
        ),
        number(
            "Playback",
            Query(
                f"sum(increase({fps}_sum{{{TARGET_VARIABLES}}}[5m])) "
                f"/ sum(increase({fps}_count{{{TARGET_VARIABLES}}}[5m]))"
            ),
            unit=panels.FPS,
            meaning="Frames a second that reached viewers while the avatar spoke.",
            bad="under the nominal 25: the picture stutters.",
            limits=(0.9 * alerts.NOMINAL_FPS, 0.98 * alerts.NOMINAL_FPS),
            high_is_good=True,
        ),
        number(
            "A/V drift, median",
            Query(f'{gauges.LIVE_DRIFT.family}{{statistic="median"}}'),
            unit=panels.SECONDS,
            meaning="Median drift of live sessions; positive: sound early (ITU-R BT.1359).",
            bad="beyond +45 or −125 ms people notice, beyond +90 or −185 ms they object.",
        ),
        number(
            "Turns that ended badly",
            Query(
                f"1 - sum(increase({gauges.TURNS.family}_total"
                f'{{{TARGET_VARIABLES}, outcome=~"completed|interrupted"}}[15m])) '
                f"/ sum(increase({TURNS}[15m]))"
            ),
            unit=panels.SHARE,
            meaning="Failed, vanished, without media or timed out, of the last 15 minutes.",
            bad="more than one in a hundred.",
            limits=(0.01, 0.05),
        ),
    ]


def _times(stage: Stage, title: str, limit: float | None = None) -> Any:
    return graph(
        title,
        *(
            Query(quantile(q, stage, chosen(stage), RATE), f"p{100 * q:.0f}", exemplars=True)
            for q in (0.5, 0.95, 0.99)
        ),
        unit=panels.SECONDS,
        meaning=f"{stage.meaning} Measured: {stage.boundaries}. Points are turns: click for the "
        "trace.",
        bad="p95 above the dashed objective, or p50 rising with p95: everybody waits longer.",
        limits=() if limit is None else (limit,),
    )


def _viewer() -> list[Any]:
    fps, drift = stages.PLAYBACK_FPS, stages.AV_DRIFT
    return [
        _times(stages.PERCEIVED_TTFV, "Perceived TTFV", alerts.SLO_TTFV_S),
        _times(stages.PERCEIVED_TTFA, "Perceived TTFA", alerts.SLO_TTFA_S),
        _times(stages.TTFV, "TTFV on the server (from the first PCM)"),
        _times(stages.TTFA, "TTFA on the server"),
        distribution(
            "Distribution of the perceived TTFV",
            Query(
                buckets(stages.PERCEIVED_TTFV, chosen(stages.PERCEIVED_TTFV), RATE), exemplars=True
            ),
            unit=panels.SECONDS,
            meaning=stages.PERCEIVED_TTFV.meaning,
            bad="a second band above the first: some turns wait for something the others do not.",
        ),
        graph(
            "Playback",
            Query(quantile(0.05, fps, chosen(fps), RATE), "p5"),
            Query(quantile(0.5, fps, chosen(fps), RATE), "p50"),
            Query(gauges.LIVE_PLAYBACK_FPS.family, "live, {{statistic}}"),
            unit=panels.FPS,
            meaning=f"{fps.meaning} The slowest twentieth, and the median.",
            bad="p5 below 25: some viewers see a stutter.",
            width=QUARTER,
        ),
        graph(
            "A/V drift",
            Query(f"{gauges.LIVE_DRIFT.family}", "{{statistic}}"),
            Query(
                f"histogram_quantile(0.95, {buckets(drift, chosen(drift), RATE, 'leads')})",
                "p95, {{leads}} early",
            ),
            unit=panels.SECONDS,
            meaning=f"{drift.meaning} Lines without a sign are magnitudes.",
            bad="outside +45/−125 ms (noticeable) or +90/−185 ms (objectionable), ITU-R BT.1359.",
            width=QUARTER,
            limits=(0.045, 0.09),
            signed=True,
        ),
    ]


def _history() -> list[Any]:
    return [
        graph(
            f"{stage.title}: mean of ten minutes",
            Query(rules.recent(stage, "mean") + f"{{{TARGET_VARIABLES}}}", "{{model}}"),
            Query(
                rules.name(stage, "mean_baseline") + f"{{{TARGET_VARIABLES}}}",
                "{{model}}, same hour of previous days",
            ),
            unit=panels.SECONDS,
            meaning="Steady turns, beside what the same hour of the previous seven days was like.",
            bad=f"{rules.SHIPPED.recent} mean more than {alerts.REGRESSION_MEAN - 1:.0%} above its "
            "past.",
            width=HALF,
        )
        for stage in (stages.PERCEIVED_TTFV, stages.TTFV)
    ]


def _sessions() -> list[Any]:
    freezes, frozen = f"{stages.FREEZES.family}_total", f"{stages.FROZEN.family}_total"
    return [
        graph(
            "Live sessions",
            Query(f"sum by (state) ({gauges.SESSIONS.family})", "{{state}}"),
            unit=panels.NUMBER,
            meaning="Sessions by what they do just now.",
            bad="a growing band of queued ones: the deployment is full.",
            width=QUARTER,
            stacked=True,
        ),
        graph(
            "Turns by outcome",
            Query(f"sum by (outcome) (rate({TURNS}[{RATE}]))", "{{outcome}}"),
            unit=panels.PER_SECOND,
            meaning="How turns ended.",
            bad="anything but completed and interrupted.",
            width=QUARTER,
            stacked=True,
        ),
        graph(
            "Errors by code",
            Query(
                off_zero(added(f"{gauges.ERRORS.family}_total", "code"), "code"),
                "{{code}}",
            ),
            unit=panels.NUMBER,
            meaning=f"Turns that ended with an error, by its code. {COUNTED}",
            bad="any line off zero.",
            width=QUARTER,
            reach=1.0,
        ),
        graph(
            "Freezes",
            Query(added(freezes, "", TARGET_VARIABLES), "freezes"),
            Query(added(frozen, "", TARGET_VARIABLES), "seconds frozen"),
            unit=panels.NUMBER,
            meaning=f"{stages.FREEZES.meaning} {COUNTED}",
            bad="any line off zero.",
            width=QUARTER,
            reach=1.0,
        ),
    ]


def _sources() -> list[Any]:
    agent = (
        (gauges.AGENT_DROPPED, "dropped"),
        (gauges.AGENT_REFUSED, "refused"),
        (gauges.AGENT_FAILURES, "hooks failed"),
    )
    return [
        graph(
            "Sources",
            Query(names.SOURCE_UP, "{{source}}"),
            unit=panels.NUMBER,
            meaning="Whether the exporter can read each of its sources (1) or not (0).",
            bad="0 of a source that was there: what it tells is missing.",
            width=QUARTER,
        ),
        graph(
            "Input that was lost",
            Query(off_zero(added(names.SOURCE_GAPS, "source"), "source"), "gaps: {{source}}"),
            Query(
                off_zero(added(names.SOURCE_DROPPED, "source, cause"), "source"),
                "dropped: {{source}} {{cause}}",
            ),
            unit=panels.NUMBER,
            meaning=f"Interruptions of a source, and input that could not be used. {COUNTED}",
            bad="any line off zero.",
            width=QUARTER,
            reach=1.0,
        ),
        graph(
            "The agents' losses",
            *(
                Query(added(f"{count.family}_total", "role"), f"{{{{role}}}} {what}")
                for count, what in agent
            ),
            unit=panels.NUMBER,
            meaning="Records that agents could not queue or the exporter refused; hooks that "
            f"failed and were caught. {COUNTED} Needs the agent.",
            bad="any line off zero.",
            width=QUARTER,
            reach=1.0,
        ),
        graph(
            "Open turns",
            Query(names.OPEN_TURNS, "{{instance}}"),
            unit=panels.NUMBER,
            meaning="Turns that are not finished.",
            bad="growth: turns begin and do not end.",
            width=QUARTER,
        ),
    ]
