"""Greenlets and the event loop's thread."""

from __future__ import annotations

import asyncio
import threading

import gevent
import pytest

from loadgen.load.bridge import Bridge


@pytest.fixture(scope="module")
def bridge():
    return Bridge()


def test_a_coroutine_runs_in_another_thread_and_its_result_comes_back(bridge):
    async def where():
        await asyncio.sleep(0)
        return threading.get_ident()

    assert bridge.run(where()) != threading.get_ident()


def test_an_error_comes_back_as_itself(bridge):
    async def fail():
        raise ZeroDivisionError("for a reason")

    with pytest.raises(ZeroDivisionError, match="for a reason"):
        bridge.run(fail())


def test_many_greenlets_wait_at_once(bridge):
    async def sleep(number):
        await asyncio.sleep(0.2)
        return number

    greenlets = [gevent.spawn(bridge.run, sleep(n)) for n in range(50)]
    gevent.joinall(greenlets, timeout=30)
    assert [g.value for g in greenlets] == list(range(50))


def test_what_the_loop_emits_arrives_among_the_greenlets_in_order(bridge):
    heard = []

    async def tell():
        for number in range(100):
            bridge.emit(lambda n: heard.append((n, threading.get_ident())), number)

    bridge.run(tell())
    assert heard == [(n, threading.get_ident()) for n in range(100)]


def test_a_killed_greenlet_ends_only_when_its_coroutine_has_cleaned_up(bridge):
    steps = []

    async def visit():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            steps.append("deleted")

    greenlet = gevent.spawn(bridge.run, visit())
    gevent.sleep(0.1)
    greenlet.kill(block=False)
    gevent.sleep(0.1)
    # Asked twice, as by an impatient Ctrl-C.
    greenlet.kill(timeout=30)
    assert steps == ["deleted"]
    assert greenlet.dead
