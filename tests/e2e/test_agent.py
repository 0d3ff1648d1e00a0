"""The agent in the real OpenTalking: what it tells is what OpenTalking and the client saw."""

import asyncio
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import loadgen.session
from exporter import stages
from exporter.agent.hooks import HOOKS
from exporter.stages import Outcome
from loadgen.marks import NullSink
from loadgen.media.meter import MediaMeter
from loadgen.media.onset import by_number
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from talkscope import children
from tests.e2e.conftest import SHORT_ANSWER, running
from tests.exporter.agent.receiver import AHEAD_S, Received, receiver
from tests.processes import ROOT, free_port

pytestmark = pytest.mark.e2e

TURNS = 2
TOKEN = "told-to-the-demo"
TOLERANCE_MS = 2.0
BITS_32 = 0xFFFFFFFF


class _Meter(MediaMeter):
    """Keeps the RTP timestamps of what it takes for the first talking frame and sound."""

    def __init__(self, **options):
        super().__init__(**options)
        self.firsts = []

    def end_turn(self, told=None):
        frame = by_number(self._frames.all(), self._numbers, self._begin)
        sound = min(timestamp for timestamp, _ in self._sounds.all())
        self.firsts.append((frame.timestamp & BITS_32, sound & BITS_32))
        return super().end_turn(told)


async def _speak(target: children.DemoTarget, turns: int) -> tuple[list[Outcome], Any]:
    async with OpenTalking(target.url) as client:
        config = SessionConfig(model="wav2lip", avatar=str(target.facts["avatar"]))
        async with Session(client, config, NullSink()) as session:
            outcomes = [(await session.turn(TextInput("Hello."))).outcome for _ in range(turns)]
            return outcomes, session._meter


@dataclass
class Observed:
    records: list[dict[str, Any]]
    events: list[dict[str, Any]]
    observations: list[Any]
    firsts: list[tuple[int, int]]
    log: str

    def data_of(self, event):
        return [e["data"] for e in self.events if e["event"] == event]


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Two turns, seen by a client that tells the exporter nothing."""
    with pytest.MonkeyPatch.context() as patched, receiver() as received:
        patched.setattr(loadgen.session, "MediaMeter", _Meter)
        patched.setenv("TALKSCOPE_TOKEN", TOKEN)
        options = ("--llm-text", SHORT_ANSWER, "--agent", received.url)
        with running(tmp_path_factory.mktemp("agent"), "unified", *options) as target:
            outcomes, meter = asyncio.run(_speak(target, TURNS))
            received.wait_for("pipeline", TURNS)
            log = target.log.read_text()
    assert outcomes == [Outcome.COMPLETED] * TURNS
    assert received.refusals == []
    assert set(received.authorizations) == {f"Bearer {TOKEN}"}
    return Observed(
        received.of_kind("pipeline"),
        received.of_kind("event"),
        received.observations,
        meter.firsts,
        log,
    )


def test_each_turn_has_exactly_one_record(observed):
    assert [r["outcome"] for r in observed.records] == ["completed"] * TURNS
    assert [r["error"] for r in observed.records] == [None] * TURNS
    assert "talkscope agent" not in observed.log, "a hook is missing or failed"


def test_stages_are_those_of_speech_timing(observed):
    for record, timing in zip(observed.records, observed.data_of("speech.timing"), strict=True):
        marks = record["marks"]
        ms = {name: 1000.0 * at for name, at in marks.items()}
        told = {
            stages.TTS_FIRST_PCM: timing["ttfa_ms"],
            stages.AVATAR_REQUESTED: timing["first_model_request_ms"],
            stages.AVATAR_FIRST_FRAME: timing["first_model_return_ms"],
            stages.MEDIA_QUEUED: timing["first_webrtc_queue_ms"],
            stages.SPEECH_GENERATED: timing["speak_wall_ms"],
            stages.INPUT_ENQUEUED: -timing["api_enqueue_to_speak_enter_ms"],
        }
        assert {name: ms[name] for name in told} == pytest.approx(told, abs=TOLERANCE_MS)
        total = ms[stages.MEDIA_QUEUED] - ms[stages.INPUT_ENQUEUED]
        assert total == pytest.approx(timing["e2e_first_response_ms"], abs=TOLERANCE_MS)
        chunks = [1000.0 * (returned - requested) for requested, returned in record["chunks"]]
        assert chunks == pytest.approx(timing["chunk_latency_ms"], abs=TOLERANCE_MS)


def test_stages_are_those_of_the_log(observed):
    pipeline = re.findall(r"Speak pipeline timing: .* llm_first_token_ms=(\d+)", observed.log)
    sentences = re.findall(r"TTS sentence done .* first_pcm=(\d+)ms", observed.log)
    for record, llm_ms, pcm_ms in zip(observed.records, pipeline, sentences, strict=True):
        marks = record["marks"]
        llm = marks[stages.LLM_FIRST_TOKEN] - marks[stages.LLM_REQUESTED]
        pcm = marks[stages.TTS_FIRST_PCM] - marks[stages.TTS_REQUESTED]
        assert 1000.0 * llm == pytest.approx(float(llm_ms), abs=TOLERANCE_MS)
        assert 1000.0 * pcm == pytest.approx(float(pcm_ms), abs=TOLERANCE_MS)


def test_rtp_timestamps_are_those_the_client_received(observed):
    media = [r["media"] for r in observed.records]
    told = [(m["first_video_timestamp"], m["first_audio_timestamp"]) for m in media]
    assert told == observed.firsts


def test_unified_mode_is_seen_without_a_client(observed):
    names = [e["event"] for e in observed.events]
    assert names.count("speech.started") == TURNS
    assert names.count("speech.media_started") == TURNS
    assert names.count("speech.ended") == TURNS
    assert {e["session"] for e in observed.events} == {r["session"] for r in observed.records}


def test_records_come_on_the_exporters_clock(observed):
    ended = [e["unix"] for e in observed.events if e["event"] == "speech.ended"]
    seen = [o for o in observed.observations if hasattr(o, "first_video")]
    for record, on_theirs, end in zip(observed.records, seen, ended, strict=True):
        assert on_theirs.entered - record["started_unix"] == pytest.approx(AHEAD_S, abs=0.05)
        generated = record["started_unix"] + record["marks"][stages.SPEECH_GENERATED]
        assert generated == pytest.approx(end, abs=0.05)


async def _outcomes(target: children.DemoTarget, received: Received) -> None:
    """A speech for each way to end; each is awaited by its record."""
    provider = f"{target.facts['provider']['url']}/knobs"
    synthetic = f"{target.facts['omnirt']['url']}/synthetic/knobs"
    spoken = 0
    async with httpx.AsyncClient() as knobs, OpenTalking(target.url) as client:
        config = SessionConfig(model="wav2lip", avatar=str(target.facts["avatar"]))
        async with Session(client, config, NullSink()) as session:

            async def speak() -> None:
                nonlocal spoken
                spoken += 1
                await client.speak(session.report.session, "Hello.")

            async def told() -> None:
                await asyncio.to_thread(received.wait_for, "pipeline", spoken)

            await speak()
            await asyncio.sleep(0.6)
            await session.interrupt()
            await told()
            for url, knob, wrong, right in (
                (provider, "llm_fail", True, False),
                (provider, "tts_fail", True, False),
                (synthetic, "fail_every", 1, 0),
            ):
                (await knobs.put(url, json={knob: wrong})).raise_for_status()
                await speak()
                await told()
                (await knobs.put(url, json={knob: right})).raise_for_status()


def test_each_way_to_end_is_told(tmp_path):
    with receiver() as received:
        options = ("--llm-text", SHORT_ANSWER, "--agent", received.url)
        with running(tmp_path, "unified", *options) as target:
            asyncio.run(_outcomes(target, received))
    records = received.of_kind("pipeline")
    codes = [r["error"] and r["error"]["code"] for r in records]
    assert list(zip([r["outcome"] for r in records], codes, strict=True)) == [
        ("interrupted", None),
        # OpenTalking speaks an apology in place of an answer.
        ("completed", "LLM_FAILED"),
        ("failed", "TTS_FAILED"),
        ("failed", "AVATAR_FAILED"),
    ]
    assert received.refusals == []


# Runs the agent with every hook body failing.
FAULTY = """
import sys
from exporter.agent import __main__, running
from exporter.agent.courier import Courier
from exporter.agent.hooks import bus, media, providers, requests, tasks
from exporter.agent.process import Levels
from exporter.agent.speech import Speech

