"""The API client: answers as recorded, and every way an answer can fail to come."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from starlette.responses import JSONResponse

from loadgen.errors import Cause, TargetError
from loadgen.loopback import is_loopback
from loadgen.opentalking import OpenTalking
from tests.loadgen.standin import MODELS, PLAIN, SESSION, TEXT, refusal, running


def ask(url, question, *, timeout=30.0):
    async def run():
        async with OpenTalking(url, timeout=timeout) as client:
            return await question(client)

    return asyncio.run(run())


def fails(url, question, **options):
    with pytest.raises(TargetError) as caught:
        ask(url, question, **options)
    return caught.value


def create(client):
    return client.create_session(avatar="testbot", model="mock", timeout=1.0)


def heard(_at):
    return None


def stream(client):
    return client.speak_audio_stream(
        SESSION, bytes(3_200), on_first_audio=heard, on_last_audio=heard, timeout=5.0
    )


# --- answers ---------------------------------------------------------------------------------


def test_the_deployment_as_recorded():
    async def look(client):
        return await client.health(), await client.models(), await client.avatars()

    with running() as standin:
        health, models, avatars = ask(standin.url, look)
    assert health["status"] == "ok"
    assert [m.id for m in models.connected] == ["mock", "wav2lip"]
    assert models.default == "mock"
    assert avatars == ("tall", "testbot")


def test_a_url_with_a_path_reaches_the_api_behind_it():
    with running() as standin:
        error = fails(standin.url + "/opentalking", lambda c: c.health())
    assert error.status == 404
    assert "/opentalking an OpenTalking API?" in str(error)


def test_speech_gets_its_transcript():
    with running() as standin:
        assert ask(standin.url, stream) == TEXT
    assert len(standin.speech) == 3_200


def test_an_uploaded_recording_gets_its_transcript():
    with running() as standin:
        said = ask(standin.url, lambda c: c.speak_audio(SESSION, b"RIFF", filename="a.wav"))
    assert said == TEXT


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "model 'musetalk' is not yet supported on this deployment."),
        (404, "avatar not found"),
        (503, "Session worker did not become ready in time."),
    ],
)
def test_a_refusal_carries_the_targets_own_words(status, detail):
    with running(create_answer=refusal(status, detail)) as standin:
        error = fails(standin.url, create)
    assert error.cause is Cause.HTTP_STATUS
    assert error.status == status
    assert str(error) == f"POST /sessions: HTTP {status}: {detail}"


def test_a_validation_error_of_fastapi_is_readable():
    detail = [{"loc": ["body", "text"], "msg": "Field required"}]
    with running(create_answer=refusal(422, detail)) as standin:
        assert "Field required" in str(fails(standin.url, create))


def test_a_target_that_hangs():
    with running(create_after=60.0) as standin:
        error = fails(standin.url, create)
    assert error.cause is Cause.TIMEOUT
    assert "POST /sessions had no answer within 1 s" in str(error)


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = fails(url, lambda c: c.health())
    assert error.cause is Cause.UNREACHABLE
    assert url in str(error)


def test_a_server_that_hangs_up():
    async def hang_up(_reader, writer):
        writer.close()

    async def run():
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, OpenTalking(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(TargetError) as caught:
                await client.health()
        return caught.value

    assert asyncio.run(run()).cause is Cause.UNREACHABLE


@pytest.mark.parametrize(
    ("behaviour", "question"),
    [
        ({"health": PLAIN}, lambda c: c.health()),
        ({"health": [1]}, lambda c: c.health()),
        ({"models": {"models": ["mock"]}}, lambda c: c.models()),
        ({"models": {"statuses": [{"id": "mock"}]}}, lambda c: c.models()),
        ({"avatars": {"detail": "?"}}, lambda c: c.avatars()),
        ({"avatars": [{"name": "x"}]}, lambda c: c.avatars()),
        ({"create_answer": PLAIN}, create),
        ({"transcript": {"status": "queued"}}, stream),
        ({"transcript": None}, stream),
    ],
)
def test_answers_that_opentalking_does_not_give(behaviour, question):
    with running(**behaviour) as standin:
        assert fails(standin.url, question).cause is Cause.BAD_ANSWER


def test_speech_that_is_refused():
    with running(transcript={"error": "session not found"}) as standin:
        error = fails(standin.url, stream)
    assert error.cause is Cause.REFUSED
    assert "session not found" in str(error)


def test_a_speech_socket_that_does_not_exist():
    with running() as standin:
        error = fails(standin.url + "/elsewhere", stream)
    assert error.cause is Cause.UNREACHABLE


def test_events_of_a_session_that_does_not_exist():
    async def subscribe(client):
        async with client.events("sess_unknown"):
            pass

    with running() as standin:
        assert fails(standin.url, subscribe).status == 404


def test_deleting_what_is_gone_is_no_error():
    with running(delete_answers=[refusal(404, "session not found")]) as standin:
        ask(standin.url, lambda c: c.delete(SESSION))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "opentalking:8000",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://h:99999",
        "http://[::1",
    ],
)
def test_what_is_no_url_of_an_api(url):
    with pytest.raises(ValueError, match="http"):
        OpenTalking(url)


# --- loopback --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.10", True),
        ("http://localhost:8000/api", True),
        ("http://[::1]:8000", True),
        ("http://demo.localhost", True),
        ("http://10.0.0.5:8000", False),
        ("https://opentalking.example", False),
        ("http://localhost.example", False),
        ("http://0.0.0.0:8000", False),
    ],
)
def test_which_urls_stay_on_this_machine(url, loopback):
    assert is_loopback(url) is loopback


def test_a_proxy_of_the_environment_is_not_asked_for_a_loopback_target(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with running() as standin:
        assert ask(standin.url, lambda c: c.models()).default == MODELS["default_model"]
        assert ask(standin.url, stream) == TEXT


@pytest.mark.parametrize(
    ("told", "low", "high"),
    # The name of a test must not depend on when it is collected.
    ids=["seconds", "an instant to come", "an instant long gone"],
    argvalues=[
        ("12", 12, 12),
        (format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True), 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_a_refusal_says_when_to_come_back(told, low, high):
    busy = JSONResponse({"detail": "full"}, status_code=503, headers={"Retry-After": told})
    with running(create_answer=busy) as standin:
        error = fails(standin.url, lambda c: c.create_session(avatar="testbot", model="mock"))
    assert error.status == 503
    assert low <= error.retry_after <= high


def test_a_time_to_come_back_that_nobody_can_read_is_none():
    busy = JSONResponse({"detail": "full"}, status_code=503, headers={"Retry-After": "soon"})
    with running(create_answer=busy) as standin:
        error = fails(standin.url, lambda c: c.create_session(avatar="testbot", model="mock"))
    assert error.retry_after is None
