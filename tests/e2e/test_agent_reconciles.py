"""The agent through a real exporter: every stage that can be seen is there, and the sums are right.

Truth is what OpenTalking itself says of the same turns: its `speech.timing` events and its log.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from exporter import stages
from exporter.stages import Scope, Source
from loadgen.marks import NullSink
from loadgen.opentalking import SAMPLE_RATE, OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import SpeechInput, TextInput
from talkscope import children
from tests.e2e.conftest import SHORT_ANSWER, running
from tests.processes import free_port

pytestmark = pytest.mark.e2e

TOLERANCE_MS = 2.0
LINE_TOLERANCE_MS = TOLERANCE_MS + 0.5
"""The log rounds to whole milliseconds."""
INPUTS = (TextInput("Hello."), SpeechInput(bytes(2 * SAMPLE_RATE // 2)))
SPOKEN = 1
"""Which of them is speech."""

IN_THE_SERVER = {Source.AGENT, Source.SSE}
REACHABLE = [
    stage
    for stage in stages.STAGES.values()
    if stage.scope is Scope.TURN and IN_THE_SERVER & {sight.source for sight in stage.sights}
]
"""What OpenTalking reveals without a client's help: the agent's instants and relayed events."""

TO_FIRST_PCM = (
    stages.TURN_PREPARE,
    stages.LLM_FIRST_TOKEN_LATENCY,
    stages.SENTENCE_READY,
    stages.TTS_FIRST_PCM_LATENCY,
)
TO_MEDIA = (stages.AUDIO_CHUNK_FILL, stages.AVATAR_FIRST_FRAME_LATENCY, stages.MEDIA_QUEUE)
SUMS = {
    "ttfa_ms": TO_FIRST_PCM,
    "ttfv_ms": TO_MEDIA,
    "api_enqueue_to_speak_enter_ms": (stages.QUEUE_WAIT,),
    "e2e_first_response_ms": (stages.QUEUE_WAIT, *TO_FIRST_PCM, *TO_MEDIA),
    "first_model_request_ms": (*TO_FIRST_PCM, stages.AUDIO_CHUNK_FILL),
    "first_model_return_ms": (*TO_FIRST_PCM, *TO_MEDIA[:2]),
    "first_webrtc_queue_ms": (*TO_FIRST_PCM, *TO_MEDIA),
    "speak_wall_ms": (stages.GENERATION,),
}
"""Field of `speech.timing` → the stages that add up to it."""
LINE_SUMS = {
    "llm_first_token_ms": (stages.LLM_FIRST_TOKEN_LATENCY,),
    "first_flashtalk_return_ms": SUMS["first_model_return_ms"],
    "first_webrtc_queue_ms": SUMS["first_webrtc_queue_ms"],
    "api_enqueue_to_speak_enter_wall_ms": (stages.QUEUE_WAIT,),
    "first_frame_from_api_wall_ms": SUMS["e2e_first_response_ms"],
    "speak_wall_ms": (stages.GENERATION,),
}
"""The same of the line "Speak pipeline timing"."""


@dataclass
class Run:
    """What the exporter has written of a session in which nobody but the agent told it anything."""

    turns: list[dict[str, Any]]
    session: dict[str, Any]
    events: list[dict[str, Any]]
    lines: list[dict[str, float]]
    stt_ms: list[float]

    @property
    def timings(self):
        return [e["data"] for e in self.events if e["event"] == "speech.timing"]


async def _converse(target):
    async with OpenTalking(target.url) as client:
        config = SessionConfig(model="wav2lip", avatar=str(target.facts["avatar"]))
        async with Session(client, config, NullSink()) as session:
            for given in INPUTS:
                await session.turn(given)


def _fields(line):
    return {name: float(value) for name, value in re.findall(r"(\w+)=(-?[\d.]+)(?=\s|$)", line)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("reconciles"), free_port()
    options = ("--llm-text", SHORT_ANSWER, "--agent", f"http://127.0.0.1:{port}")
    with running(folder / "target", "unified", *options) as target:
        arguments = ["--listen", f"127.0.0.1:{port}", "--target", target.url]
        arguments += ["--bundle", str(folder / "bundle")]
        with children.exporter(arguments, folder):
            asyncio.run(_converse(target))
        log = target.log.read_text()
    read = {
        name: [json.loads(line) for line in (folder / "bundle" / name).read_text().splitlines()]
        for name in ("turns.jsonl", "sessions.jsonl", "events.jsonl")
    }
    [session] = read["sessions.jsonl"]
    return Run(
        read["turns.jsonl"],
        session,
        read["events.jsonl"],
        [_fields(line) for line in re.findall(r"Speak pipeline timing: (.*)", log)],
        [float(ms) for ms in re.findall(r"STT streaming timing: .* stt_ms=(\d+)", log)],
    )


def test_every_stage_that_opentalking_reveals_is_there(run):
    assert len(REACHABLE) >= 15, "the catalogue names no sights in the server"
    assert [turn["outcome"] for turn in run.turns] == ["completed"] * len(INPUTS)
    for number, turn in enumerate(run.turns):
        wanted = {s.key for s in REACHABLE if s is not stages.STT or number == SPOKEN}
        missing = {key: turn["absent"].get(key) for key in wanted - turn["values"].keys()}
        assert missing == {}


def test_stages_add_up_to_speech_timing(run):
    for turn, timing in zip(run.turns, run.timings, strict=True):
        sums = {name: sum(turn["values"][s.key] for s in parts) for name, parts in SUMS.items()}
        told = {name: timing[name] for name in SUMS}
        assert sums == pytest.approx(told, abs=TOLERANCE_MS)


def test_stages_add_up_to_the_lines_of_the_log(run):
    for turn, line in zip(run.turns, run.lines, strict=True):
        sums = {n: sum(turn["values"][s.key] for s in parts) for n, parts in LINE_SUMS.items()}
        told = {name: line[name] for name in LINE_SUMS}
        assert sums == pytest.approx(told, abs=LINE_TOLERANCE_MS)


def test_speech_recognition_is_that_of_the_log(run):
    [told] = run.stt_ms
    assert run.turns[SPOKEN]["values"][stages.STT.key] == pytest.approx(told, abs=LINE_TOLERANCE_MS)


def test_the_creation_of_the_session_is_told_by_the_server(run):
    assert run.session["values"][stages.SESSION_CREATE.key] > 0.0
