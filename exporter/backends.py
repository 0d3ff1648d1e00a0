"""What the synthesis backend says of itself, under the labels of our own series.

What comes in: OmniRT's metric families as an instance serves them, and which model OpenTalking
gives to which backend. What goes out: families with `model` and `backend` as our histograms have
them, and `backend_instance`. It must not know how either was read.

OmniRT counts by its own model ids and by worker, and its peak memory by device alone. Here a
model's workers are one, under the name that OpenTalking has for the model. Whatever cannot be
given to exactly one of OpenTalking's models is left out. It is the same count as
`omnirt_worker_*`, not a further one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from exporter import gauges

BACKEND: Final = "omnirt"
"""What OpenTalking's `/models` calls it."""

MODELS: Final[Mapping[str, str]] = {"soulx-flashtalk-14b": "flashtalk"}
"""OmniRT's id → OpenTalking's, where they differ (omnirt/server/routes/avatar.py: the socket
`/v1/audio2video/flashtalk` runs `soulx-flashtalk-14b`)."""

CHUNK_DURATION: Final = gauges.BACKEND_CHUNK_DURATION

_CHUNK: Final = "omnirt_worker_chunk_duration_seconds"
_QUEUE: Final = "omnirt_worker_queue_depth"
_PEAK: Final = "omnirt_vram_peak_bytes"
_JOBS: Final = "omnirt_jobs_total"


@dataclass(frozen=True, slots=True)
class Instance:
    """One OmniRT: its address, and the families it serves; none while it does not answer."""

    name: str
    families: Sequence[Metric]


@dataclass(slots=True)
class _Chunks:
    """Chunk durations of one model: the sum over its workers."""

    buckets: dict[str, float] = field(default_factory=dict)
    """Upper bound, as served → chunks at most that long."""
    seconds: float = 0.0


class BackendMetrics(Collector):
    """The joined families, of all instances."""

    def __init__(
        self,
        instances: Callable[[], Iterable[Instance]],
        backends: Callable[[], Mapping[str, str]],
    ) -> None:
        """`backends`: OpenTalking's model → its backend, as `/models` lists them; empty while
        OpenTalking does not answer."""
        self._instances = instances
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        """Families in a fixed order; one without a sample is left out."""
        ours = {model for model, backend in self._backends().items() if backend == BACKEND}
        queue, peak = _gauge(gauges.BACKEND_QUEUE), _gauge(gauges.BACKEND_VRAM_PEAK)
        chunks = HistogramMetricFamily(
            CHUNK_DURATION,
            "Time that the synthesis backend took for a chunk of a job, by its own count; "
            "realtime streams are no jobs.",
            labels=gauges.BACKEND_QUEUE.labels,
        )
        for instance in self._instances():
            samples = [s for family in instance.families for s in family.samples]
            for model, depth in _queues(samples).items():
                if model in ours:
                    queue.add_metric([model, BACKEND, instance.name], depth)
            for model, told in _chunks(samples).items():
                if model in ours:
                    buckets = sorted(told.buckets.items(), key=lambda bucket: float(bucket[0]))
                    chunks.add_metric([model, BACKEND, instance.name], buckets, told.seconds)
            only = _only_model(samples)
            if only in ours:
                for sample in samples:
                    if sample.name == _PEAK:
                        device = sample.labels.get("device", "")
                        peak.add_metric([only, BACKEND, instance.name, device], sample.value)
        yield from (family for family in (queue, peak, chunks) if family.samples)


def _queues(samples: Iterable[Sample]) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in samples:
        if sample.name == _QUEUE:
            model = _model(sample)
            found[model] = found.get(model, 0.0) + sample.value
    return found


def _chunks(samples: Iterable[Sample]) -> dict[str, _Chunks]:
    """Chunks by model; without those whose workers count in different buckets."""
    by_worker: dict[tuple[str, str], _Chunks] = {}
    for sample in samples:
        if not sample.name.startswith(_CHUNK):
            continue
        worker = (_model(sample), sample.labels.get("worker_id", ""))
        told = by_worker.setdefault(worker, _Chunks())
        if sample.name == f"{_CHUNK}_bucket":
            told.buckets[sample.labels.get("le", "")] = sample.value
        elif sample.name == f"{_CHUNK}_sum":
            told.seconds = sample.value
    found: dict[str, _Chunks] = {}
    uneven: set[str] = set()
    for (model, _), told in by_worker.items():
        sum_ = found.setdefault(model, _Chunks(dict.fromkeys(told.buckets, 0.0)))
        bounds = told.buckets.keys()
        if sum_.buckets.keys() != bounds or "+Inf" not in bounds or not _are_numbers(bounds):
            uneven.add(model)
            continue
        sum_.seconds += told.seconds
        for bound, count in told.buckets.items():
            sum_.buckets[bound] += count
    return {model: told for model, told in found.items() if model not in uneven}


def _are_numbers(texts: Iterable[str]) -> bool:
    try:
        return not any(math.isnan(float(text)) for text in texts)
    except ValueError:
        return False


def _only_model(samples: Iterable[Sample]) -> str | None:
    """The model of all jobs so far: only jobs set the peak, and it names no model."""
    models = {_model(sample) for sample in samples if sample.name == _JOBS}
    return models.pop() if len(models) == 1 else None


def _model(sample: Sample) -> str:
    told = sample.labels.get("model", "")
    return MODELS.get(told, told)


def _gauge(gauge: gauges.Gauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.family, gauge.meaning, labels=gauge.labels)
