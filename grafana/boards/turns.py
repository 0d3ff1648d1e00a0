"""Turn anatomy: which stage the time goes into, with a way to the trace of a slow turn."""

from __future__ import annotations

from typing import Any

from exporter import stages
from exporter.stages import Instrument, Kind, Scope, Stage
from grafana import panels
from grafana.boards import variables
from grafana.panels import FULL, HALF, THIRD, Query, distribution, graph
from grafana.queries import RATE, buckets, chosen, family, mean, quantile

ELEMENTARY = tuple(
    stage
    for stage in stages.STAGES.values()
    if stage.kind is Kind.ELEMENTARY and stage.scope is Scope.TURN and not stage.unseen
)
"""What a turn's time is made of: neighbours that do not overlap."""

RATES = (stages.RENDER_FPS, stages.STEADY_CHUNK, stages.RTF)


def dashboard() -> Any:
    """Where a turn's time goes."""
    board = panels.board(
        "talkscope-turns",
        "Talkscope: turn anatomy",
        "Which stage a turn's time goes into. Points in a panel are turns: click for the trace.",
    )
    return panels.lay_out(
        variables.of_turns(board),
        [
            ("Where the time goes", _waterfall()),
            ("Distributions", [_distribution(stage) for stage in _watched()]),
            ("Stage by stage", [_stage(stage) for stage in ELEMENTARY]),
            ("Synthesis", [_stage(stage) for stage in RATES]),
            ("A session's beginning", [_stage(stage) for stage in _of_sessions()]),
        ],
    )


def _watched() -> tuple[Stage, ...]:
    return (stages.FIRST_TURN_TOTAL, stages.PERCEIVED_TTFV)


def _of_sessions() -> list[Stage]:
    return [
        stage
        for stage in stages.STAGES.values()
        if stage.scope is Scope.SESSION and stage.instrument is Instrument.HISTOGRAM
    ]


def _waterfall() -> list[Any]:
    return [
        graph(
            "Mean of each stage, stacked in a turn's order",
            *(Query(mean(stage, chosen(stage), RATE), stage.title) for stage in ELEMENTARY),
            unit=panels.SECONDS,
            meaning="The stages follow one another, so the height is the time to the first "
            "talking frame as far as its stages are seen.",
            bad="one band that grows while the others stay: that stage is the cause.",
            width=FULL,
            height=11,
            stacked=True,
        )
    ]


def _distribution(stage: Stage) -> Any:
    return distribution(
        f"Distribution of {stage.title}",
        Query(buckets(stage, chosen(stage), RATE), exemplars=True),
        unit=panels.SECONDS,
        meaning=f"{stage.meaning} Measured: {stage.boundaries}.",
        bad="a second band above the first, or a tail that reaches up.",
        width=HALF,
    )


def _unit(stage: Stage) -> str:
    return {
        stages.Unit.SECONDS: panels.SECONDS,
        stages.Unit.FRAMES_PER_SECOND: panels.FPS,
        stages.Unit.RATIO: panels.NUMBER,
    }[stage.unit]


def _stage(stage: Stage) -> Any:
    worse = "falling" if stage.better == "higher" else "rising"
    tail = 0.05 if stage.better == "higher" else 0.95
    limits = (1.0,) if family(stage) == stages.RTF.family else ()
    return graph(
        stage.title[:1].upper() + stage.title[1:],
        *(
            Query(quantile(q, stage, chosen(stage), RATE), f"p{100 * q:.0f}", exemplars=True)
            for q in (0.5, tail)
        ),
        unit=_unit(stage),
        meaning=f"{stage.meaning} Measured: {stage.boundaries}. Owner: {stage.owner}.",
        bad=f"p50 {worse} against an unchanged load. "
        + ("Above 1, synthesis is slower than playback." if limits else ""),
        width=THIRD,
        limits=limits,
    )
