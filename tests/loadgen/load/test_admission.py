"""Limits on sessions and ramp, and the target's wish for a pause."""

from __future__ import annotations

import asyncio
import time

import pytest

from loadgen.load.admission import MOST_BACKOFF_S, Admission

FAST = 1e6


def test_no_more_sessions_than_allowed_and_every_place_is_given_on():
    most = 0

    async def run():
        admission = Admission(sessions=3, ramp=FAST)

        async def visit():
            nonlocal most
            async with admission.place():
                most = max(most, admission.active)
                await asyncio.sleep(0.01)

        await asyncio.gather(*(visit() for _ in range(20)))
        return admission.active

    assert asyncio.run(run()) == 0
    assert most == 3


def test_a_visit_that_is_cancelled_gives_its_place_back():
    async def run():
        admission = Admission(sessions=1, ramp=FAST)

        async def stay():
            async with admission.place():
                await asyncio.sleep(60)

        staying = asyncio.create_task(stay())
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(stay())
        await asyncio.sleep(0.01)
        assert admission.active == 1
        staying.cancel()
        waiting.cancel()
        await asyncio.gather(staying, waiting, return_exceptions=True)
        return admission.active

    assert asyncio.run(run()) == 0


def test_a_raised_limit_lets_those_in_who_wait():
    async def run():
        admission = Admission(sessions=1, ramp=FAST)
        entered = []

        async def visit(number):
            async with admission.place():
                entered.append(number)
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(visit(n)) for n in range(3)]
        await asyncio.sleep(0.05)
        before = list(entered)
        admission.limit(sessions=2, ramp=FAST)
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return before, entered

    before, after = asyncio.run(run())
    assert (len(before), len(after)) == (1, 2)


def test_the_ramp_spaces_sessions_out():
    async def run():
        admission = Admission(sessions=100, ramp=20.0)
        begun = time.monotonic()
        starts = []

        async def visit():
            async with admission.place():
                starts.append(time.monotonic() - begun)

        await asyncio.gather(*(visit() for _ in range(6)))
        return starts

    starts = asyncio.run(run())
    # Never earlier than its turn; how much later is the machine's doing.
    assert all(start >= number / 20 - 0.001 for number, start in enumerate(starts))


def test_a_pause_holds_everybody_and_is_not_held_against_the_generator():
    async def run():
        admission = Admission(sessions=10, ramp=FAST)
        assert admission.pause(0.3, attempt=1) == 0.3
        begun = time.monotonic()
        async with admission.place() as paused:
            return paused, time.monotonic() - begun

    paused, waited = asyncio.run(run())
    assert 0.29 <= paused <= waited


@pytest.mark.parametrize(
    ("wish", "attempt", "pause"),
    [
        (7.0, 1, 7.0),
        (7.0, 3, 7.0),
        (None, 1, 1.0),
        (None, 3, 4.0),
        (None, 20, MOST_BACKOFF_S),
        (9_999.0, 1, MOST_BACKOFF_S),
        (0.0, 1, 0.0),
    ],
)
def test_how_long_a_refusal_holds(wish, attempt, pause):
    assert Admission(sessions=1, ramp=1.0).pause(wish, attempt) == pause
