import asyncio

import httpx
import pytest

from exporter import gauges
from exporter.observations import LanguageModelSeen, Reading, Readings
from exporter.sources.opentalking_http import OpenTalkingHttpSource

ANSWERS = {
    "/health": {"status": "ok", "llm_provider": "openai_compatible", "llm_model": "qwen-turbo"},
    "/models": {"statuses": [{"id": "wav2lip", "backend": "omnirt", "connected": True}]},
    "/openapi.json": {"info": {"title": "OpenTalking Unified", "version": "0.1.0"}},
}
INFO = gauges.TARGET_INFO.name


def polled(*rounds):
    """What a target is seen to say that answers so, one round after the other."""
    source, seen = OpenTalkingHttpSource("http://target", read_queue=False), []

    async def run():
        for answers in rounds:

            def answer(request, answers=answers):
                told = answers.get(request.url.path)
                return httpx.Response(503) if told is None else httpx.Response(200, json=told)

            transport = httpx.MockTransport(answer)
            async with httpx.AsyncClient(base_url="http://target", transport=transport) as client:
                await source.poll(client, seen.append)

    asyncio.run(run())
    return seen


def readings(seen):
    return [o for o in seen if isinstance(o, Readings)][-1].readings


def test_the_mode_is_told_and_the_version_of_its_interface_is_not():
    [info] = [r for r in readings(polled(ANSWERS)) if r.name == INFO]
    assert info == Reading(INFO, 1.0, {"mode": "unified"})


@pytest.mark.parametrize("title", ["Something else", None])
def test_a_mode_that_is_not_known_is_absent(title):
    answers = ANSWERS | {"/openapi.json": {"info": {"title": title}}}
    assert not [r for r in readings(polled(answers)) if r.name == INFO]


def test_nothing_is_told_of_a_target_that_does_not_answer():
    assert readings(polled(ANSWERS, {})) == ()


@pytest.mark.parametrize(
    ("health", "model", "provider"),
    [
        (ANSWERS["/health"], "qwen-turbo", "openai_compatible"),
        ({"status": "ok", "llm_model": "", "llm_provider": None}, None, None),
        ({"status": "ok"}, None, None),
    ],
)
def test_the_language_model_is_the_one_that_health_names(health, model, provider):
    [seen] = [o for o in polled(ANSWERS | {"/health": health}) if isinstance(o, LanguageModelSeen)]
    assert (seen.model, seen.provider) == (model, provider)
