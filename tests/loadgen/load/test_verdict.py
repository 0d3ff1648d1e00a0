"""The generator's judgement of itself, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadgen.load.verdict import Flag, Window, flags, judge

GOOD = Window(
    started_unix=1000.0,
    seconds=5.0,
    sessions=20,
    loop_lag_p50_s=0.0002,
    loop_lag_p99_s=0.003,
    loop_lag_max_s=0.02,
    loop_cpu=0.30,
    process_cpu=0.35,
    schedule_delay_p99_s=0.004,
    kernel_delay_p99_s=0.001,
    udp_drops=0,
    open_files=200,
    open_files_limit=10_000,
)
BAD = replace(GOOD, loop_lag_p99_s=0.05, loop_cpu=0.9, process_cpu=0.95)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ()),
        # At the limit is within it.
        ({"loop_lag_p99_s": 0.010, "loop_cpu": 0.70, "kernel_delay_p99_s": 0.010}, ()),
        ({"loop_lag_p99_s": 0.011}, (Flag.LOOP_LAG,)),
        ({"loop_cpu": 0.71}, (Flag.LOOP_CPU,)),
        ({"kernel_delay_p99_s": 0.0101}, (Flag.KERNEL_DELAY,)),
        ({"kernel_delay_p99_s": None, "schedule_delay_p99_s": None}, ()),
        ({"schedule_delay_p99_s": 0.2}, (Flag.SCHEDULE_DELAY,)),
        ({"udp_drops": 1}, (Flag.UDP_DROPS,)),
        ({"open_files": 9_001}, (Flag.OPEN_FILES,)),
        # A median or a maximum alone says nothing.
        ({"loop_lag_p50_s": 0.02, "loop_lag_max_s": 3.0}, ()),
        ({"process_cpu": 1.9}, ()),
        (
            {"loop_lag_p99_s": 0.5, "loop_cpu": 0.99, "udp_drops": 7},
            (Flag.LOOP_LAG, Flag.LOOP_CPU, Flag.UDP_DROPS),
        ),
    ],
)
def test_what_flags_a_window(change, expected):
    assert flags(replace(GOOD, **change)) == expected


@pytest.mark.parametrize(
    ("good", "bad", "saturated"),
    [
        (0, 0, False),
        (12, 0, False),
        (0, 1, True),
        (1, 1, False),
        (3, 1, False),
        (3, 2, True),
        (18, 2, False),
        (17, 2, True),
        (90, 10, False),
        (89, 11, True),
    ],
)
def test_how_many_flagged_windows_void_a_run(good, bad, saturated):
    verdict = judge({"one": [GOOD] * good + [BAD] * bad})
    assert verdict.saturated is saturated
    assert (verdict.windows, verdict.flagged) == (good + bad, bad)


def test_one_worker_that_is_late_spoils_the_run():
    assert judge({"a": [GOOD] * 100, "b": [GOOD] * 8 + [BAD] * 2}).saturated


def test_the_words_of_a_verdict():
    assert judge({"a": [GOOD] * 9}).text == "valid"
    assert judge({"a": [GOOD] * 20 + [BAD]}).text == "valid (1 flagged windows tolerated)"
    assert judge({"a": [BAD] * 3}).text == "invalid: generator saturated"
    assert judge({"a": []}).text == judge({}).text
    assert judge({}).text.startswith("unknown")


def test_reasons_are_counted_most_frequent_first():
    dropped = replace(BAD, udp_drops=3, loop_cpu=0.1)
    verdict = judge({"a": [BAD, BAD, dropped]})
    assert list(verdict.reasons.items()) == [
        ("event loop lag", 3),
        ("CPU of the event loop's thread", 2),
        ("datagrams dropped by this machine", 1),
    ]


@pytest.mark.parametrize(
    ("cpus", "more"),
    [
        # Load in cores ÷ 0.6 a worker, less those that are there.
        ([0.90], 1),
        ([1.00], 1),
        ([0.95, 0.95], 2),
        ([0.90] * 10, 5),
        ([0.75, 0.30], 1),
    ],
)
def test_how_many_workers_it_would_take(cpus, more):
    verdict = judge({str(i): [replace(BAD, loop_cpu=cpu)] * 5 for i, cpu in enumerate(cpus)})
    assert verdict.workers_to_add == more
    assert f"add {more} worker" in verdict.advice


def test_a_valid_run_needs_no_advice():
    verdict = judge({"a": [GOOD] * 10})
    assert (verdict.workers_to_add, verdict.advice) == (0, None)


def test_advice_names_what_is_really_short():
    starved = replace(GOOD, loop_lag_p99_s=0.1)
    assert "cores of its own" in judge({"a": [starved] * 3}).advice
    assert "ulimit -n" in judge({"a": [replace(GOOD, open_files=9_900)] * 3}).advice
    held_back = replace(GOOD, schedule_delay_p99_s=4.0)
    assert "--max-sessions" in judge({"a": [held_back] * 3}).advice


def test_a_window_survives_its_way_to_the_master():
    assert Window.from_json(GOOD.to_json()) == GOOD
    assert GOOD.to_json()["flags"] == []
    assert BAD.to_json()["flags"] == ["event loop lag", "CPU of the event loop's thread"]
