"""Names of series that the catalogue does not hold: who serves them, and what they are called.

What goes out: constants for boards and alerts. A query may use these, the catalogue's and those
of the recording rules, and no others (tests/grafana/test_queries.py). It must not know queries.
"""

from __future__ import annotations

from typing import Final

from exporter.stages import Stage

UP: Final = "up"
"""Prometheus' own: whether the last scrape of a target succeeded."""

SOURCE_UP: Final = "talkscope_source_up"
SOURCE_SEEN: Final = "talkscope_source_last_seen_timestamp_seconds"
SOURCE_DROPPED: Final = "talkscope_source_dropped_total"
SOURCE_GAPS: Final = "talkscope_source_gaps_total"
OPEN_TURNS: Final = "talkscope_open_turns"
OF_EXPORTER: Final = frozenset({SOURCE_UP, SOURCE_SEEN, SOURCE_DROPPED, SOURCE_GAPS, OPEN_TURNS})
"""exporter/metrics.py: how the exporter itself and its sources are doing."""

PROBE_TURNS: Final = "talkscope_probe_turns_total"
OF_PROBE: Final = frozenset({PROBE_TURNS})
"""loadgen/probe.py: whether the synthetic viewer gets answers."""

GENERATOR: Final = "talkscope_loadgen_"

SESSIONS: Final = f"{GENERATOR}sessions"
VISITS: Final = f"{GENERATOR}visits_total"
VISITS_FAILED: Final = f"{GENERATOR}visits_failed_total"
TURNS: Final = f"{GENERATOR}turns_total"
REFUSALS: Final = f"{GENERATOR}refusals_total"
ORPHANS: Final = f"{GENERATOR}orphans_total"
WINDOWS: Final = f"{GENERATOR}windows_total"
WINDOWS_FLAGGED: Final = f"{GENERATOR}windows_flagged_total"
DATAGRAMS_DROPPED: Final = f"{GENERATOR}udp_dropped_datagrams_total"
LOOP_LAG: Final = f"{GENERATOR}loop_lag_p99_seconds"
SCHEDULE_DELAY: Final = f"{GENERATOR}schedule_delay_p99_seconds"
KERNEL_DELAY: Final = f"{GENERATOR}kernel_delay_p99_seconds"
LOOP_CPU: Final = f"{GENERATOR}loop_cpu_ratio"
PROCESS_CPU: Final = f"{GENERATOR}process_cpu_ratio"
OF_GENERATOR: Final = frozenset(
    {
        *(SESSIONS, VISITS, VISITS_FAILED, TURNS, REFUSALS, ORPHANS, WINDOWS, WINDOWS_FLAGGED),
        *(DATAGRAMS_DROPPED, LOOP_LAG, SCHEDULE_DELAY, KERNEL_DELAY, LOOP_CPU, PROCESS_CPU),
    }
)
"""loadgen/load/metrics.py: a worker's viewers, and how the worker itself is doing."""


def of_viewers(stage: Stage) -> str:
    """The generator's own family of a stage that a viewer sees; ValueError if not exported."""
    if stage.family is None:
        raise ValueError(f"{stage.key} is not exported")
    return GENERATOR + stage.family.removeprefix("opentalking_")
