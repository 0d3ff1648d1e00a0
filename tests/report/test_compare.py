"""Verdicts on runs whose truth is known."""

from __future__ import annotations

import random

import pytest

from exporter import stages
from exporter.stages import Outcome
from report.compare import Conclusion, MinChange, compare
from report.compare_text import render
from tests.report import samples
from tests.report.samples import plain, result_of, staged

KEY = stages.PERCEIVED_TTFV.key


def verdicts(number: int, turns: int, factor: float, seed: int) -> list[Conclusion]:
    generator = random.Random(seed)
    return [
        compare(plain(turns, generator), plain(turns, generator, factor)).conclusion
        for _ in range(number)
    ]


def test_15_percent_on_100_turns_a_side_is_detected_in_95_of_100() -> None:
    found = verdicts(200, 100, 1.15, seed=1)
    assert found.count(Conclusion.REGRESSION) >= 0.95 * len(found)


def test_equal_runs_are_called_a_regression_in_at_most_5_of_100() -> None:
    # The benchmark compare-verdicts makes 1,000 of them, with all stages.
    found = verdicts(300, 100, 1.0, seed=2)
    assert found.count(Conclusion.REGRESSION) <= 0.05 * len(found)


def test_15_percent_faster_is_better_and_never_a_regression() -> None:
    found = verdicts(50, 100, 0.85, seed=3)
    assert found.count(Conclusion.BETTER) >= 0.95 * len(found)
    assert Conclusion.REGRESSION not in found


def test_the_stage_that_became_slower_is_named_in_95_of_100() -> None:
    assert samples.is_chain()
    generator = random.Random(4)
    named = 0
    for number in range(60):
        slower = list(samples.MEDIANS_MS)[number % len(samples.MEDIANS_MS)]
        found = compare(
            staged(100, generator),
            staged(100, generator, slower=slower, by_ms=0.15 * samples.TOTAL_MS),
        )
        assert found.attribution.n == (100, 100)
        main = found.attribution.main
        named += main is not None and main.stage is slower
        assert found.conclusion is Conclusion.REGRESSION
    assert named >= 0.95 * 60


def test_the_parts_add_up_to_the_change_of_the_mean() -> None:
    generator = random.Random(5)
    slower = stages.AVATAR_FIRST_FRAME_LATENCY
    found = compare(staged(60, generator), staged(60, generator, slower=slower, by_ms=300.0))
    assert sum(part.change for part in found.attribution.parts) == pytest.approx(
        found.attribution.change
    )
    assert found.attribution.main.share == pytest.approx(1.0, abs=0.25)
    between = next(part for part in found.attribution.parts if part.stage is None)
    assert between.change == pytest.approx(0.0, abs=1e-6)


def test_a_few_turns_prove_nothing_and_say_how_many_would() -> None:
    generator = random.Random(6)
    found = compare(plain(20, generator), plain(20, generator))
    assert found.conclusion is Conclusion.NOT_ENOUGH_DATA
    # 2·(1.96 + 0.84)²·(0.2/0.05)² ÷ 0.955, for a log-normal and Mann-Whitney's efficiency.
    assert 263 / 2.5 < found.needed < 263 * 2.5
    assert f"about {found.needed} turns a side, there are 20 and 20" in found.reason
    assert found.conclusion.exit_status == 2


def test_with_the_turns_that_were_asked_for_equal_runs_are_no_regression() -> None:
    generator = random.Random(7)
    found = [compare(plain(400, generator), plain(400, generator)) for _ in range(20)]
    ruled_out = [one.conclusion in {Conclusion.SAME, Conclusion.BETTER} for one in found]
    assert sum(ruled_out) >= 0.7 * len(found)


@pytest.mark.parametrize("sides", [(7, 100), (100, 7), (0, 100)])
def test_under_eight_turns_a_side_nothing_is_compared(sides: tuple[int, int]) -> None:
    generator = random.Random(8)
    found = compare(plain(sides[0], generator), plain(sides[1], generator))
    assert found.conclusion is Conclusion.NOT_ENOUGH_DATA
    assert found.primary is None


