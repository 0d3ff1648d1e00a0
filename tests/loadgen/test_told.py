"""Asking the exporter what the agent told of a speech."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from loadgen.media.onset import FirstTimestamps
from loadgen.told import AgentTimestamps


def ask(answer, seconds=5.0):
    async def run():
        transport = httpx.MockTransport(answer)
        async with AgentTimestamps("http://exporter", transport) as told:
            return await told("sess_1", seconds)

    return asyncio.run(run())


def speech(age):
    return lambda _: httpx.Response(200, json={"age_seconds": age, "video": 7, "audio": 9})


def test_the_speech_that_answers_the_input():
    asked = []

    def answer(request):
        asked.append(request.url.path)
        return speech(4.8)(request)

    assert ask(answer) == FirstTimestamps(7, 9)
    assert asked == ["/v1/sessions/sess_1/speech"]


def test_a_speech_of_an_earlier_input_is_not_this_ones():
    assert ask(speech(5.2)) is not None
    assert ask(speech(6.0)) is None


def unreachable(request):
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    "answer",
    [
        unreachable,
        lambda _: httpx.Response(404, json={"error": "no agent"}),
        lambda _: httpx.Response(200, text="<html>"),
        lambda _: httpx.Response(200, json={"age_seconds": 1.0, "video": None, "audio": 3}),
    ],
    ids=["no exporter", "no agent", "no JSON", "half an answer"],
)
def test_nothing_is_told(answer):
    assert ask(answer) is None


def conversation(*answers):
    """What is told when the exporter's answers are these, the last one for ever, and how many."""
    left = list(answers)
    asked = []

    def answer(request):
        asked.append(request)
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    async def run():
        async with AgentTimestamps("http://exporter", httpx.MockTransport(answer)) as told:
            return [await told("sess_1", 5.0) for _ in range(2)]

    return asyncio.run(run()), len(asked)


def test_a_known_agent_is_given_the_time_to_tell():
    told, asked = conversation(speech(4.8), speech(60.0), speech(60.0), speech(4.9))
    assert told == [FirstTimestamps(7, 9)] * 2
    assert asked == 4


def test_nobody_waits_where_no_agent_has_ever_told():
    told, asked = conversation(lambda _: httpx.Response(404))
    assert told == [None, None]
    assert asked == 2


def test_an_exporter_that_does_not_answer_is_left_alone_for_a_while():
    told, asked = conversation(unreachable)
    assert told == [None, None]
    assert asked == 1
