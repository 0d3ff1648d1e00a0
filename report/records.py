"""The records of a run bundle, as `docs/bundle.md` describes them (schema 1).

What comes in: nothing; `report.decode` reads these annotations as the schema. What goes out:
the typed records that `report.bundle` returns. Only the fields a report uses are here.
It must not know how a value is summarised or shown.

Times are seconds since the Unix epoch on the exporter's clock; a number beside a catalogue
key is in the unit of the key's suffix.
"""

# No `from __future__ import annotations`: the annotations are needed at run time.

from dataclasses import dataclass, field
from typing import Final

from exporter.stages import InputKind, Outcome, Phase, Startup

SCHEMA: Final = 1
"""The schema of `manifest.json`, `run.json` and `target.json` that this package reads."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first thing read of each JSON file, so that another schema is told as such."""

    schema: int


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of the bundle as it was when the run ended."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`manifest.json`."""

    run_id: str
    complete: bool
    files: dict[str, ManifestFile]
    tool: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Time from starting the target's processes until they can serve the model."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """`run.json`: how the run was set up. What the benchmark was not told is None."""

    started_unix: float
    mode: str | None
    model: str | None
    backend: str | None
    avatar: str | None
    tester: str | None
    gpu_index: int | None
    input: str | None
    """The page's Input column, such as `text` or `audio+image`."""
    prompt: str | None
    audio: str | None
    repeat: int | None
    """Measured turns that were asked for."""
    opentalking_commit: str | None
    backend_commit: str | None
    opentalking_version: str | None
    backend_version: str | None
    weights: str | None
    quantization: str | None
    caching: str | None
    technique: str | None
    notes: str | None
    cold_start: ColdStart | None
    synthetic: bool | None
    stand_ins: tuple[str, ...] | None
    invalid: str | None
    """Why the run measured its load generator and not the target; None for a valid run."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine of the exporter, beside the target."""

    os: str | None
    cpus: int | None
    memory_bytes: float | None
    cpu_limit: float | None = None
    """CPU seconds a second that the exporter's control group may use; null without a limit."""
    memory_limit_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU or NPU."""

    index: int
    name: str
    driver: str | None
    runtime: str | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """A value and the ends of its confidence interval."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """Memory of a device as a line over sessions, as the exporter saw it."""

    device: str
    per_session_bytes: Bounds
    sessions_fit: Bounds
    points: int
    """Numbers of sessions that it rests on."""
    confidence: float
    """0.95 for an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How one way of seeing the deployment fared."""

    up: bool
    reason: str | None
    dropped: int | None


@dataclass(frozen=True, slots=True)
class Target:
    """`target.json`: what the exporter saw of the deployment."""

    mode: str | None
    host: Host | None
    accelerators_absent: str | None
    memory_forecast_absent: str | None
    accelerators: tuple[Accelerator, ...] = ()
    memory_forecast: tuple[MemoryForecast, ...] = ()
    sources: dict[str, SourceHealth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnError:
    """The target's own word on why a turn failed."""

    code: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """A/V drift of one speech; the number itself is among the turn's values."""

    basis: str


@dataclass(frozen=True, slots=True)
class Clock:
    """How well the client's clock is known on the exporter's."""

    client_uncertainty_seconds: float | None


@dataclass(frozen=True, slots=True)
class Timing:
    """What OpenTalking's `speech.timing` says of the video; upstream leaves any of it null."""

    output_width: float | None
    output_height: float | None
    output_fps: float | None
    chunk_samples: float | None
    sample_rate: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of `turns.jsonl`."""

    session: str
    turn: int
    outcome: Outcome
    marks: dict[str, float]
    values: dict[str, float]
    phase: Phase | None
    startup: Startup | None
    input: InputKind | None
    model: str | None
    backend: str | None
    avatar: str | None
    trace_id: str | None
    error: TurnError | None
    drift: Drift | None
    timing: Timing | None
    clock: Clock | None
    mark_sources: dict[str, str] = field(default_factory=dict)
    value_sources: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """One line of `sessions.jsonl`."""

    session: str
    values: dict[str, float]
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of `samples.jsonl`: a reading of a gauge or of a catalogue key."""

    unix: float
    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)
