"""Receiving without a decoder from a real ICE, DTLS and SRTP peer whose media are known exactly.

All sessions run at the same time, once for the module.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from loadgen.media import datagrams, ice
from loadgen.media.meter import MediaMeter, SessionMedia
from loadgen.media.onset import Basis, FirstTimestamps
from loadgen.media.peer import Peer
from loadgen.media.speech import Speech
from tests.loadgen.sender import Counters, Options, SyntheticSender, small_media

SPEECH = ((0.8, 2.0),)
LASTS_S = 3.6

SCENARIOS = {
    "clean": Options(),
    "loss": Options(loss=0.05),
    "unrepaired": Options(loss=0.05, retransmit=False),
    "reordered": Options(reorder=0.2),
    "wrapping": Options(sequence=65_500, timestamp=(1 << 32) - 2 * 90_000),
    "outage": Options(outages=((1.0, 0.6),)),
    "new source": Options(source_change=1.2),
    "early pictures": Options(drift=-0.3, speeches=SPEECH),
    "late pictures": Options(drift=0.3, speeches=SPEECH),
    "H.264": Options(codec="H264", loss=0.03, source_change=1.5),
    "late and lossy": Options(drift=0.15, speeches=SPEECH, loss=0.02, reorder=0.05),
}


@dataclass
class Run:
    """What became of one session."""

    totals: SessionMedia
    speech: Speech
    counters: Counters
    sent_frames: int
    reports: list[Any]
    first_frame_s: float
    """From the media's beginning to the first complete key frame."""
    trouble: Exception | None
    rejected: int


async def run(options, *, seconds=LASTS_S, meddle=None):
    async with SyntheticSender(small_media(codec=options.codec)) as sender:
        news = asyncio.Event()
        meter = MediaMeter(decoding=False)
        peer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=news.set, decode=False)
        try:
            session, sdp, kind = await sender.answer(*await peer.offer(), options)
            await peer.accept(sdp, kind)
            async with asyncio.timeout(30):
                while meter.first_key_frame is None:
                    news.clear()
                    await news.wait()
            began = session.began
            if meddle is not None:
                meddle(session)
            meter.begin_turn(meter.first_key_frame)
            await asyncio.sleep(seconds)
            told = FirstTimestamps(*session.truth[0]) if session.truth else None
            return Run(
                totals=meter.totals(),
                speech=meter.end_turn(told),
                counters=sender.counters,
                sent_frames=session.frames,
                reports=list(session.reports),
                first_frame_s=meter.first_key_frame - began,
                trouble=peer.trouble,
                rejected=peer._direct.rejected,
            )
        finally:
            await peer.close()


@pytest.fixture(scope="module")
def runs():
    async def all_of_them():
        done = await asyncio.gather(*[run(options) for options in SCENARIOS.values()])
        return dict(zip(SCENARIOS, done, strict=True))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_first_frame_is_complete_when_its_packets_are(runs, name):
    one = runs[name]
    late = max(0.0, SCENARIOS[name].drift)
    # Loss may hit the key frame: its repair takes some round trips.
    assert late <= one.first_frame_s < late + 1.0
    assert one.trouble is None


@pytest.mark.parametrize("name", ["clean", "reordered", "wrapping"])
def test_every_picture_is_shown_and_nothing_counts_as_lost(runs, name):
    one = runs[name]
    # The latest ones are still on their way.
    assert one.sent_frames - 3 <= one.totals.frames <= one.sent_frames
    assert one.totals.video.lost <= 1
    assert one.totals.plis == 0


def test_loss_is_counted_and_repaired(runs):
    one = runs["loss"]
    assert one.counters.dropped > 0
    assert one.totals.video.lost > 0
    assert one.sent_frames - 8 <= one.totals.frames
    assert one.totals.nacks >= 1
    assert one.counters.nacks == one.totals.nacks
    assert one.totals.plis == one.counters.plis == 0


def test_what_cannot_be_repaired_is_answered_with_a_request_for_a_key_frame(runs):
    one = runs["unrepaired"]
    assert one.counters.plis >= 1
    assert one.totals.plis == one.counters.plis


def test_an_outage_is_one_freeze_and_one_gap_of_its_length(runs):
    one = runs["outage"]
    assert one.totals.freezes == 1
    assert one.totals.frozen_s == pytest.approx(0.64, abs=0.15)
    assert one.totals.longest_gap_s == pytest.approx(one.totals.frozen_s)
    assert one.speech.audio_gaps == 1
    assert one.speech.concealed_s == pytest.approx(0.6, abs=0.1)


