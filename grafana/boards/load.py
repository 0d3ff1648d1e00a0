"""A load test: what its viewers got, beside how the generator itself was doing."""

from __future__ import annotations

from typing import Any

from exporter import stages
from exporter.stages import Stage
from grafana import alerts, names, panels
from grafana.panels import HALF, QUARTER, THIRD, Query, graph, number
from grafana.queries import COUNTED, RATE, added

CHOSEN = 'scenario=~"$scenario"'

LAG_LIMIT_S, CPU_LIMIT, SCHEDULE_LIMIT_S = 0.010, 0.70, 0.100
"""Where the generator flags a window of its own (loadgen/load/verdict.py)."""


def dashboard() -> Any:
    """A slow target told from a slow generator."""
    board = panels.board(
        "talkscope-load",
        "Talkscope: load test",
        "What the viewers of a load test got, and whether the generator itself kept up.",
    )
    board = board.with_variable(
        panels.variable("scenario", "Scenario", f"label_values({names.VISITS}, scenario)")
    )
    return panels.lay_out(
        board,
        [
            ("Can it be believed?", _verdict()),
            ("Load", _load()),
            ("What viewers got", _viewers()),
            ("The generator itself", _health()),
        ],
    )


def _flagged_share() -> str:
    """Of each worker, 0 included: a sign that never was has no series."""
    windows = f"max by (instance) (increase({names.WINDOWS}[15m]))"
    return f"{alerts.flagged_share('15m')} or 0 * {windows}"


def _verdict() -> list[Any]:
    return [
        number(
            "Windows flagged",
            Query(f"max({_flagged_share()})"),
            unit=panels.SHARE,
            meaning="Of the worker that fared worst: share of five-second windows of the last 15 "
            "minutes in which it was late itself.",
            bad="above a tenth: the figures are the generator's, not the target's.",
            width=QUARTER,
            limits=(0.01, alerts.FLAGGED_SHARE),
        ),
        number(
            "Viewers",
            Query(f'sum({names.SESSIONS}{{state="open"}})'),
            unit=panels.NUMBER,
            meaning="Sessions that are open just now, over all workers.",
            bad="fewer than asked for: they are refused, or the generator is late.",
            width=QUARTER,
        ),
        number(
            "Datagrams dropped here",
            Query(f"sum(increase({names.DATAGRAMS_DROPPED}[15m]))"),
            unit=panels.NUMBER,
            meaning="Media that reached the generator's machine and found its buffers full.",
            bad="any: freezes and frame rates are the generator's fault.",
            width=QUARTER,
            limits=(1.0, 10.0),
        ),
        number(
            "Sessions left behind",
            Query(f"sum({names.ORPHANS})"),
            unit=panels.NUMBER,
            meaning="Sessions that could not be deleted; they hold the target's memory.",
            bad="any.",
            width=QUARTER,
            limits=(1.0, 10.0),
        ),
    ]


def _load() -> list[Any]:
    return [
        graph(
            "Sessions",
            Query(f"sum by (state) ({names.SESSIONS})", "{{state}}"),
            unit=panels.NUMBER,
            meaning="Sessions of all workers, by state.",
            bad="a plateau below what was asked for.",
            width=THIRD,
        ),
        graph(
            "Turns by outcome",
            Query(added(names.TURNS, "outcome", CHOSEN), "{{outcome}}"),
            unit=panels.NUMBER,
            meaning=f"How the viewers' turns ended. {COUNTED}",
            bad="anything but completed and interrupted.",
            width=THIRD,
            stacked=True,
        ),
        graph(
            "Visits, and what became of them",
            Query(added(names.VISITS, "", CHOSEN), "begun"),
            Query(added(names.VISITS_FAILED, "cause", CHOSEN), "failed: {{cause}}"),
            Query(added(names.REFUSALS, "status"), "put off: HTTP {{status}}"),
            unit=panels.NUMBER,
            meaning=f"Visits begun, failed by cause, and put off by the target. {COUNTED}",
            bad="failures; refusals mean that the target is full and says so.",
            width=THIRD,
        ),
    ]


def _of_viewers(stage: Stage, unit: str, bad: str, limit: float | None = None) -> Any:
    tail = 0.05 if stage.better == "higher" else 0.95
    buckets = f"sum by (le) (rate({names.of_viewers(stage)}_bucket{{{CHOSEN}}}[{RATE}]))"
    return graph(
        stage.title[:1].upper() + stage.title[1:],
        *(Query(f"histogram_quantile({q}, {buckets})", f"p{100 * q:.0f}") for q in (0.5, tail)),
        unit=unit,
        meaning=f"{stage.meaning} As this test's viewers saw it.",
        bad=bad,
        width=THIRD,
        limits=() if limit is None else (limit,),
    )


def _viewers() -> list[Any]:
    return [
        _of_viewers(
            stages.SESSION_CREATE,
            panels.SECONDS,
            "rising with the number of sessions. In the open model it counts from when the "
            "visit was due.",
        ),
        _of_viewers(stages.WEBRTC_FIRST_FRAME, panels.SECONDS, "rising with the load."),
        _of_viewers(
            stages.PERCEIVED_TTFA,
            panels.SECONDS,
            "p95 above the dashed objective.",
            alerts.SLO_TTFA_S,
        ),
        _of_viewers(
            stages.PERCEIVED_TTFV,
            panels.SECONDS,
            "p95 above the dashed objective.",
            alerts.SLO_TTFV_S,
        ),
        _of_viewers(stages.PLAYBACK_FPS, panels.FPS, "p5 below 25: some viewers see a stutter."),
        _of_viewers(stages.AV_DRIFT, panels.SECONDS, "p95 above 45 ms.", alerts.DRIFT_WARN_S[0]),
    ]


def _health() -> list[Any]:
    def level(title: str, family: str, unit: str, meaning: str, limit: float) -> Any:
        return graph(
            title,
            Query(family, "{{instance}}"),
            unit=unit,
            meaning=f"{meaning} Of each worker, in its last five seconds.",
            bad="above the dashed limit, from which on results were wrong.",
            width=QUARTER,
            limits=(limit,),
        )

    return [
        level(
            "Event-loop lag, p99",
            names.LOOP_LAG,
            panels.SECONDS,
            "How late the receiving loop ran its timers.",
            LAG_LIMIT_S,
        ),
        level(
            "From the kernel to the handler, p99",
            names.KERNEL_DELAY,
            panels.SECONDS,
            "How long datagrams waited for this program.",
            LAG_LIMIT_S,
        ),
        level(
            "CPU of the receiving thread",
            names.LOOP_CPU,
            panels.SHARE,
            "Share of one core.",
            CPU_LIMIT,
        ),
        level(
            "Schedule delay, p99",
            names.SCHEDULE_DELAY,
            panels.SECONDS,
            "How much later than planned inputs were given.",
            SCHEDULE_LIMIT_S,
        ),
        graph(
            "Windows flagged, by sign",
            Query(f"sum by (flag) (increase({names.WINDOWS_FLAGGED}[1m]))", "{{flag}}"),
            Query(f"sum(increase({names.WINDOWS}[1m]))", "windows"),
            unit=panels.NUMBER,
            meaning="Windows of five seconds in which a worker was late itself, in a minute.",
            bad="more than a tenth of the windows: add workers.",
            width=HALF,
        ),
        graph(
            "CPU of the processes",
            Query(names.PROCESS_CPU, "{{instance}}"),
            unit=panels.SHARE,
            meaning="All threads of each worker, share of one core.",
            bad="near 100 %: one worker uses one core, so add workers.",
            width=HALF,
        ),
    ]
