"""Gauges and counters that are no stage: levels read now and then, and what is counted.

What comes in: nothing. What goes out: `GAUGES`, `COUNTS` and the constants that name them; they are
exported, documented and drawn from here. It must not know how a level is read (that is
`exporter.sources`, `exporter.accelerators`). Standard library only, as exporter/stages.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from exporter.stages import AV_DRIFT, PLAYBACK_FPS, QUEUE_DEPTH, RENDER_FPS, STEADY_CHUNK


@dataclass(frozen=True, slots=True)
class Gauge:
    """A level that is read now and then; some feed a stage of a run."""

    name: str
    family: str
    meaning: str
    labels: tuple[str, ...]
    counts: bool = False
    """Whether somebody else counts it and it only grows: it is exported as a counter."""

    @property
    def exported(self) -> str:
        """The family's name with the suffix that a counter gets."""
        return f"{self.family}_total" if self.counts else self.family


class MemoryScope(StrEnum):
    """Whose memory a reading of `VRAM_USED` counts; the order is the order of preference."""

    PROCESS = "process"
    """The processes of one group; those of the target are what the benchmark page's rows hold."""
    DEVICE_DELTA = "device_delta"
    """The whole device, less what it held before the target: the page's fallback for WSL2."""
    DEVICE = "device"
    """The whole device, other programs included."""


class MemoryGroup(StrEnum):
    """Whose processes a reading of scope `process` counts."""

    OPENTALKING = "opentalking"
    OMNIRT = "omnirt"
    OTHER = "other"
    """Somebody else's, or processes that cannot be told."""
    ALL = "all"
    """Of the other scopes: nobody is told from another."""

    @property
    def is_targets(self) -> bool:
        """Whether they are part of what is measured."""
        return self in (MemoryGroup.OPENTALKING, MemoryGroup.OMNIRT)


