"""Visits against the stand-in: what the observer hears, and that nothing is left."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from starlette.responses import JSONResponse

from exporter.stages import Outcome, Phase
from loadgen.load.admission import Admission
from loadgen.load.visit import Surroundings, Visit
from loadgen.marks import NullSink
from loadgen.opentalking import OpenTalking
from loadgen.scenario import Source
from loadgen.session import SessionConfig
from tests.loadgen.standin import SESSION, Say, answer, refusal, running, until
from tests.loadgen.test_session import PATIENT


class Observer:
    def __init__(self):
        self.news = []

    def __getattr__(self, name):
        return lambda *told: self.news.append((name, *told))

    def names(self):
        return [name for name, *_ in self.news]

    def of(self, name):
        return [told for heard, *told in self.news if heard == name]


def scenario(text):
    return Source("s.yaml", text).scenarios()[0]


ONE_TURN = "scenarios: [{name: a, think: 0, inputs: [{say: Hello}]}]"
TWO_TURNS = "scenarios: [{name: a, turns: 2, think: 0.1, inputs: [{say: Hello}]}]"


async def visiting(standin, text=ONE_TURN, observer=None, intended=None, use=None):
    observer = observer or Observer()
    async with OpenTalking(standin.url) as client:
        around = Surroundings(
            client=client,
            marks=NullSink(),
            admission=Admission(sessions=10, ramp=1e6),
            config=lambda _: SessionConfig(model="mock", avatar="testbot", limits=PATIENT),
            ending=asyncio.Event(),
        )
        visit = Visit(scenario(text), around, observer, random.Random(1), intended=intended)
        if use is None:
            await visit.run()
        else:
            await use(visit, around, observer)
    return observer


def test_a_visit_from_the_request_to_the_deletion():
    with running() as standin:
        observer = asyncio.run(visiting(standin, TWO_TURNS))
    assert observer.names() == [
        *("requested", "created", "opened", "speaking", "spoken", "speaking", "spoken", "closed"),
    ]
    assert observer.of("created") == [[SESSION]]
    for session, result, late in observer.of("spoken"):
        assert session == SESSION
        assert (result.outcome, result.phase) == (Outcome.COMPLETED, Phase.MEASURED)
        assert late >= 0
    assert observer.of("closed") == [[None]]
    assert standin.deleted == 1


def test_a_visit_that_begins_late_says_so_from_its_intended_start():
    async def run(standin):
        return await visiting(standin, intended=time.monotonic() - 5.0)

    with running() as standin:
        observer = asyncio.run(run(standin))
    [[_, late, waited]] = observer.of("opened")
    assert 5.0 <= late <= waited < 60


def test_a_visit_is_not_begun_before_its_intended_start():
    async def run(standin):
        intended = time.monotonic() + 0.5

        async def use(visit, around, observer):
            going = asyncio.create_task(visit.run())
            await until(lambda: observer.of("requested"))
            assert time.monotonic() >= intended
            await going

        await visiting(standin, intended=intended, use=use)

    with running() as standin:
        asyncio.run(run(standin))


def test_a_refusal_is_waited_out_and_the_session_then_had():
    busy = JSONResponse({"detail": "full"}, status_code=429, headers={"Retry-After": "1"})

    async def relent(visit, around, observer, standin):
        going = asyncio.create_task(visit.run())
        await until(lambda: observer.of("refused"))
        standin.behave.create_answer = None
        await going

    async def run(standin):
        async def use(visit, around, observer):
            await relent(visit, around, observer, standin)

        return await visiting(standin, use=use)

    with running(create_answer=busy) as standin:
        observer = asyncio.run(run(standin))
    assert observer.of("refused") == [[429, 1.0]]
    [[_, late, waited]] = observer.of("opened")
    # The wait is the target's wish, and the viewer's loss.
    assert waited >= 1.0
    assert late < waited
    assert observer.names().count("closed") == observer.names().count("requested") == 2


def test_a_target_that_refuses_for_another_reason_is_not_asked_again():
    with running(create_answer=refusal(400, "no key")) as standin:
        observer = asyncio.run(visiting(standin))
    assert standin.requests.count("POST /sessions") == 1
    [[failure, _]] = observer.of("failed")
    assert failure.status == 400
    assert "no key" in failure.message


def test_a_session_that_dies_ends_the_visit_and_is_deleted():
    with running(answers=[[*answer()[:2], Say(0.1, hang_up=True)]]) as standin:
        observer = asyncio.run(visiting(standin, TWO_TURNS))
    [[_, result, _]] = observer.of("spoken")
    assert result.outcome is Outcome.FAILED
    assert len(observer.of("failed")) == 1
    assert standin.deleted == 1


def test_a_visit_that_is_asked_to_leave_finishes_its_turn():
    slow = "scenarios: [{name: a, turns: 50, think: 30, inputs: [{say: Hello}]}]"

    async def use(visit, around, observer):
        going = asyncio.create_task(visit.run())
        await until(lambda: observer.of("speaking"))
        around.ending.set()
        await going

    with running(answers=[answer(0.6)]) as standin:
        observer = asyncio.run(visiting(standin, slow, use=use))
    [[_, result, _]] = observer.of("spoken")
    assert result.outcome is Outcome.COMPLETED
    assert standin.deleted == 1


@pytest.mark.parametrize("after", ["requested", "opened", "speaking"])
def test_a_cancelled_visit_leaves_no_session(after):
    async def use(visit, around, observer):
        going = asyncio.create_task(visit.run())
        await until(lambda: observer.of(after))
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

    with running(create_after=0.2) as standin:
        observer = asyncio.run(visiting(standin, use=use))
    assert standin.deleted == 1
    assert observer.names()[-1] == "closed"


def test_a_session_that_cannot_be_deleted_is_told_as_an_orphan():
    gone = [refusal(500, "redis is gone") for _ in range(2)]
    with running(delete_answers=gone) as standin:
        observer = asyncio.run(visiting(standin))
    [[orphan]] = observer.of("closed")
    assert "redis is gone" in orphan


def test_a_visit_that_was_due_and_found_no_place_is_told():
    async def use(visit, around, observer):
        around.admission.limit(sessions=0, ramp=1e6)
        going = asyncio.create_task(visit.run())
        await asyncio.sleep(0.2)
        around.ending.set()
        around.admission.limit(sessions=1, ramp=1e6)
        await going

    with running() as standin:
        observer = asyncio.run(visiting(standin, use=use))
    assert observer.names() == ["never_begun"]
    assert standin.requests == []
