"""The agent on OpenTalking's other runner, which only an adapter of a third party reaches."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from exporter import stages
from tests.processes import ROOT

pytestmark = pytest.mark.e2e

TOLERANCE_MS = 2.0

# Registers an adapter as a third party does, has OpenTalking's own factory choose the runner, and
# lets it answer once.
PROGRAM = """
import asyncio, json, logging, os, sys, time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from exporter.agent.guard import Guard
from exporter.agent.hooks import HOOKS, Hooks, Watch
from exporter.stages import ProcessRole

logging.basicConfig(level=logging.INFO)
items = []
hooks, guard = Hooks(), Guard()
hooks.set(HOOKS[ProcessRole.WORKER], Watch(items.append, guard))

from opentalking.core.in_memory_redis import InMemoryRedis
from opentalking.core.types.frames import VideoFrameData
from opentalking.models.registry import register_model
from opentalking.pipeline.speak import render_pipeline
from opentalking.runtime import task_consumer

# Reads configs/synthesis, which a checkout has and the published wheel lacks.
render_pipeline._musetalk_overlap_frames = lambda: 0

@register_model("flashhead")
class Adapter:
    def load_model(self, device): pass
    def load_avatar(self, path):
        return SimpleNamespace(manifest=SimpleNamespace(fps=25, sample_rate=16000), extra={})
    def extract_features(self, chunk): return SimpleNamespace(frame_count=8)
    def infer(self, features, state):
        time.sleep(0.02)
        return [0] * features.frame_count
    def compose_frame(self, state, index, prediction):
        return VideoFrameData(np.zeros((64, 64, 3), np.uint8), 64, 64, index * 40.0)
    def idle_frame(self, state, index): return self.compose_frame(state, index, 0)

async def drain(queue):
    # No viewer is there to take what the idle loop and the speech put in.
    while True:
        await queue.get()

async def main():
    task = {"session_id": "sess_1", "avatar_id": "anna", "model": "flashhead"}
    runner = task_consumer._create_runner(task, InMemoryRedis(), Path("."), "cpu")
    await runner.prepare()
    media = (runner.webrtc.video, runner.webrtc.audio)
    drains = [asyncio.create_task(drain(track._queue)) for track in media]
    await runner.create_chat_task("Hello.", enqueue_unix=time.time())
    for each in drains:
        each.cancel()
    await runner.close()
    print(json.dumps([type(runner).__name__, hooks.missing, guard.faults, items[0].record()]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def answered(unified, tmp_path_factory):
    """Runner, missing hooks, faults, record; and what the runner's own log says."""
    facts = unified.facts["opentalking"]
    variables = Path(f"/proc/{facts['pid']}/environ").read_text().split("\0")
    environment = dict(v.split("=", 1) for v in variables if v)
    environment |= {"OPENTALKING_FLASHHEAD_BACKEND": "local"}
    environment["PYTHONPATH"] += f":{ROOT}"
    done = subprocess.run(
        [ROOT / "build" / "target" / "opentalking" / "bin" / "python", "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("third-party"),
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [summary] = re.findall(r"chat timing summary: (\{.*\})", done.stderr)
    return *json.loads(done.stdout.splitlines()[-1]), json.loads(summary)


def test_the_runner_is_the_other_one_and_nothing_is_missing(answered):
    runner, missing, faults, record, _ = answered
    assert (runner, missing, faults) == ("SessionRunner", {}, {})
    assert record["outcome"] == "completed"
    assert record["llm_model"] == "stand-in"


def test_its_instants_are_those_of_its_log(answered):
    *_, record, summary = answered
    ms = {name: 1000.0 * at for name, at in record["marks"].items()}
    told = {
        stages.TTS_FIRST_PCM: summary["tts_first_pcm_ms"],
        stages.AVATAR_FIRST_FRAME: summary["first_render_chunk_ready_ms"],
        stages.MEDIA_QUEUED: summary["first_video_frame_enqueued_ms"],
    }
    assert {name: ms[name] for name in told} == pytest.approx(told, abs=TOLERANCE_MS)
    llm = ms[stages.LLM_FIRST_TOKEN] - ms[stages.LLM_REQUESTED]
    assert llm == pytest.approx(summary["llm_first_token_ms"], abs=TOLERANCE_MS)
    rendered = sum(1000.0 * (end - begin) for begin, end in record["chunks"])
    assert len(record["chunks"]) == summary["render_chunks"]
    assert rendered == pytest.approx(summary["render_total_ms"], rel=0.05, abs=TOLERANCE_MS)