def test_the_least_change_that_matters_decides() -> None:
    generator = random.Random(9)
    before, after = plain(300, generator), plain(300, generator, 1.15)
    assert compare(before, after).conclusion is Conclusion.REGRESSION
    generous = compare(before, after, least=MinChange(0.4))
    assert generous.conclusion is Conclusion.SAME
    amount = compare(before, after, least=MinChange(600.0, relative=False))
    assert (amount.least, amount.conclusion) == (600.0, Conclusion.SAME)


def test_another_metric_can_be_declared_and_higher_may_be_better() -> None:
    generator = random.Random(10)
    key = stages.RENDER_FPS.key

    def fps(median: float) -> list[samples.Turn]:
        return [samples.turn(n, {key: samples.draw(median, generator)}) for n in range(100)]

    slower = compare(result_of(fps(30.0)), result_of(fps(24.0)), metric=stages.RENDER_FPS)
    assert (slower.conclusion, slower.primary.stage) == (Conclusion.REGRESSION, stages.RENDER_FPS)
    faster = compare(result_of(fps(24.0)), result_of(fps(30.0)), metric=stages.RENDER_FPS)
    assert faster.conclusion is Conclusion.BETTER


def test_drift_is_compared_by_its_magnitude() -> None:
    key = stages.AV_DRIFT.key
    generator = random.Random(11)
    sides = [
        result_of([samples.turn(n, {key: generator.gauss(mean, 5.0)}) for n in range(60)])
        for mean in (20.0, -60.0)
    ]
    found = compare(sides[0], sides[1], metric=stages.AV_DRIFT)
    assert found.conclusion is Conclusion.REGRESSION
    assert found.primary.found.estimate == pytest.approx(40.0, abs=5.0)


def test_turns_that_fail_more_often_are_a_regression_however_fast_the_rest_is() -> None:
    generator = random.Random(12)

    def run(failed: int) -> samples.Result:
        turns = [samples.turn(n, {KEY: samples.draw(1800.0, generator)}) for n in range(100)]
        lost = [samples.turn(1000 + n, {}, Outcome.VANISHED) for n in range(failed)]
        return result_of(turns + lost)

    found = compare(run(1), run(12))
    assert found.conclusion is Conclusion.REGRESSION
    assert "turns that fail rose from 1 of 101 to 12 of 112" in found.reason
    assert compare(run(12), run(1)).failures.p > 0.5


def test_stages_that_did_not_move_are_not_said_to_have_in_19_of_20_comparisons() -> None:
    generator = random.Random(13)
    moved = [
        any(
            change.moved for change in compare(staged(40, generator), staged(40, generator)).changes
        )
        for _ in range(40)
    ]
    assert sum(moved) <= 4


def test_a_run_that_measured_its_generator_is_invalid() -> None:
    generator = random.Random(14)
    bad = plain(100, generator, invalid="sends were 300 ms late")
    found = compare(plain(100, generator), bad, names=("last", "now"))
    assert (found.conclusion, found.conclusion.exit_status) == (Conclusion.INVALID, 3)
    assert found.reason == "now measured its load generator: sends were 300 ms late"


def test_a_synthetic_run_is_not_compared_with_a_real_one() -> None:
    generator = random.Random(15)
    found = compare(plain(50, generator, synthetic=True), plain(50, generator))
    assert found.conclusion is Conclusion.INVALID


def test_settings_that_differ_are_said() -> None:
    generator = random.Random(16)
    found = compare(plain(50, generator), plain(50, generator, backend="local", mode="split"))
    assert found.mismatches == ("backend: omnirt → local", "mode: unified → split")
    assert "- differs: backend: omnirt → local" in render(found)


def test_the_same_data_gives_the_same_text_and_names_its_method() -> None:
    before, after = (staged(50, random.Random(seed)) for seed in (17, 18))
    text = render(compare(before, after))
    assert text == render(compare(before, after))
    assert "Hodges-Lehmann" in text
    assert "Holm" in text
    summary = render(compare(before, after), github=True)
    assert summary.startswith("## Verdict: ")
    assert "<details>" in summary
