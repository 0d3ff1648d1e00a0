"""OmniRT's own counts under our labels, from recordings of OmniRT."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporter import backends, gauges
from exporter.backends import BackendMetrics, Instance
from exporter.sources.omnirt import parse
from tests.exporter.test_omnirt import AFTER_JOB, FULL, samples

OURS = {"flashtalk": "omnirt", "wav2lip": "local"}
LABELS = {"model": "flashtalk", "backend": "omnirt", "backend_instance": "gpu-1:9000"}


def served(*texts, ours=OURS):
    instances = [
        Instance(f"gpu-{n}:9000", parse(text, f"gpu-{n}:9000")) for n, text in enumerate(texts, 1)
    ]
    registry = CollectorRegistry()
    registry.register(BackendMetrics(lambda: instances, lambda: ours))
    return samples(generate_latest(registry).decode())


def value(found, name, **labels):
    return found[name, frozenset(({**LABELS, **labels}).items())]


def test_queue_chunks_and_peak_have_the_model_and_backend_of_our_series():
    found = served(FULL)
    assert value(found, gauges.BACKEND_QUEUE.family) == 2.0
    assert value(found, gauges.BACKEND_VRAM_PEAK.family, device="npu:0") == 32e9
    assert value(found, f"{backends.CHUNK_DURATION}_count") == 1.0
    assert value(found, f"{backends.CHUNK_DURATION}_sum") == 0.71
    assert value(found, f"{backends.CHUNK_DURATION}_bucket", le="0.5") == 0.0
    assert value(found, f"{backends.CHUNK_DURATION}_bucket", le="1.0") == 1.0


def test_a_models_workers_are_one():
    worker = FULL[FULL.index("# TYPE omnirt_worker_queue_depth") :]
    second = "\n".join(
        line.replace("coordinator", "rank-1")
        for line in worker.splitlines()
        if not line.startswith("#")
    )
    families = {}
    for line in (*worker.splitlines(), *second.splitlines()):
        name = line.split()[2] if line.startswith("#") else line.split("{")[0]
        family = "_".join(name.split("_")[:4])
        families.setdefault(family, []).append(line)
    both = "\n".join(line for lines in families.values() for line in lines) + "\n"
    found = served(both)
    assert value(found, gauges.BACKEND_QUEUE.family) == 4.0
    assert value(found, f"{backends.CHUNK_DURATION}_count") == 2.0
    assert value(found, f"{backends.CHUNK_DURATION}_sum") == 1.42


@pytest.mark.parametrize(("worker", "bound"), [("rank-1", "+Inf"), ("coordinator", "ten")])
def test_workers_that_count_in_other_buckets_are_not_added(worker, bound):
    line = (
        f'omnirt_worker_chunk_duration_seconds_bucket{{le="{bound}",model="soulx-flashtalk-14b",'
        f'worker_id="{worker}"}} 5.0\n'
    )
    found = served(FULL + line)
    assert not [name for name, _ in found if name.startswith(backends.CHUNK_DURATION)]


def test_instances_stay_apart():
    found = served(FULL, FULL)
    assert value(found, gauges.BACKEND_QUEUE.family, backend_instance="gpu-1:9000") == 2.0
    assert value(found, gauges.BACKEND_QUEUE.family, backend_instance="gpu-2:9000") == 2.0


@pytest.mark.parametrize("ours", [{}, {"flashtalk": "local"}, {"wav2lip": "omnirt"}])
def test_a_model_that_opentalking_does_not_give_to_omnirt_is_left_out(ours):
    assert served(FULL, ours=ours) == {}


def test_a_peak_of_jobs_of_several_models_is_nobodys():
    other = FULL.replace(
        "# TYPE omnirt_stage_duration_seconds",
        'omnirt_jobs_total{execution_mode="x",model="sd15",state="succeeded",task="text2image"} 1\n'
        "# TYPE omnirt_stage_duration_seconds",
        1,
    )
    found = served(other)
    assert not [name for name, _ in found if name == gauges.BACKEND_VRAM_PEAK.family]
    assert value(found, gauges.BACKEND_QUEUE.family) == 2.0


def test_an_instance_that_ran_no_worker_or_does_not_answer_says_nothing():
    assert served(AFTER_JOB) == {}
    assert served() == {}
