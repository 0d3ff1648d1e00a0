"""What a result holds: known numbers in, the same numbers or a reason out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporter import stages
from exporter.gauges import MemoryScope
from report import build, turn_table
from report.absence import Missing
from report.markdown import render
from report.records import InputKind, Outcome
from report.result import Result, StageResult, Status, key_unit
from report.summary import Quantile, Statistics
from tests.report.example import good_run
from tests.report.recording import (
    GIB,
    START,
    Recording,
    full,
    queue,
    run,
    session,
    target,
    timing,
    turn,
    vanished,
    vram,
    warmup,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = stages.TTFA.key
TIMING_SWITCH = (
    "not seen; needs: OPENTALKING_BENCHMARK_TIMING=1 on the process that runs the pipeline"
)


@pytest.fixture
def result_of(tmp_path: Path) -> Any:
    def result(recording: Recording) -> Result:
        return build(recording.write(tmp_path / "bundle"))

    return result


def statistics(one: StageResult) -> Statistics:
    assert isinstance(one.statistics, Statistics)
    return one.statistics


# --- which turns count ---------------------------------------------------------------------


def test_statistics_are_those_of_the_measured_turns(result_of: Any) -> None:
    found = statistics(result_of(full()).turns[KEY])
    assert (found.n, found.median, found.minimum, found.maximum) == (3, 1551.773, 1500.0, 1600.0)


def test_the_warmup_turn_is_in_no_statistic(result_of: Any) -> None:
    # The warmup turn's 9000 ms would be the maximum.
    recording = full()
    assert recording.turns[0]["values"][KEY] == 9000.0
    result = result_of(recording)
    assert all(
        one.statistics.maximum < 9000.0
        for key, one in result.turns.items()
        if isinstance(one.statistics, Statistics) and key in {stages.TTFA.key, stages.TTFV.key}
    )
    assert result.warmup_turns[0].values[KEY] == 9000.0
    assert sum(result.outcomes.values()) == 3


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.COMPLETED])
def test_a_turn_that_was_not_completed_counts_as_an_outcome_only(
    result_of: Any, outcome: Outcome
) -> None:
    recording = full()
    recording.turns.append(turn(9, outcome=outcome, values={KEY: 1e6}))
    result = result_of(recording)
    assert statistics(result.turns[KEY]).maximum == 1600.0
    assert result.turns[KEY].of == 3
    assert result.outcomes == {Outcome.COMPLETED: 3, outcome: 1}
    assert [t.turn for t in result.unfinished] == [9]


def test_a_turn_of_nobodys_benchmark_is_left_out(result_of: Any) -> None:
    recording = full()
    recording.turns.append(turn(9, phase=None, outcome="failed", values={KEY: 1e6}))
    result = result_of(recording)
    assert (result.unphased, result.verdict.status) == (1, Status.GOOD)
    assert statistics(result.turns[KEY]).n == 3
    assert result.unfinished == ()


def test_twenty_turns_have_a_p95(result_of: Any) -> None:
    turns = [turn(n, values={KEY: 100.0 * n}) for n in range(1, 21)]
    assert statistics(result_of(Recording(turns=turns)).turns[KEY]).p95.value == 1900.0


def test_figures_are_numpys_on_the_raw_records(result_of: Any) -> None:
    recording = good_run()
    result = result_of(recording)
    raw = [record["values"] for record in recording.turns if record["phase"] == "measured"]
    checked = 0
    for key, one in result.turns.items():
        values = np.array([values[key] for values in raw if key in values])
        if not len(values):
            assert isinstance(one.statistics, Missing)
            continue
        found = statistics(one)
        assert found.n == len(values) == 120
        assert found.mean == pytest.approx(np.mean(values))
        assert found.median == pytest.approx(np.median(values))
        for ours, q in ((found.p95, 95), (found.p99, 99)):
            assert isinstance(ours, Quantile)
            assert ours.value == np.percentile(values, q, method="inverted_cdf")
        assert (found.minimum, found.maximum) == (values.min(), values.max())
        checked += 1
    assert checked >= 18


def test_turns_that_are_not_listed_are_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(turn_table, "KEPT", 2)
    recording = Recording(turns=[vanished(n) for n in range(1, 6)])
    result = build(recording.write(tmp_path / "b"))
    assert result.outcomes == {Outcome.VANISHED: 5}
    assert len(result.unfinished) == 2
    assert "- and 3 more, not listed" in render(result)


# --- verdict -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "status", "exit_status"),
    [
        (["completed", "completed"], Status.GOOD, 0),
        (["completed", "interrupted"], Status.GOOD, 0),
        (["completed", "failed"], Status.FAILED, 1),
        (["completed", "vanished"], Status.FAILED, 1),
        (["completed", "no_media"], Status.FAILED, 1),
        (["completed", "timeout"], Status.FAILED, 1),
        (["vanished"], Status.FAILED, 1),
        (["incomplete"], Status.NOT_ENOUGH_DATA, 2),
        ([], Status.NOT_ENOUGH_DATA, 2),
    ],
)
def test_verdict(result_of: Any, outcomes: list[str], status: Status, exit_status: int) -> None:
    turns = [turn(n + 1, outcome=outcome) for n, outcome in enumerate(outcomes)]
    verdict = result_of(Recording(turns=turns)).verdict
    assert (verdict.status, verdict.status.exit_status) == (status, exit_status)
    completed = outcomes.count("completed")
    assert verdict.reason == f"{completed} of {len(outcomes)} measured turns completed"


def test_a_failed_warmup_does_not_fail_the_run(result_of: Any) -> None:
    result = result_of(Recording(turns=[warmup(outcome="failed"), turn(2)]))
    assert result.verdict.status is Status.GOOD
    assert result.warmup_s == Missing("the warmup turn was not completed: failed")


# --- reasons -------------------------------------------------------------------------------


def reason(one: StageResult) -> str:
    assert isinstance(one.statistics, Missing)
    return one.statistics.reason


def test_the_turns_reason_stands_when_all_agree(result_of: Any) -> None:
    turns = [turn(n, absent={KEY: "TTS was down"}) for n in (1, 2)]
    assert reason(result_of(Recording(turns=turns)).turns[KEY]) == "TTS was down"


@pytest.mark.parametrize("other", [{KEY: "clock broke"}, {}])
def test_the_catalogue_speaks_when_the_turns_do_not_agree(
    result_of: Any, other: dict[str, str]
) -> None:
    turns = [turn(1, absent={KEY: "TTS was down"}), turn(2, absent=other)]
    told = reason(result_of(Recording(turns=turns)).turns[KEY])
    assert told.startswith(TIMING_SWITCH + "; or ")


def test_what_nobody_can_see_says_so(result_of: Any) -> None:
    found = result_of(full()).turns[stages.ASR_PARTIAL.key]
    assert reason(found) == stages.ASR_PARTIAL.unseen != ""


def test_a_level_that_needs_no_switch_says_where_it_was_looked_for(result_of: Any) -> None:
    depth = result_of(Recording()).queue_depth
    assert isinstance(depth, Missing)
    assert depth.reason.startswith("not seen; looked for in: ")
    assert all(sight.where in depth.reason for sight in stages.QUEUE_DEPTH.sights)


def test_without_a_completed_turn_every_stage_has_a_reason(result_of: Any) -> None:
    result = result_of(Recording(turns=[vanished(1)], sessions=[]))
    assert reason(result.turns[KEY]) == "no measured turn was completed"
    assert reason(result.turns[stages.ASR_PARTIAL.key]) == stages.ASR_PARTIAL.unseen
    assert (
        reason(result.sessions[stages.SESSION_CREATE.key])
        == "no session with a measured turn was recorded"
    )
    assert result.video.fps == Missing("no measured turn was completed")


def test_a_value_seen_in_some_turns_says_why_not_in_the_rest(result_of: Any) -> None:
    turns = [turn(1, values={KEY: 5.0}), turn(2, absent={KEY: "TTS was down"})]
    found = result_of(Recording(turns=turns)).turns[KEY]
    assert (statistics(found).n, found.of, found.gap) == (1, 2, Missing("TTS was down"))


def test_an_interval_that_ends_before_it_begins_is_no_value(result_of: Any) -> None:
    turns = [turn(1, values={KEY: 5.0}), turn(2, values={KEY: -40_000.0})]
    found = result_of(Recording(turns=turns)).turns[KEY]
    assert (statistics(found).n, statistics(found).minimum) == (1, 5.0)
    assert found.gap == Missing("it ends before it begins, as after a step of a clock")


def test_a_cold_measured_turn_is_counted_and_not_mixed_with_the_rest(result_of: Any) -> None:
    turns = [turn(1, startup="cold", values={KEY: 9000.0}), turn(2, values={KEY: 5.0})]
    result = result_of(Recording(turns=turns))
    assert (statistics(result.turns[KEY]).n, result.turns[KEY].of) == (1, 1)
    assert result.startups == {"cold": 1, "steady": 1}
    assert result.outcomes == {Outcome.COMPLETED: 2}


def test_every_stage_of_the_catalogue_has_a_value_or_a_reason(result_of: Any) -> None:
    result = result_of(Recording(turns=[turn(1)]))
    seen = {*result.turns, *result.sessions}
    whole = {s.key for s in stages.STAGES.values() if s.scope is stages.Scope.RUN}
    assert seen | whole == set(stages.STAGES)
    for one in (*result.turns.values(), *result.sessions.values()):
        assert isinstance(one.statistics, Statistics) or one.statistics.reason


# --- sessions ------------------------------------------------------------------------------


def test_session_stages_count_sessions_that_held_a_measured_turn(result_of: Any) -> None:
    key = stages.SESSION_CREATE.key
    recording = Recording(
        turns=[
            warmup(session="w"),
            turn(1, session="a"),
            turn(2, session="a"),
            turn(1, session="b"),
        ],
        sessions=[
            session(session="w", values={key: 5000.0}),
            session(session="a", values={key: 30.0}),
            session(session="b", values={key: 34.0}),
        ],
    )
    found = statistics(result_of(recording).sessions[key])
    assert (found.n, found.median, found.maximum) == (2, 32.0, 34.0)


# --- where values came from ----------------------------------------------------------------


def test_a_value_from_marks_names_who_saw_them(result_of: Any) -> None:
    delivery = result_of(full()).turns[stages.MEDIA_DELIVERY.key]
    assert delivery.sources == ("marks (estimated → client)",)
    assert delivery.bases == ("decoded barcode",)


def test_drift_states_its_bases(result_of: Any) -> None:
    turns = [turn(n, drift={"basis": b}) for n, b in ((1, "agent"), (2, "sizes"), (3, "agent"))]
    assert result_of(Recording(turns=turns)).drift_bases == ("agent", "sizes")


def test_the_worst_client_clock_counts(result_of: Any) -> None:
    turns = [
        turn(n, clock={"basis": "exporter", "client_uncertainty_seconds": u})
        for n, u in ((1, 0.0003), (2, 0.004), (3, None))
    ]
    assert result_of(Recording(turns=turns)).clock_uncertainty_seconds == 0.004


def test_units_are_those_of_the_keys() -> None:
    assert key_unit(stages.TTFA) == "ms"
    assert key_unit(stages.WARMUP) == "s"
    assert key_unit(stages.PEAK_VRAM) == "bytes"
    assert key_unit(stages.RENDER_FPS) == "frames/s"
    assert key_unit(stages.RTF) == "ratio"
    assert key_unit(stages.QUEUE_DEPTH) == "items"


# --- start and warmup ----------------------------------------------------------------------


def test_cold_start_is_known_only_when_the_benchmark_started_the_target(result_of: Any) -> None:
    result = result_of(Recording(run=run(cold_start=None)))
    assert result.cold_start_s == Missing("the target was already running")


def test_warmup_is_the_first_warmup_turn_from_input_to_timing(result_of: Any) -> None:
    second = turn(2, phase="warmup")
    result = result_of(Recording(turns=[warmup(), second]))
    assert result.warmup_s == pytest.approx(17.856)


def test_a_told_warmup_goes_before_the_marks(result_of: Any) -> None:
    result = result_of(Recording(turns=[warmup(values={stages.WARMUP.key: 17.5})]))
    assert result.warmup_s == 17.5


def test_warmup_without_timing_says_what_it_needs(result_of: Any) -> None:
    result = result_of(Recording(turns=[warmup(marks={stages.INPUT: START})]))
    assert result.warmup_s == Missing(TIMING_SWITCH)


def test_no_warmup_turn_is_told(result_of: Any) -> None:
    assert result_of(Recording(turns=[turn(1)])).warmup_s == Missing("the run had no warmup turn")


# --- accelerator memory --------------------------------------------------------------------


def memory_run(*samples: dict[str, Any], **changes: Any) -> Recording:
    """Warmup ends at START − 82.1 s; measured turns run from START + 20 to START + 38 s."""
    return Recording(turns=[warmup(), turn(2), turn(3)], samples=list(samples), **changes)


def test_idle_is_the_last_reading_before_the_first_input_and_peak_the_highest_after(
    result_of: Any,
) -> None:
    result = result_of(
        memory_run(
            vram(START - 90.0, 9.0),  # still warming up
            vram(START + 19.0, 1.5),
            vram(START - 80.0, 2.0),
            vram(START + 21.0, 3.0),
            vram(START + 22.0, 4.0),
            vram(START + 23.0, 3.5),
            vram(START + 39.0, 9.0),  # after the last measured end
        )
    ).memory
    assert (result.idle, result.peak) == (1.5 * GIB, 4.0 * GIB)
    assert (result.scope, result.device) == (MemoryScope.PROCESS, "0")


@pytest.mark.parametrize(
    ("scopes", "chosen"),
    [
        (["device", "device_delta", "process"], "process"),
        (["device", "device_delta"], "device_delta"),
        (["device"], "device"),
    ],
)
def test_the_preferred_scope_gives_both_figures(
    result_of: Any, scopes: list[str], chosen: str
) -> None:
    samples = [vram(START + at, 1.0 + i, s) for i, s in enumerate(scopes) for at in (0.0, 25.0)]
    found = result_of(memory_run(*samples)).memory
    assert found.scope == chosen
    assert found.idle == found.peak == (1.0 + scopes.index(chosen)) * GIB


def test_figures_of_two_scopes_are_never_mixed(result_of: Any) -> None:
    found = result_of(
        memory_run(vram(START, 1.0, "device"), vram(START + 25.0, 2.0, "process"))
    ).memory
    assert found.peak == 2.0 * GIB
    assert found.idle == Missing(
        "no reading between the end of the warmup turn and the first measured input"
    )


def test_a_scope_without_a_reading_in_time_does_not_count(result_of: Any) -> None:
    found = result_of(
        memory_run(vram(START - 500.0, 1.0, "process"), vram(START + 25.0, 2.0, "device"))
    ).memory
    assert (found.scope, found.peak) == (MemoryScope.DEVICE, 2.0 * GIB)


def test_the_given_device_counts(result_of: Any) -> None:
    samples = [vram(START + 25.0, 1.0 + n, device=str(n)) for n in (0, 1)]
    found = result_of(memory_run(*samples, run=run(gpu_index=1))).memory
    assert (found.peak, found.device) == (2.0 * GIB, "1")


def test_an_unread_device_is_told(result_of: Any) -> None:
    found = result_of(memory_run(vram(START, 1.0), run=run(gpu_index=3))).memory
    assert found.peak == Missing("device 3 was not read, only 0")


def test_several_devices_and_no_index_are_not_summed(result_of: Any) -> None:
    samples = [vram(START, 1.0, device=str(n)) for n in (0, 1)]
    found = result_of(memory_run(*samples, run=run(gpu_index=None))).memory
    assert found.peak == Missing("devices 0, 1 were read and no GPU index was given")


def test_the_targets_groups_count_together_and_nobody_elses(result_of: Any) -> None:
    samples = [
        vram(START + at, gib, group=group)
        for at, gib, group in (
            *((0.0, 1.0, "opentalking"), (0.0, 2.0, "omnirt"), (0.0, 50.0, "other")),
            *((25.0, 4.0, "omnirt"), (25.0, 60.0, "other")),
        )
    ]
    found = result_of(memory_run(*samples)).memory
    assert (found.idle, found.peak) == (3.0 * GIB, 4.0 * GIB)


def test_a_reading_that_is_there_twice_counts_once(result_of: Any) -> None:
    samples = [vram(START + at, gib, group="omnirt") for at, gib in ((25.0, 2.0), (25.0, 3.0))]
    assert result_of(memory_run(*samples)).memory.peak == 3.0 * GIB


def test_processes_of_others_alone_are_no_reading_of_the_target(result_of: Any) -> None:
    others = [vram(START + at, 9.0, group="other") for at in (0.0, 25.0)]
    device = [vram(START + at, 12.0, "device", group="all") for at in (0.0, 25.0)]
    found = result_of(memory_run(*others, *device)).memory
    assert (found.scope, found.peak) == (MemoryScope.DEVICE, 12.0 * GIB)


def test_of_several_devices_the_one_that_holds_the_target_counts(result_of: Any) -> None:
    samples = [
        vram(START + at, 10.0 + n, "device", str(n), "all") for at in (0.0, 25.0) for n in (0, 1)
    ]
    samples += [vram(START + at, 2.0, "process", "1", "omnirt") for at in (0.0, 25.0)]
    samples += [vram(START + at, 5.0, "process", "0", "other") for at in (0.0, 25.0)]
    found = result_of(memory_run(*samples, run=run(gpu_index=None))).memory
    assert (found.device, found.peak) == ("1", 2.0 * GIB)


def test_a_forecast_of_another_device_is_none_of_this_run(result_of: Any) -> None:
    result = result_of(
        memory_run(vram(START, 1.0, device="3"), run=run(gpu_index=3))
    ).memory_forecast
    assert result == Missing("the device has no forecast")


def test_no_forecast_gives_the_exporters_reason(result_of: Any) -> None:
    why = "device 0: a line takes memory at 3 different numbers of sessions, there are 1"
    told = target(memory_forecast=[], memory_forecast_absent=why)
    found = result_of(memory_run(vram(START, 1.0), target=told)).memory_forecast
    assert found == Missing(why)


def test_no_accelerator_gives_its_reason_to_every_cell(result_of: Any) -> None:
    why = "no NVIDIA driver on this machine"
    result = result_of(memory_run(target=target(accelerators=[], accelerators_absent=why)))
    assert result.memory.idle == result.memory.peak == Missing(why)
    assert result.facts.hardware == result.facts.driver == Missing(why)


def test_no_reading_and_no_reason_says_what_it_takes(result_of: Any) -> None:
    found = result_of(memory_run()).memory
    assert found.peak == Missing("not seen; needs: an accelerator and its vendor's library")


def test_readings_at_another_time_are_told(result_of: Any) -> None:
    found = result_of(memory_run(vram(START + 900.0, 1.0))).memory
    assert found.idle == found.peak
    assert found.peak == Missing("no reading falls into the idle time or the measured turns")


def test_memory_of_a_run_that_stopped_after_its_warmup_has_neither_figure(result_of: Any) -> None:
    lost = vanished(2, outcome="incomplete")
    found = result_of(Recording(turns=[warmup(), lost], samples=[vram(START, 1.0)])).memory
    assert (found.idle, found.peak) == (GIB, Missing("no reading during the measured turns"))


def test_idle_memory_needs_a_completed_warmup(result_of: Any) -> None:
    recording = memory_run(vram(START, 1.0), vram(START + 25.0, 2.0))
    recording.turns[0]["outcome"] = "timeout"
    found = result_of(recording).memory
    assert (found.idle, found.peak) == (Missing("no warmup turn was completed"), 2.0 * GIB)


# --- queues --------------------------------------------------------------------------------


def test_queues_are_summarised_one_by_one_while_the_measured_turns_run(result_of: Any) -> None:
    result = result_of(
        memory_run(
            queue(START, 50.0),
            queue(START + 21.0, 0.0),
            queue(START + 22.0, 4.0),
            queue(START + 23.0, 1.0, "slot"),
        )
    )
    slot, tasks = result.queue_depth
    assert (slot.label, slot.statistics.n, slot.statistics.maximum) == ("queue=slot", 1, 1.0)
    assert (tasks.label, tasks.statistics.median) == ("queue=task_queue", 2.0)


def test_queues_read_at_another_time_are_told(result_of: Any) -> None:
    result = result_of(memory_run(queue(START, 50.0)))
    assert result.queue_depth == Missing("no reading during the measured turns")


def test_queues_of_a_run_without_a_measured_turn_belong_to_no_turn(result_of: Any) -> None:
    result = result_of(Recording(turns=[warmup()], samples=[queue(START, 1.0)]))
    assert result.queue_depth == Missing("no measured turn was seen")
    assert result.memory.peak == Missing("not seen; needs: an accelerator and its vendor's library")


# --- facts ---------------------------------------------------------------------------------


def test_the_output_is_described_as_the_turns_agree(result_of: Any) -> None:
    video = result_of(full()).video
    assert (video.resolution, video.fps, video.chunk_ms) == ("540×900", 25.0, 1120.0)


def test_turns_that_differ_give_no_single_answer(result_of: Any) -> None:
    turns = [turn(1), turn(2, timing=timing(output_fps=30.0))]
    video = result_of(Recording(turns=turns)).video
    assert video.fps == Missing("the measured turns differ: 25.0, 30.0")


@pytest.mark.parametrize("unknown", [None, 0])
def test_a_field_that_upstream_leaves_open_is_missing(result_of: Any, unknown: object) -> None:
    fields = ("output_width", "output_fps", "sample_rate")
    turns = [turn(1, timing=timing(**dict.fromkeys(fields, unknown)))]
    video = result_of(Recording(turns=turns)).video
    silent = Missing("speech.timing does not say")
    assert (video.resolution, video.fps, video.chunk_ms) == (silent, silent, silent)


def test_without_timing_events_the_output_says_what_it_needs(result_of: Any) -> None:
    video = result_of(Recording(turns=[turn(1, timing=None)])).video
    assert video.resolution == Missing(TIMING_SWITCH)


def test_a_model_that_was_not_told_is_the_one_seen(result_of: Any) -> None:
    recording = Recording(turns=[turn(1)], run=run(model=None))
    assert result_of(recording).facts.model == "quicktalk"


def test_turns_of_several_models_give_no_single_name(result_of: Any) -> None:
    recording = Recording(turns=[turn(1), turn(2, model="mock")], run=run(model=None))
    assert result_of(recording).facts.model == Missing("the measured turns differ: quicktalk, mock")


def test_a_driver_that_is_not_told_is_missing(result_of: Any) -> None:
    devices = [{"index": 0, "name": "NPU 910B2", "driver": None}]
    facts = result_of(Recording(target=target(accelerators=devices))).facts
    assert facts.driver == Missing("the accelerator's library does not say")


def test_a_device_that_is_not_there_is_told(result_of: Any) -> None:
    facts = result_of(Recording(run=run(gpu_index=4))).facts
    assert facts.hardware == Missing("the GPU index given is not among those seen: 0")


def test_several_equal_devices_are_counted(result_of: Any) -> None:
    devices = [{"index": n, "name": "NPU 910B2", "driver": "cann driver"} for n in range(8)]
    recording = Recording(target=target(accelerators=devices), run=run(gpu_index=None))
    facts = result_of(recording).facts
    assert (facts.hardware, facts.driver) == ("NPU 910B2 ×8", "cann driver")


def test_the_given_device_is_the_hardware(result_of: Any) -> None:
    devices = [{"index": n, "name": f"GPU {n}", "driver": "1.2"} for n in range(2)]
    recording = Recording(target=target(accelerators=devices), run=run(gpu_index=1))
    assert result_of(recording).facts.hardware == "GPU 1"


def test_a_release_stands_in_for_an_unknown_commit(result_of: Any) -> None:
    recording = Recording(run=run(opentalking_commit=None))
    assert result_of(recording).facts.opentalking == "release 0.1.0"


def test_the_date_is_that_of_the_start_in_utc(result_of: Any) -> None:
    assert result_of(Recording(run=run(started_unix=1780185599.0))).facts.date == "2026/5/30"


def test_inputs_are_named_in_order_of_appearance(result_of: Any) -> None:
    turns = [turn(1, input="speech"), turn(2, input=None), turn(3, input="text")]
    assert result_of(Recording(turns=turns)).inputs == (InputKind.SPEECH, InputKind.TEXT)
