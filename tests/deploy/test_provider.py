"""The stand-in provider, as it runs in OpenTalking's environment."""

import json
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import services

pytestmark = pytest.mark.e2e

PATIENCE = 60
BYTES_PER_SECOND = 32_000


@pytest.fixture(scope="module")
def url(venvs):
    """A provider of its own, for the tests here to turn its knobs."""
    port = services.free_ports().provider
    command = [str(venvs / "opentalking" / "bin" / "python"), str(services.HERE / "provider.py")]
    environment = {"TALKSCOPE_PROVIDER_LLM_TEXT": "One two three."}
    with subprocess.Popen([*command, f"--port={port}"], env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{url}/counters", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the provider ended at once"
                assert time.monotonic() < deadline, "the provider does not answer"
                time.sleep(0.05)
        yield url
        process.terminate()


@pytest.fixture(autouse=True)
def knobs(url, http_json):
    """Turn knobs; they are turned back after each test."""
    before = http_json(f"{url}/knobs")

    def turn(**changes):
        return http_json(f"{url}/knobs", changes)

    yield turn
    turn(**before)


def post(url, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=PATIENCE)


def chat(url, stream=True):
    return post(f"{url}/v1/chat/completions", {"stream": stream, "messages": []})


def speech(url, text, response_format="pcm"):
    body = {"input": text, "response_format": response_format}
    with post(f"{url}/v1/audio/speech", body) as answer:
        return answer.read()


def transcribe(url):
    return post(f"{url}/v1/audio/transcriptions", {})


def deltas(answer):
    events = answer.read().decode().strip().split("\n\n")
    assert events.pop() == "data: [DONE]"
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    return [choice["delta"].get("content") for choice in choices], choices[-1]["finish_reason"]


def test_a_streamed_chat_is_the_text_word_by_word(url):
    with chat(url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert deltas(answer) == (["One ", "two ", "three.", None], "stop")


def test_a_whole_chat_is_the_same_text(url):
    with chat(url, stream=False) as answer:
        message = json.load(answer)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "One two three."}


def test_knobs_turned_while_it_runs_hold_for_the_next_request(url, knobs):
    assert knobs(llm_text="Four five.")["llm_text"] == "Four five."
    with chat(url) as answer:
        assert deltas(answer)[0] == ["Four ", "five.", None]


def test_the_first_token_does_not_come_before_its_time(url, knobs):
    knobs(llm_first_token_ms=300)
    started = time.monotonic()
    with chat(url) as answer:
        answer.readline()
        assert time.monotonic() - started >= 0.3


def test_speech_is_as_long_as_saying_the_text_takes(url, knobs):
    knobs(tts_chars_per_second=10, tts_rtf=0, tts_first_pcm_ms=0)
    pcm = speech(url, "x" * 25)
    assert len(pcm) == 2.5 * BYTES_PER_SECOND
    assert any(pcm)


def test_speech_takes_its_synthesis_time(url, knobs):
    knobs(tts_chars_per_second=10, tts_rtf=0.5, tts_first_pcm_ms=100)
    started = time.monotonic()
    speech(url, "x" * 10)
    # 1 s of audio in ten pieces: the last one leaves nine tenths of 0.5 s after the first.
    assert time.monotonic() - started >= 0.1 + 0.45


def test_speech_in_another_format_is_refused(url):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        speech(url, "hello", response_format="mp3")


def test_a_transcript_is_the_knob_s_text(url, knobs):
    knobs(stt_text="good morning")
    with transcribe(url) as answer:
        assert json.load(answer) == {"text": "good morning"}


@pytest.mark.parametrize(
    ("knob", "ask"),
    [
        ("llm_fail", chat),
        ("tts_fail", lambda url: speech(url, "hello")),
        ("stt_fail", transcribe),
    ],
)
def test_a_service_that_is_switched_to_fail_answers_503(url, knobs, knob, ask):
    knobs(**{knob: True})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(url)
    assert refusal.value.code == 503
    assert knob in refusal.value.read().decode()


@pytest.mark.parametrize(
    ("body", "knob"),
    [
        (b'{"tts_rtf": "slow"}', "tts_rtf"),
        (b'{"llm_token_ms": NaN}', "llm_token_ms"),
        (b'{"volume": 11}', "volume"),
        (b"[1]", None),
        (b"loud", None),
    ],
)
def test_a_bad_change_of_knobs_is_refused_by_name_and_changes_nothing(url, http_json, body, knob):
    before = http_json(f"{url}/knobs")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(urllib.request.Request(f"{url}/knobs", body, method="PUT"))
    assert refusal.value.code == 400
    assert json.load(refusal.value)["knob"] == knob
    assert http_json(f"{url}/knobs") == before


def test_requests_are_counted_by_endpoint(url, http_json):
    before = http_json(f"{url}/counters")
    http_json(f"{url}/v1/models")
    chat(url).close()
    speech(url, "hello")
    speech(url, "hello")
    transcribe(url).close()
    after = http_json(f"{url}/counters")
    assert {name: after[name] - before[name] for name in after} == {
        "chat_completions": 1,
        "audio_speech": 2,
        "audio_transcriptions": 1,
        "models": 1,
    }
