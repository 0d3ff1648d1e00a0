"""Percentiles that a master merges from its workers, through Locust's own statistics."""

from __future__ import annotations

import math
import random

import pytest
from locust.event import Events
from locust.stats import RequestStats, StatsEntry, setup_distributed_stats_event_listeners

from loadgen.load import rounding


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr("locust.stats.bucket_response_time", rounding.three_digits)


def exact(values, share):
    return sorted(values)[math.ceil(share * len(values)) - 1]


@pytest.mark.parametrize("middle", [3.0, 40.0, 700.0, 12_000.0])
def test_merged_percentiles_of_two_workers_are_exact_to_a_percent(installed, middle):
    rng = random.Random(middle)
    of_workers = [
        [rng.lognormvariate(math.log(middle), 0.4) for _ in range(6_000)],
        [rng.lognormvariate(math.log(2 * middle), 0.2) for _ in range(4_000)],
    ]
    master = RequestStats()
    reports = Events()
    setup_distributed_stats_event_listeners(reports, master)
    for name, values in enumerate(of_workers):
        worker, events = RequestStats(use_response_times_cache=False), Events()
        setup_distributed_stats_event_listeners(events, worker)
        # In several reports, as a worker sends them.
        for start in range(0, len(values), 1_000):
            for value in values[start : start + 1_000]:
                worker.log_request("chat", "x", value, 0)
            data: dict = {}
            events.report_to_master.fire(client_id=str(name), data=data)
            reports.worker_report.fire(client_id=str(name), data=data)
    everything = of_workers[0] + of_workers[1]
    merged = master.get("x", "chat")
    assert merged.num_requests == len(everything)
    for share in (0.5, 0.9, 0.95, 0.99):
        assert merged.get_response_time_percentile(share) == pytest.approx(
            exact(everything, share), rel=0.01
        )


def test_locusts_own_rounding_would_not_do():
    entry = StatsEntry(RequestStats(), "x", "chat")
    for _ in range(100):
        entry.log(1_449, 0)
    assert abs(entry.get_response_time_percentile(0.5) / 1_449 - 1) > 0.01


def test_three_digits_are_half_a_percent_at_most_and_few_keys():
    rng = random.Random(1)
    values = [10 ** rng.uniform(0, 5) for _ in range(50_000)]
    assert max(abs(rounding.three_digits(v) / v - 1) for v in values) <= 0.005
    assert len({rounding.three_digits(v) for v in values}) <= 5 * 900
