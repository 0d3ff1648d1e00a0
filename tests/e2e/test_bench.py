"""`talkscope bench` against the real OpenTalking and OmniRT, as a user runs it."""

import json
import math
import shutil
import statistics
import struct
import wave

import httpx
import pytest
import redis

from exporter import stages, upstream
from loadgen.media.onset import Basis
from tests.e2e.conftest import attach, bench, counters, running, session_state
from tests.processes import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

REPEAT = 2

REACHABLE = [
    stage
    for stage in stages.STAGES.values()
    if stage.scope is stages.Scope.TURN
    and not stage.unseen
    # Nothing is spoken here, and nothing interrupted.
    and stage not in (stages.ASR_FINAL_LATENCY, stages.STT, stages.INTERRUPT_LATENCY)
]


@pytest.fixture(scope="module", params=["unified", "split"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def target(mode, request):
    return request.getfixturevalue(mode)


@pytest.fixture(scope="module")
def run(target, tmp_path_factory):
    before = counters(target)
    done = bench(tmp_path_factory.mktemp("bench") / "out", *attach(target), "--repeat", str(REPEAT))
    served = {name: value - before[name] for name, value in counters(target).items()}
    return done, served


def test_it_ends_well_and_writes_its_files(run):
    done, _ = run
    assert done.status == 0, done.stderr
    for name in ("report.md", "result.json", "result.csv", "bundle/manifest.json"):
        assert (done.out / name).exists()
    assert list(done.out.glob("*.tar.gz"))


def test_the_real_target_did_the_work(run, target):
    """OmniRT and the provider count what they served; OpenTalking names the session's model."""
    done, served = run
    turns = REPEAT + 1
    assert served["provider chat_completions"] == turns
    assert served["provider audio_speech"] >= turns
    assert served["chunks"] == sum(turn["timing"]["model_chunks"] for turn in done.turns)
    [session] = {turn["session"] for turn in done.turns}
    record = httpx.get(f"{target.url}/sessions/{session}").json()
    assert record["model"] == "wav2lip"


def test_every_stage_that_can_be_seen_has_a_value(run):
    done, _ = run
    for turn in done.measured:
        missing = {
            s.key: turn["absent"].get(s.key) for s in REACHABLE if s.key not in turn["values"]
        }
        assert missing == {}


def test_events_come_over_the_bus_in_split_mode_alone(run, mode):
    done, _ = run
    [source] = {turn["mark_sources"][stages.MEDIA_QUEUED] for turn in done.turns}
    assert source == ("bus" if mode == "split" else "sse")


def test_the_first_talking_frame_is_named_by_its_barcode(run):
    done, _ = run
    for turn in done.measured:
        assert turn["bases"][stages.CLIENT_FIRST_TALKING_FRAME] == "decoded barcode"
        assert turn["drift"]["basis"] == "decoded barcode"
        assert turn["drift"]["frames"] > 25


def test_warmup_and_measured_turns_are_kept_apart(run):
    done, _ = run
    assert [turn["phase"] for turn in done.turns] == ["warmup"] + ["measured"] * REPEAT
    assert stages.WARMUP.key in done.turns[0]["values"]
    assert all(turn["startup"] == "steady" for turn in done.measured)


def test_the_session_is_gone(run, target):
    done, _ = run
    [session] = {turn["session"] for turn in done.turns}
    wait_until(lambda: session_state(target, session) == "closed", "the session's end")


def test_our_figures_are_those_of_speech_timing(run):
    """To the millisecond, and in fact exactly: they are taken over, not computed again."""
    done, _ = run
    events = (done.out / "bundle" / "events.jsonl").read_text().splitlines()
    timings = [
        event["data"]
        for event in map(json.loads, events)
        if event["event"] == upstream.SPEECH_TIMING
    ]
    assert len(timings) == len(done.turns) == REPEAT + 1
    for turn, timing in zip(done.turns, timings, strict=True):
        for stage in stages.STAGES.values():
            if stage.timing_field is not None:
                assert turn["values"][stage.key] == timing[stage.timing_field]
        told = turn["values"]
        assert told[stages.TTFA.key] + told[stages.TTFV.key] == pytest.approx(
            timing["first_webrtc_queue_ms"], abs=0.001
        )


def test_the_report_agrees_with_an_independent_witness(split, tmp_path):
    """What the report prints is what a plain Redis subscriber saw, to the millisecond."""
    witnessed = []
    with redis.Redis.from_url(split.redis) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("opentalking:events:*")
        done = bench(tmp_path / "out", *attach(split), "--repeat", "3")
        while (message := pubsub.get_message(timeout=1)) is not None:
            if message["type"] == "pmessage":
                event = json.loads(message["data"])
                if event["event"] == "speech.timing":
                    witnessed.append(event["data"])
    assert done.status == 0, done.stderr
    measured = witnessed[1:]
    assert len(measured) == 3
    for stage in (stages.TTFA, stages.TTFV, stages.FIRST_TURN_TOTAL, stages.RTF):
        seen = [timing[stage.timing_field] for timing in measured]
        reported = done.result["turns"][stage.key]
        assert reported["median"] == pytest.approx(statistics.median(seen), abs=0.5)
        assert reported["min"] == pytest.approx(min(seen), abs=0.5)
        assert reported["max"] == pytest.approx(max(seen), abs=0.5)


def test_the_report_says_what_was_real(run):
    """The target was running already, so only its pictures tell that the model is synthetic."""
    done, _ = run
    assert "does not prove talking-head performance" in done.stdout
    assert "cold start: not measured: the target was already running" in done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """With --start demo the bench owns the target."""
    out = tmp_path_factory.mktemp("start") / "out"
    options = ["--start", "demo", "--agent", "--repeat", "1", "--tester", "test"]
    return bench(out, *options, "--demo-options", "--llm-text 'Hello there.'")


def test_cold_start_is_measured_when_the_bench_starts_the_target(demo):
    assert demo.status == 0, demo.stderr
    told = json.loads((demo.out / "bundle" / "run.json").read_text())
    facts = json.loads((demo.out / "target" / "target.json").read_text())
    assert told["cold_start"]["seconds"] == facts["cold_start"]["seconds"] > 0.5
    assert demo.turns[0]["startup"] == "cold"


def test_the_report_of_the_demo_names_its_stand_ins(demo):
    assert "A run on a synthetic runtime only proves orchestration works" in demo.stdout
    assert "Stand-ins: the model" in demo.stdout


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a driver")
def test_without_a_driver_the_report_says_no_accelerator(demo):
    assert "no accelerator: the NVIDIA driver's library" in demo.stdout
    assert demo.result["memory"] == {"scope": None, "device": None}


def test_with_the_agent_its_timestamps_pair_picture_and_sound(demo):
    [turn] = demo.measured
    assert turn["bases"][stages.CLIENT_FIRST_TALKING_FRAME] == Basis.AGENT
    assert turn["drift"]["basis"] == Basis.AGENT
    assert turn["mark_sources"][stages.TTS_FIRST_PCM] == "agent"


def test_nothing_of_the_demo_is_left(demo):
    facts = json.loads((demo.out / "target" / "target.json").read_text())
    for part in ("opentalking", "omnirt", "provider"):
        with pytest.raises(httpx.ConnectError):
            httpx.get(facts[part]["url"])


def test_without_its_switches_the_target_shows_less_and_the_report_says_so(tmp_path):
    """No timing event and no log: client figures stay, the others say what they need."""
    options = ("--no-benchmark-timing", "--llm-text", "Hello there.")
    with running(tmp_path / "target", "unified", *options) as target:
        (tmp_path / "token").write_text("s3cret")
        done = bench(
            tmp_path / "out",
            *("--target", target.url, "--model", "wav2lip", "--repeat", "1"),
            *("--exporter-token-file", str(tmp_path / "token")),
        )
    assert done.status == 0, done.stderr
    [turn] = done.measured
    assert turn["values"][stages.PERCEIVED_TTFV.key] > 100
    for stage in (stages.TTFA, stages.TTFV, stages.LLM_FIRST_TOKEN_LATENCY):
        assert stage.key not in turn["values"]
    assert "OPENTALKING_BENCHMARK_TIMING=1" in turn["absent"][stages.TTFA.key]
    assert "no log is read" in turn["absent"][stages.LLM_FIRST_TOKEN_LATENCY.key]
    assert "OPENTALKING_BENCHMARK_TIMING=1" in done.stdout


def test_spoken_input_measures_the_transcript(unified, tmp_path):
    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        tone = (int(8000 * math.sin(i / 8)) for i in range(16_000))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    done = bench(tmp_path / "out", *attach(unified), "--audio", str(path), "--repeat", "1")
    assert done.status == 0, done.stderr
    [turn] = done.measured
    assert turn["input"] == "speech"
    # The stand-in recogniser answers after 150 ms; the answer itself comes after that.
    assert turn["values"][stages.ASR_FINAL_LATENCY.key] > 150
    assert turn["values"][stages.PERCEIVED_TTFA.key] > turn["values"][stages.ASR_FINAL_LATENCY.key]