VRAM_USED = Gauge(
    "vram_used_bytes",
    "opentalking_vram_used_bytes",
    "Accelerator memory in use; scope says whether by the device, by the device less what it held "
    "before the target started, or by the processes of one group.",
    ("device", "scope", "group"),
)
VRAM_TOTAL = Gauge(
    "vram_total_bytes", "opentalking_vram_total_bytes", "Accelerator memory.", ("device",)
)
VRAM_FREE = Gauge(
    "vram_free_bytes",
    "opentalking_vram_free_bytes",
    "Accelerator memory that nobody uses; what the driver keeps for itself is not free.",
    ("device",),
)
VRAM_PER_SESSION = Gauge(
    "vram_per_session_bytes",
    "opentalking_vram_per_session_bytes",
    "Slope of the device's memory over sessions: least squares and the ends of its 95 % "
    "confidence interval.",
    ("device", "bound"),
)
VRAM_SESSIONS_LEFT = Gauge(
    "vram_sessions_left",
    "opentalking_vram_sessions_left",
    "Forecast of the sessions that still fit into the device's memory, at that slope.",
    ("device", "bound"),
)
ACCELERATOR_INFO = Gauge(
    "accelerator_info",
    "opentalking_accelerator_info",
    "What a device is; always 1.",
    ("device", "vendor", "name", "driver", "runtime"),
)
ACCELERATOR_HEALTHY = Gauge(
    "accelerator_healthy",
    "opentalking_accelerator_healthy",
    "Whether the device is as the vendor's library wants it (1), or lost or faulty (0).",
    ("device",),
)
ACCELERATOR_UTILIZATION = Gauge(
    "accelerator_utilization",
    "opentalking_accelerator_utilization_ratio",
    "Share of time with work on the device.",
    ("device",),
)
ACCELERATOR_MEMORY_UTILIZATION = Gauge(
    "accelerator_memory_utilization",
    "opentalking_accelerator_memory_utilization_ratio",
    "Share of time in which the device's memory was read or written; not how full it is.",
    ("device",),
)
ACCELERATOR_ENCODER = Gauge(
    "accelerator_encoder",
    "opentalking_accelerator_encoder_utilization_ratio",
    "Share of time in which the device's video encoder worked.",
    ("device",),
)
ACCELERATOR_DECODER = Gauge(
    "accelerator_decoder",
    "opentalking_accelerator_decoder_utilization_ratio",
    "Share of time in which the device's video decoder worked.",
    ("device",),
)
ACCELERATOR_POWER = Gauge(
    "accelerator_power", "opentalking_accelerator_power_watts", "Power drawn.", ("device",)
)
ACCELERATOR_TEMPERATURE = Gauge(
    "accelerator_temperature",
    "opentalking_accelerator_temperature_celsius",
    "Temperature of the chip.",
    ("device",),
)
ACCELERATOR_CLOCK = Gauge(
    "accelerator_clock",
    "opentalking_accelerator_clock_hertz",
    "Clock frequency by domain.",
    ("device", "clock"),
)
ACCELERATOR_THROTTLED = Gauge(
    "accelerator_throttled",
    "opentalking_accelerator_throttled",
    "Whether a reason holds the clocks down (1) or not (0); only reasons the device can give.",
    ("device", "reason"),
)
ACCELERATOR_ECC_ERRORS = Gauge(
    "accelerator_ecc_errors",
    "opentalking_accelerator_ecc_errors",
    "Memory errors since the driver was loaded.",
    ("device", "kind"),
    counts=True,
)
ACCELERATOR_CRITICAL_ERRORS = Gauge(
    "accelerator_critical_errors",
    "opentalking_accelerator_critical_errors",
    "Errors that the driver has reported (NVIDIA: XID) since the exporter listens.",
    ("device",),
    counts=True,
)
ACCELERATOR_LAST_CRITICAL_ERROR = Gauge(
    "accelerator_last_critical_error",
    "opentalking_accelerator_last_critical_error_code",
    "Code of the latest critical error, in the vendor's numbers.",
    ("device",),
)
HOST_CPUS = Gauge("host_cpus", "opentalking_host_cpus", "Processors of the machine.", ())
HOST_CPU_BUSY = Gauge(
    "host_cpu_utilization",
    "opentalking_host_cpu_utilization_ratio",
    "Share of time in which the machine's processors worked, since the reading before.",
    (),
)
HOST_MEMORY = Gauge(
    "host_memory_bytes", "opentalking_host_memory_total_bytes", "Memory of the machine.", ()
)
HOST_MEMORY_AVAILABLE = Gauge(
    "host_memory_available_bytes",
    "opentalking_host_memory_available_bytes",
    "Memory that the machine could give to new programs without swapping.",
    (),
)
CPU_LIMIT = Gauge(
    "cgroup_cpu_limit",
    "opentalking_cgroup_cpu_limit_cores",
    "CPU quota of the exporter's control group and those above it; absent without one.",
    (),
)
CPU_THROTTLED = Gauge(
    "cgroup_cpu_throttled",
    "opentalking_cgroup_cpu_throttled_seconds",
    "Time that tasks of the exporter's control group waited for want of CPU quota.",
    (),
    counts=True,
)
MEMORY_LIMIT = Gauge(
    "cgroup_memory_limit_bytes",
    "opentalking_cgroup_memory_limit_bytes",
    "Memory limit of the exporter's control group and those above it; absent without one.",
    (),
)
MEMORY_IN_GROUP = Gauge(
    "cgroup_memory_used_bytes",
    "opentalking_cgroup_memory_used_bytes",
    "Memory in use by the exporter's control group, page cache included.",
    (),
)
BACKEND_QUEUE = Gauge(
    "backend_queue_depth",
    "opentalking_backend_queue_depth",
    "Jobs that wait for a model's workers in the synthesis backend, by its own count; realtime "
    "streams are no jobs.",
    ("model", "backend", "backend_instance"),
)
BACKEND_VRAM_PEAK = Gauge(
    "backend_vram_peak_bytes",
    "opentalking_backend_vram_peak_bytes",
    "Accelerator memory that the synthesis backend's last job took at its peak, by its own count.",
    ("model", "backend", "backend_instance", "device"),
)
BACKEND_CHUNK_DURATION: Final = "opentalking_backend_chunk_duration_seconds"
"""Histogram of the synthesis backend's own count: how long it took for a chunk."""

QUEUE_LEVEL = Gauge(
    QUEUE_DEPTH.key, QUEUE_DEPTH.family or "", "Tasks waiting when polled, by queue.", ("queue",)
)
SLOT_OCCUPIED = Gauge(
    "slot_occupied",
    "opentalking_slot_occupied",
    "Whether the single FlashTalk slot is taken (1) or free (0).",
    (),
)
MODEL_CONNECTED = Gauge(
    "model_connected",
    "opentalking_model_connected",
    "Whether the target lists the model as connected (1) or not (0).",
    ("model", "backend"),
)

