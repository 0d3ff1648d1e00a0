"""Whole turns against the real OpenTalking and OmniRT."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
import wave

import pytest

from exporter import stages
from exporter.stages import Outcome
from loadgen import bench
from loadgen.bench import BenchConfig
from loadgen.marks import NullSink
from loadgen.media.meter import MediaMeter
from loadgen.media.onset import Basis
from loadgen.media.peer import Peer
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import TextInput
from tests.loadgen.standin import until
from tests.loadgen.test_bench import Heard

pytestmark = pytest.mark.e2e

PAUSE_S = 1.0


def run(target, **options):
    config = BenchConfig(target.url, repeat=1, pause=PAUSE_S, **options)
    return asyncio.run(bench.run(config, NullSink(), Heard()))


def state_afterwards(target, session):
    """OpenTalking's own word on a session that we have deleted; closing takes it a moment."""

    async def ask():
        async with OpenTalking(target.url) as client:
            return (await client.get_session(session))["state"]

    deadline = time.monotonic() + 60
    while (state := asyncio.run(ask())) == "closing" and time.monotonic() < deadline:
        time.sleep(0.1)
    return state


@pytest.fixture
def numbers(monkeypatch):
    """Every frame number that is read, in order."""
    seen = []
    take = MediaMeter.on_decoded

    def on_decoded(self, timestamp, number):
        seen.append(number)
        take(self, timestamp, number)

    monkeypatch.setattr(MediaMeter, "on_decoded", on_decoded)
    return seen


def test_a_turn_through_omnirt(target, numbers):
    result = run(target, model="wav2lip")
    assert result.ok
    for turn in result.turns:
        marks = turn.marks
        assert turn.absent == {}
        assert turn.bases[stages.CLIENT_FIRST_TALKING_FRAME] == Basis.DECODED_BARCODE
        # The server had the frame before we did.
        queued = (turn.timing["first_webrtc_queue_ms"]) / 1e3
        assert queued < marks[stages.CLIENT_FIRST_TALKING_FRAME] < marks[stages.CLIENT_SPEECH_ENDED]
        assert turn.drift["frames"] > 20
        assert turn.values().keys() >= {
            stages.PERCEIVED_TTFA.key,
            stages.PERCEIVED_TTFV.key,
            stages.TURN_COMPLETION.key,
            stages.PLAYBACK_FPS.key,
            stages.AV_DRIFT.key,
        }
    shown = [n for n in numbers if n is not None]
    # The avatar counts from 0 in each session, so the very first talking frame was seen, and
    # frames of the second answer go on where those of the first ended.
    assert shown[0] == 0
    fresh = [b for a, b in itertools.pairwise(shown) if b != a]
    assert fresh == sorted(fresh)
    assert state_afterwards(target, result.session.session) == "closed"


def test_a_turn_of_the_mock_model(target):
    result = run(target, model="mock")
    assert result.ok
    (turn,) = result.measured
    assert "no frame number" in turn.absent[stages.CLIENT_FIRST_TALKING_FRAME]
    assert stages.CLIENT_FIRST_TALKING_FRAME not in turn.marks
    assert turn.drift["basis"] == Basis.CHANGE_ONLY
    assert turn.drift["onset_ms"] is None
    assert stages.AV_DRIFT.key not in turn.samples
    assert turn.marks[stages.CLIENT_FIRST_AUDIO] > turn.timing["ttfa_ms"] / 1e3
    assert state_afterwards(target, result.session.session) == "closed"


def test_spoken_input(target, tmp_path):
    path = tmp_path / "hello.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x10\x02" * 16_000)
    result = run(target, model="wav2lip", audio=path)
    assert result.ok
    (turn,) = result.measured
    assert turn.marks[stages.USER_SPEECH_STARTED] < -0.85
    assert 0 < turn.marks[stages.ASR_FINAL] < turn.marks[stages.CLIENT_FIRST_AUDIO]
    assert stages.ASR_FINAL_LATENCY.key in turn.values()


def test_an_interrupted_answer_and_the_one_after_it(target):
    async def talk():
        async with OpenTalking(target.url) as client:
            config = SessionConfig(model="wav2lip", avatar=(await client.avatars())[0])
            async with Session(client, config, NullSink()) as session:
                first = asyncio.create_task(session.turn(TextInput("Hello")))
                await until(lambda: session._meter.first_audio)
                await session.interrupt()
                return await first, await session.turn(TextInput("Hello again"))

    interrupted, after = asyncio.run(talk())
    assert interrupted.outcome is Outcome.INTERRUPTED
    assert after.outcome is Outcome.COMPLETED
    assert after.bases[stages.CLIENT_FIRST_TALKING_FRAME] == Basis.DECODED_BARCODE
    # Frames left over from the interrupted answer would have been there at once.
    assert after.marks[stages.CLIENT_FIRST_TALKING_FRAME] > after.timing["ttfa_ms"] / 1e3


def test_a_run_that_is_cancelled_leaves_no_session(target):
    heard = Heard()

    async def cancelled():
        task = asyncio.create_task(
            bench.run(BenchConfig(target.url, model="wav2lip"), NullSink(), heard)
        )
        await until(lambda: heard.of("speaking"))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    (opened,) = heard.of("opened")
    assert state_afterwards(target, opened[0].session) == "closed"


def test_media_stays_on_loopback(target, monkeypatch):
    descriptions = []
    offer, accept = Peer.offer, Peer.accept

    async def offered(self):
        descriptions.append((await offer(self))[0])
        return descriptions[-1], "offer"

    async def accepted(self, sdp, kind):
        descriptions.append(sdp)
        await accept(self, sdp, kind)

    monkeypatch.setattr(Peer, "offer", offered)
    monkeypatch.setattr(Peer, "accept", accepted)
    run(target, model="mock")
    candidates = re.findall(r"a=candidate:\S+ \d udp \d+ (\S+)", "".join(descriptions))
    assert set(candidates) == {"127.0.0.1"}


def test_without_decoding_the_same_turn_is_measured(target):
    async def speak(decode):
        async with OpenTalking(target.url) as client:
            facts = target.facts
            config = SessionConfig(model=facts["model"], avatar=facts["avatar"], decode=decode)
            async with Session(client, config, NullSink()) as session:
                # The encoder needs a moment until idle frames are small.
                await asyncio.sleep(2 * PAUSE_S)
                return await session.turn(TextInput("How are you?")), session.media

    decoded, _ = asyncio.run(speak(True))
    turn, media = asyncio.run(speak(False))
    assert turn.outcome is Outcome.COMPLETED
    assert media.video.lost == media.plis == 0
    assert media.video.bitrate_bps > 10_000
    assert turn.media["audio_loss_ratio"] == 0
    # The synthetic avatar's picture leaps when it begins to talk: the guess agrees with the
    # numbers read in the other session, where both are the first speech of a session.
    assert decoded.drift["basis"] == Basis.DECODED_BARCODE
    assert turn.drift["basis"] == Basis.FRAME_SIZES
    assert turn.drift["onset_ms"] == pytest.approx(decoded.drift["onset_ms"], abs=60)
    fps = stages.PLAYBACK_FPS.key
    assert turn.samples[fps] == pytest.approx(decoded.samples[fps], abs=3)
