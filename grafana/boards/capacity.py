"""How many can it serve? Sessions against what they get, queues, memory left."""

from __future__ import annotations

from typing import Any

from exporter import gauges, stages
from grafana import alerts, panels
from grafana.boards import variables
from grafana.panels import HALF, QUARTER, THIRD, Query, graph, number
from grafana.queries import RATE, TARGET_VARIABLES, chosen, quantile


def dashboard() -> Any:
    """Where the limit is, and how far away."""
    board = panels.board(
        "talkscope-capacity",
        "Talkscope: capacity",
        "Sessions against objectives, queues, event loops and the memory that is left.",
    )
    return panels.lay_out(
        variables.of_turns(board),
        [
            ("Load and what it does", _load()),
            ("Queues", _queues()),
            ("OpenTalking's processes", _processes()),
            ("Synthesis backend, by its own count", _backend()),
            ("Accelerator memory", _memory()),
        ],
    )


def _load() -> list[Any]:
    ttfv, fps = stages.PERCEIVED_TTFV, stages.PLAYBACK_FPS
    return [
        graph(
            "Live sessions",
            Query(f"sum by (state) ({gauges.SESSIONS.family})", "{{state}}"),
            unit=panels.NUMBER,
            meaning="Sessions by what they do just now.",
            bad="queued ones that do not go away.",
            width=THIRD,
            stacked=True,
        ),
        graph(
            "Perceived TTFV p95",
            Query(quantile(0.95, ttfv, chosen(ttfv), "2m"), "p95"),
            unit=panels.SECONDS,
            meaning="To be read beside the number of sessions: where it bends up is the knee.",
            bad="above the dashed objective.",
            width=THIRD,
            limits=(alerts.SLO_TTFV_S,),
        ),
        graph(
            "Playback p5",
            Query(quantile(0.05, fps, chosen(fps), "2m"), "p5"),
            unit=panels.FPS,
            meaning="The slowest twentieth of the viewers.",
            bad="under 25: more sessions than frames can be made for.",
            width=THIRD,
        ),
    ]


def _queues() -> list[Any]:
    wait = stages.QUEUE_WAIT
    return [
        graph(
            "Queue depth",
            Query(gauges.QUEUE_LEVEL.family, "{{queue}}"),
            unit=panels.NUMBER,
            meaning="Tasks that wait when polled, by queue.",
            bad="growth. OpenTalking 0.1 takes the newest task first, so the oldest wait longest.",
            width=THIRD,
        ),
        graph(
            "Wait in the queue",
            Query(quantile(0.5, wait, chosen(wait), RATE), "p50"),
            Query(quantile(0.95, wait, chosen(wait), RATE), "p95"),
            unit=panels.SECONDS,
            meaning=wait.meaning,
            bad="more than a few milliseconds: all workers are busy.",
            width=THIRD,
        ),
        graph(
            "Queue against the accelerator",
            Query(f"sum({gauges.QUEUE_LEVEL.family})", "tasks waiting"),
            Query(f"10 * avg({gauges.ACCELERATOR_UTILIZATION.family})", "accelerator, tenths busy"),
            unit=panels.NUMBER,
            meaning="Whether what waits, waits for the accelerator.",
            bad="a queue that grows while the accelerator idles: a hidden bottleneck.",
            width=THIRD,
        ),
    ]


def _processes() -> list[Any]:
    return [
        graph(
            "Event-loop lag",
            Query(gauges.LOOP_LAG.family, "{{role}} {{statistic}}"),
            unit=panels.SECONDS,
            meaning="How late OpenTalking's event loop ran its timers. Needs the agent.",
            bad="p99 above 40 ms: frames leave late.",
            width=THIRD,
            limits=(0.04,),
        ),
        graph(
            "Media queues",
            Query(gauges.MEDIA_QUEUE_DEPTH.family, "{{kind}}"),
            unit=panels.NUMBER,
            meaning="Items that wait for WebRTC, over all sessions. Needs the agent.",
            bad="growth without an end: playback falls behind generation for ever.",
            width=THIRD,
        ),
        graph(
            "Resident memory",
            Query(gauges.PROCESS_MEMORY.family, "{{role}}"),
            unit=panels.BYTES,
            meaning="Memory of OpenTalking's processes, by role. Needs the agent.",
            bad="a rise that outlasts the sessions that caused it.",
            width=THIRD,
        ),
    ]


def _backend() -> list[Any]:
    chunk = f"{gauges.BACKEND_CHUNK_DURATION}_bucket{{{TARGET_VARIABLES}}}"
    of_model = "{{model}} {{backend_instance}}"
    return [
        graph(
            "Jobs that wait",
            Query(f"{gauges.BACKEND_QUEUE.family}{{{TARGET_VARIABLES}}}", of_model),
            unit=panels.NUMBER,
            meaning=gauges.BACKEND_QUEUE.meaning,
            bad="growth: the backend's workers are all busy.",
            width=THIRD,
        ),
        graph(
            "Chunk duration",
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le, model) (rate({chunk}[{RATE}])))",
                    f"{{{{model}}}} p{100 * q:.0f}",
                )
                for q in (0.5, 0.95)
            ),
            unit=panels.SECONDS,
            meaning="How long the backend's workers took for a chunk; realtime streams are not "
            "counted there.",
            bad="rising under the same load.",
            width=THIRD,
        ),
        graph(
            "Peak memory of the last job",
            Query(
                f"{gauges.BACKEND_VRAM_PEAK.family}{{{TARGET_VARIABLES}}}", of_model + " {{device}}"
            ),
            unit=panels.BYTES,
            meaning=gauges.BACKEND_VRAM_PEAK.meaning,
            bad="near the device's memory.",
            width=THIRD,
        ),
    ]


def _memory() -> list[Any]:
    used, total = gauges.VRAM_USED.family, gauges.VRAM_TOTAL.family
    return [
        number(
            "Sessions that still fit",
            Query(f'min({gauges.VRAM_SESSIONS_LEFT.family}{{bound="estimate"}})'),
            unit=panels.NUMBER,
            meaning="Forecast from the memory that sessions have cost so far.",
            bad="below 2.",
            width=QUARTER,
            limits=(2.0, 5.0),
            high_is_good=True,
        ),
        graph(
            "Memory of a session",
            Query(gauges.VRAM_PER_SESSION.family, "device {{device}} {{bound}}"),
            unit=panels.BYTES,
            meaning="Slope of the device's memory over sessions, with its 95 % interval.",
            bad="a wide interval: the forecast is worth little.",
            width=QUARTER,
            signed=True,
        ),
        graph(
            "Memory in use",
            Query(f'{used}{{scope="device"}} / on(device) {total}', "device {{device}}"),
            unit=panels.SHARE,
            meaning="Share of each device's memory that is taken, by anyone.",
            bad="above 90 %.",
            width=HALF,
            limits=(0.9,),
        ),
    ]