def test_h264_is_followed_through_loss_and_a_change_of_source(runs):
    one = runs["H.264"]
    assert one.totals.video.lost > 0
    assert one.sent_frames - 8 <= one.totals.frames


def test_another_source_of_video_is_followed(runs):
    one = runs["new source"]
    assert one.sent_frames - 3 <= one.totals.frames
    assert one.totals.video.lost == 0
    # No clock relates the two, so nothing is said of drift.
    assert one.speech.drift is None


@pytest.mark.parametrize("name", ["early pictures", "late pictures", "late and lossy"])
def test_drift_is_read_back_from_the_agents_timestamps(runs, name):
    one, injected = runs[name], SCENARIOS[name].drift
    assert one.speech.talking_basis is Basis.AGENT
    assert one.speech.drift.median_ms == pytest.approx(injected * 1e3, abs=25)
    assert one.speech.first_talking_frame is not None


def test_receiver_reports_tell_the_sender_what_was_lost(runs):
    one = runs["loss"]
    assert any(r.packets_lost > 0 for r in one.reports)
    # The round trip can be computed: our clock runs from their last report.
    assert any(r.lsr and 0 < r.dlsr < 3 * 0x10000 for r in one.reports)
    assert one.counters.rembs >= 0


def test_bitrate_and_loss_ratio(runs):
    one = runs["clean"].totals
    assert one.video.loss_ratio == 0
    # Three packets of some 340 bytes a picture.
    assert one.video.bitrate_bps == pytest.approx(8 * 342 * 75, rel=0.15)
    assert one.audio.bitrate_bps == pytest.approx(8 * 118 * 50, rel=0.15)


def test_packets_that_nobody_encrypted_change_nothing():
    def forge(session):
        stream = session._streams["video"]
        for sequence in range(40):
            packet = stream.packet(
                stream.payload_type, sequence, 1, 0xDEADBEEF, True, b"\x10\x00" + bytes(50)
            )
            session._deliver(packet + bytes(16))

    one = asyncio.run(run(Options(), seconds=0.5, meddle=forge))
    assert one.rejected == 40
    assert one.totals.video.lost == 0
    assert one.trouble is None


def test_without_the_kernels_times_aiortc_reads_and_we_still_measure(monkeypatch):
    monkeypatch.setattr(datagrams, "is_supported", lambda: False)
    one = asyncio.run(run(Options(loss=0.05), seconds=1.5))
    assert one.sent_frames - 8 <= one.totals.frames
    assert one.totals.plis == 0


def test_an_error_of_ours_is_told_and_kills_nothing():
    async def broken():
        async with SyntheticSender(small_media()) as sender:
            news = asyncio.Event()
            meter = MediaMeter(decoding=False)
            meter.on_audio = lambda *_: 1 / 0
            peer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=news.set, decode=False)
            _, sdp, kind = await sender.answer(*await peer.offer(), Options())
            await peer.accept(sdp, kind)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while peer.trouble is None:
                        await asyncio.sleep(0.05)
            trouble = peer.trouble
            await peer.close()
            return trouble

    assert "ZeroDivisionError" in str(asyncio.run(broken()))


def test_a_closed_session_leaves_nothing_big_to_the_garbage_collector():
    async def lived_through():
        async with SyntheticSender(small_media()) as sender:
            news = asyncio.Event()
            meter = MediaMeter(decoding=False)
            peer = Peer(meter, addresses=ice.LOOPBACK, stun_urls=(), on_news=news.set, decode=False)
            _, sdp, kind = await sender.answer(*await peer.offer(), Options())
            await peer.accept(sdp, kind)
            async with asyncio.timeout(20):
                while not peer.connected or meter.first_key_frame is None:
                    news.clear()
                    await news.wait()
            await asyncio.sleep(0.2)
            receivers = [t.receiver for t in peer._connection.getTransceivers()]
            parts = [peer._connection, meter, *receivers, receivers[0].transport]
            left = [weakref.ref(part) for part in parts]
            await peer.close()
            del receivers, parts, peer, meter
            await asyncio.sleep(0.1)
            return [ref() for ref in left]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(lived_through()) == [None] * 5
    finally:
        gc.enable()
