"""The benchmark runner against the stand-in: its checks, its order of turns, its endings."""

from __future__ import annotations

import asyncio
import wave

import pytest

from exporter import stages
from exporter.stages import Outcome, Phase
from loadgen import bench
from loadgen.bench import BenchConfig, RunFailedError, UsageError
from loadgen.marks import NullSink, TurnMarks
from loadgen.session import SessionLimits
from loadgen.turn import TurnLimits
from tests.loadgen.standin import PLAIN, TEXT, Say, answer, refusal, running, until

LIMITS = SessionLimits(ready=30.0, turn=TurnLimits(accepted=30.0, media=30.0, quiet=0.4))
BROKEN = [
    Say(0.02, "speech.started", {"text": TEXT}),
    Say(0.02, "error", {"code": "SPEAK_FAILED", "message": "no GPU"}),
]


class Heard:
    """A terminal that remembers."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, name):
        return lambda *what: self.lines.append((name, *what))

    def of(self, name):
        return [line[1:] for line in self.lines if line[0] == name]


class Sink:
    def __init__(self):
        self.records = []

    def send(self, record):
        self.records.append(record)


def run(standin, *, heard=None, sink=None, **options):
    config = BenchConfig(standin.url, limits=LIMITS, pause=0.0, **options)
    return asyncio.run(bench.run(config, sink or NullSink(), heard or Heard()))


# --- a run as it should be -------------------------------------------------------------------


def test_one_warm_up_turn_and_then_the_measured_ones():
    heard, sink = Heard(), Sink()
    with running() as standin:
        result = run(standin, repeat=2, heard=heard, sink=sink)
    assert result.ok
    assert [t.phase for t in result.turns] == [Phase.WARMUP, Phase.MEASURED, Phase.MEASURED]
    assert len(result.measured) == 2
    assert result.failure is None
    assert result.warnings == ()
    assert stages.SESSION_CREATE.key in result.session.values()
    assert stages.PERCEIVED_TTFV.key in result.measured[0].values()
    assert result.client.keys() == {"python", "aiortc", "os"}
    assert [r.phase for r in sink.records if isinstance(r, TurnMarks)] == [
        "warmup",
        "measured",
        "measured",
    ]
    assert [name for name, *_ in heard.lines] == (
        ["checked", "opened"] + ["speaking", "spoken"] * 3
    )
    assert heard.of("speaking") == [
        (Phase.WARMUP, 1, 1),
        (Phase.MEASURED, 1, 2),
        (Phase.MEASURED, 2, 2),
    ]
    assert standin.deleted == 1


def test_model_and_avatar_default_to_the_targets_own():
    with running() as standin:
        result = run(standin, repeat=1)
    assert (result.target.model, result.target.backend) == ("mock", "mock")
    assert result.target.avatar == "tall"
    assert standin.bodies["create"]["avatar_id"] == "tall"


def test_a_default_that_is_not_connected_gives_way_to_the_first_that_is():
    models = {
        "statuses": [
            {"id": "flashtalk", "backend": "omnirt", "connected": False, "reason": "x"},
            {"id": "wav2lip", "backend": "omnirt", "connected": True, "reason": "omnirt"},
        ],
        "default_model": "flashtalk",
    }
    with running(models=models) as standin:
        assert run(standin, repeat=1).target.model == "wav2lip"


def test_a_speech_file_is_spoken(tmp_path):
    path = tmp_path / "hello.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x05" * 6_400)
    with running() as standin:
        result = run(standin, repeat=1, audio=path)
    assert result.input == "speech"
    assert standin.speech == b"\x05" * 6_400 * 2
    assert result.ok


# --- what cannot be asked for ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "sadtalker"}, "unknown model 'sadtalker'; connected are: mock, wav2lip"),
        (
            {"model": "flashtalk"},
            "model flashtalk is not connected (not_configured); connected are: mock, wav2lip",
        ),
        ({"avatar": "nobody"}, "unknown avatar 'nobody'; the target has: tall, testbot"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"repeat": 0}, "a run needs at least one"),
    ],
)
def test_wrong_usage_says_what_there_is(options, says):
    with running() as standin, pytest.raises(UsageError) as caught:
        run(standin, **options)
    assert says in str(caught.value)
    assert "POST /sessions" not in standin.requests


def test_a_target_without_avatars():
    with running(avatars=[]) as standin, pytest.raises(UsageError, match="no avatar"):
        run(standin)


def test_a_speech_file_that_cannot_be_used(tmp_path):
    with running() as standin, pytest.raises(UsageError, match="no such file"):
        run(standin, audio=tmp_path / "none.wav")
    assert standin.requests == []


def test_a_url_that_is_none():
    with pytest.raises(UsageError, match="not an http"):
        asyncio.run(bench.run(BenchConfig("opentalking"), NullSink(), Heard()))


# --- what fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ({"health": PLAIN}, "OpenTalking"),
        (
            {"models": {"statuses": [], "default_model": None}},
            "the target has no connected model",
        ),
        ({"create_answer": refusal(503, "worker not ready")}, "worker not ready"),
        ({"states": ["error"]}, "could not start the session"),
    ],
)
def test_a_run_that_leaves_nothing_to_report(behaviour, says):
    with running(**behaviour) as standin, pytest.raises(RunFailedError, match=says):
        run(standin)


def test_a_failed_turn_is_recorded_and_the_run_goes_on():
    with running(answers=[answer(), BROKEN, answer()]) as standin:
        result = run(standin, repeat=2)
    assert [t.outcome for t in result.turns] == [
        Outcome.COMPLETED,
        Outcome.FAILED,
        Outcome.COMPLETED,
    ]
    assert result.failure is None
    assert not result.ok


def test_three_failures_in_a_row_end_the_run():
    with running(answers=[BROKEN]) as standin:
        result = run(standin, repeat=9)
    assert len(result.turns) == 3
    assert result.failure == "3 turns in a row failed, the last one: no GPU"
    assert standin.deleted == 1


def test_a_session_that_dies_ends_the_run_and_keeps_what_was_measured():
    with running(answers=[answer(), [*answer(5.0)[:2], Say(0.1, hang_up=True)]]) as standin:
        result = run(standin, repeat=5)
    assert [t.outcome for t in result.turns] == [Outcome.COMPLETED, Outcome.FAILED]
    assert "died in turn 2" in result.failure
    assert "WebRTC connection" in result.failure


def test_a_session_that_cannot_be_deleted_is_a_warning():
    with running(delete_answers=[refusal(500, "redis is gone")] * 2) as standin:
        result = run(standin, repeat=1)
    assert result.ok
    assert "could not be deleted" in result.warnings[0]


def test_a_cancelled_run_deletes_its_session():
    async def cancelled(standin):
        config = BenchConfig(standin.url, limits=LIMITS)
        task = asyncio.create_task(bench.run(config, NullSink(), Heard()))
        await until(lambda: any("/speak" in request for request in standin.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with running(answers=[answer(5.0)[:2]]) as standin:
        asyncio.run(cancelled(standin))
    assert standin.deleted == 1