SESSIONS = Gauge("sessions", "opentalking_sessions", "Live sessions by state.", ("state",))
LIVE_DRIFT = Gauge(
    "live_av_drift",
    "opentalking_live_av_drift_seconds",
    "Last A/V drift of live sessions, signed, positive when sound is early: the worst, the median.",
    ("statistic",),
)
LIVE_PLAYBACK_FPS = Gauge(
    "live_playback_fps",
    "opentalking_live_playback_fps",
    "Frame rate that reached the viewers of live sessions in their last turn: the worst, the "
    "median.",
    ("statistic",),
)
LIVE_RENDER_FPS = Gauge(
    "live_render_fps",
    "opentalking_live_render_fps",
    "Render FPS of the last turn of live sessions: the worst, the median.",
    ("statistic",),
)
LIVE_STEADY_CHUNK = Gauge(
    "live_steady_chunk",
    "opentalking_live_steady_chunk_seconds",
    "Steady chunk time of the last turn of live sessions: the worst, the median.",
    ("statistic",),
)
LIVE: Final[dict[str, Gauge]] = {
    AV_DRIFT.key: LIVE_DRIFT,
    PLAYBACK_FPS.key: LIVE_PLAYBACK_FPS,
    RENDER_FPS.key: LIVE_RENDER_FPS,
    STEADY_CHUNK.key: LIVE_STEADY_CHUNK,
}
"""Stages whose last value of each live session is a level as well."""

TARGET_INFO = Gauge(
    "build_info",
    "opentalking_build_info",
    "What is known of the OpenTalking that is watched; always 1. It tells no version over HTTP.",
    ("mode",),
)

PROCESS_MEMORY = Gauge(
    "process_resident_memory_bytes",
    "opentalking_process_resident_memory_bytes",
    "Resident memory of OpenTalking's processes, summed over those of a role.",
    ("role",),
)
LOOP_LAG = Gauge(
    "event_loop_lag_seconds",
    "opentalking_event_loop_lag_seconds",
    "How late OpenTalking's event loop ran its timers in the last interval; of several processes "
    "of a role the worst.",
    ("role", "statistic"),
)
MEDIA_QUEUE_DEPTH = Gauge(
    "media_queue_depth",
    "opentalking_media_queue_depth",
    "Items that wait in the sessions' queues for WebRTC, summed over sessions and processes.",
    ("kind",),
)
PROCESSES = Gauge(
    "processes",
    "opentalking_processes",
    "OpenTalking's processes whose agent was heard of lately.",
    ("role",),
)

GAUGES: Final[dict[str, Gauge]] = {
    gauge.name: gauge
    for gauge in (
        VRAM_USED,
        VRAM_TOTAL,
        VRAM_FREE,
        VRAM_PER_SESSION,
        VRAM_SESSIONS_LEFT,
        ACCELERATOR_INFO,
        ACCELERATOR_HEALTHY,
        ACCELERATOR_UTILIZATION,
        ACCELERATOR_MEMORY_UTILIZATION,
        ACCELERATOR_ENCODER,
        ACCELERATOR_DECODER,
        ACCELERATOR_POWER,
        ACCELERATOR_TEMPERATURE,
        ACCELERATOR_CLOCK,
        ACCELERATOR_THROTTLED,
        ACCELERATOR_ECC_ERRORS,
        ACCELERATOR_CRITICAL_ERRORS,
        ACCELERATOR_LAST_CRITICAL_ERROR,
        HOST_CPUS,
        HOST_CPU_BUSY,
        HOST_MEMORY,
        HOST_MEMORY_AVAILABLE,
        CPU_LIMIT,
        CPU_THROTTLED,
        MEMORY_LIMIT,
        MEMORY_IN_GROUP,
        BACKEND_QUEUE,
        BACKEND_VRAM_PEAK,
        QUEUE_LEVEL,
        SLOT_OCCUPIED,
        MODEL_CONNECTED,
        SESSIONS,
        *LIVE.values(),
        TARGET_INFO,
        PROCESS_MEMORY,
        LOOP_LAG,
        MEDIA_QUEUE_DEPTH,
        PROCESSES,
    )
}


@dataclass(frozen=True, slots=True)
class Count:
    """Something that is counted since the exporter started; `family` without `_total`."""

    family: str
    meaning: str
    labels: tuple[str, ...] = ()


TURNS = Count("opentalking_turns", "Turns by how they ended.", ("model", "backend", "outcome"))
ERRORS = Count("opentalking_errors", "Turns that ended with an error, by its code.", ("code",))
SESSIONS_SEEN = Count("opentalking_sessions_seen", "Sessions that have been seen.")
AGENT_DROPPED = Count("talkscope_agent_dropped", "Records that agents could not queue.", ("role",))
AGENT_REFUSED = Count(
    "talkscope_agent_refused", "Records of agents that the exporter refused.", ("role",)
)
AGENT_FAILURES = Count(
    "talkscope_agent_failures", "Hooks of agents that failed, and were caught.", ("role",)
)
TALKING = Count("opentalking_talking_transitions", "How often a session went from idle to talking.")

COUNTS: Final[tuple[Count, ...]] = (
    TURNS,
    ERRORS,
    SESSIONS_SEEN,
    TALKING,
    AGENT_DROPPED,
    AGENT_REFUSED,
    AGENT_FAILURES,
)