def fault(*_, **__):
    raise ZeroDivisionError("injected")

for owner, names in (
    (Speech, ("enter", "mark", "chunk", "expect", "end", "failed")),
    (bus, ("_relay",)),
    (media, ("_has_sent", "_has_encoded", "_waiting")),
    (providers, ("_name_model",)),
    (requests, ("_begin", "_carry", "_created", "_end")),
    (tasks, ("_read",)),
    (Levels, ("chunk_requested", "chunk_returned")),
    (running, ("read",)),
    (Courier, ("take",)),
):
    for name in names:
        setattr(owner, name, fault)
sys.argv = ["faulty", *sys.argv[3:]]
sys.exit(__main__.main())
"""


def test_faults_in_every_hook_leave_the_turn_as_it_is(tmp_path):
    """An interpreter in OpenTalking's place that starts the agent with faults in it."""
    real = ROOT / "build" / "target"
    python = real / "opentalking" / "bin" / "python"
    (tmp_path / "faulty.py").write_text(FAULTY)
    venv = tmp_path / "venvs" / "opentalking" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(
        f'#!/bin/sh\ncase "$1" in -m) exec {python} {tmp_path}/faulty.py "$@";; esac\n'
        f'exec {python} "$@"\n'
    )
    (venv / "python").chmod(0o755)
    for name in ("lib", "pyvenv.cfg"):
        (venv.parent / name).symlink_to(real / "opentalking" / name)
    shutil.copy(python.with_name("opentalking-unified"), venv)
    (tmp_path / "venvs" / "omnirt").symlink_to(real / "omnirt")
    options = ["--venvs", str(tmp_path / "venvs"), "--llm-text", SHORT_ANSWER]
    options += ["--agent", f"http://127.0.0.1:{free_port()}"]
    with running(tmp_path / "target", "unified", *options) as target:
        outcomes, _ = asyncio.run(_speak(target, 1))
        log = target.log.read_text()
    assert outcomes == [Outcome.COMPLETED]
    assert "ZeroDivisionError: injected" in log, "the faults were not injected"


def test_every_hook_finds_its_target_in_the_pinned_opentalking():
    """In OpenTalking's own environment, so with nothing but what that has."""
    python = ROOT / "build" / "target" / "opentalking" / "bin" / "python"
    program = (
        "from exporter.agent.guard import Guard\n"
        "from exporter.agent.hooks import HOOKS, Hooks, Watch\n"
        "for role, wanted in HOOKS.items():\n"
        "    hooks = Hooks()\n"
        "    hooks.set(wanted, Watch(print, Guard()))\n"
        "    print(role, len(wanted), hooks.missing)\n"
        "    hooks.remove()\n"
    )
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == [f"{role} {len(all_)} {{}}" for role, all_ in HOOKS.items()]
