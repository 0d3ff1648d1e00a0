"""Objectives pass or fail only on evidence."""

from __future__ import annotations

from typing import Any

import pytest

from exporter import stages
from exporter.stages import Outcome
from report.slo import Check, SloError, Status, check, read, worst
from tests.report.samples import result_of, turn

KEY = stages.PERCEIVED_TTFV.key


def checked(values: list[float], **objective: Any) -> Check:
    result = result_of([turn(n, {KEY: value}) for n, value in enumerate(values)])
    (found,) = check(result, read({"objectives": [{"metric": KEY, **objective}]}))
    return found


@pytest.mark.parametrize(
    ("n", "slow", "status"),
    [
        (58, 0, Status.OPEN),
        (59, 0, Status.PASS),
        (100, 1, Status.PASS),
        (100, 2, Status.OPEN),
        (100, 5, Status.OPEN),
        (100, 9, Status.OPEN),
        (100, 10, Status.FAIL),
        (3, 3, Status.FAIL),
    ],
)
def test_a_p95_is_judged_by_the_binomial_test(n: int, slow: int, status: Status) -> None:
    # P(X ≤ 1 | 100, 5 %) = 0.037, P(X ≤ 2) = 0.118; P(X ≥ 10) = 0.028, P(X ≥ 9) = 0.063.
    found = checked([4000.0] * slow + [2000.0] * (n - slow), at_most=3000)
    assert found.status is status
    assert found.claim == f"95 % of {KEY} at most 3000 ms"


def test_an_open_objective_says_how_many_turns_would_prove_it() -> None:
    assert checked([2000.0] * 20, at_most=3000).evidence == (
        "0 of 20 break it: about 59 turns prove it, if the share stays as it is"
    )
    assert "no number of turns tells" in checked([4000.0] * 5 + [1.0] * 95, at_most=3000).evidence


def test_a_value_at_the_limit_keeps_it() -> None:
    assert checked([3000.0] * 60, at_most=3000).status is Status.PASS
    assert checked([25.0] * 60, at_least=25).status is Status.PASS
    assert checked([24.9] * 60, at_least=25).status is Status.FAIL


def test_of_drift_the_magnitude_counts() -> None:
    result = result_of([turn(n, {stages.AV_DRIFT.key: -90.0}) for n in range(60)])
    objective = {"metric": stages.AV_DRIFT.key, "at_most": 45}
    (found,) = check(result, read({"objectives": [objective]}))
    assert found.status is Status.FAIL


def test_turns_that_did_not_complete_are_judged_too() -> None:
    turns = [turn(n, {}) for n in range(400)] + [turn(999, {}, Outcome.VANISHED)]
    checks = check(result_of(turns), read({"objectives": [], "completed": 0.98}))
    assert [one.status for one in checks] == [Status.PASS]
    assert checks[0].evidence == "1 of 401 break it"


def test_what_was_not_measured_is_open_with_its_reason() -> None:
    (found,) = check(
        result_of([turn(1, {})]),
        read({"objectives": [{"metric": stages.RTF.key, "at_most": 1.0}]}),
    )
    assert found.status is Status.OPEN
    assert found.evidence.startswith("not measured: not seen; needs: ")


def test_one_failure_is_worse_than_an_open_question() -> None:
    passed, failed, left = (Check("", status, "") for status in Status)
    assert worst([passed, left, failed]) is Status.FAIL
    assert worst([passed, left]) is Status.OPEN
    assert worst([passed]) is Status.PASS
    assert [status.exit_status for status in Status] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"objectives": [{"metric": "ttfx", "at_most": 1}]}, "objectives[0].metric is 'ttfx'"),
        ({"objectives": [{"metric": KEY}]}, "objectives[0] needs either at_most or at_least"),
        ({"objectives": [{"metric": KEY, "at_most": "3 s"}]}, 'at_most is "3 s" where a number'),
        ({"objectives": [{"metric": KEY, "atmost": 3}]}, "objectives[0].atmost is unknown"),
        ({"objectives": [{"metric": KEY, "at_most": 1, "percentile": 100}]}, "between 0 and 100"),
        ({"objectives": [], "completed": 99}, "completed is 99; it is a share"),
        ({"objective": []}, "objective is unknown; there are: objectives, completed"),
        ([], "is a list where an object is expected"),
        (None, "is null where an object is expected"),
    ],
)
def test_a_file_that_says_something_impossible_is_told(content: object, problem: str) -> None:
    with pytest.raises(SloError) as caught:
        read(content)
    assert problem in str(caught.value)
