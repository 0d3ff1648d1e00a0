"""The adapter to aiortc's receiver: its contract with the installed aiortc, and its manners."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect

import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from loadgen.media import ice, tap
from loadgen.media.packets import Kind
from loadgen.media.tap import ReceiverTap, UnsupportedAiortcError, check_aiortc

KEY_FRAME = b"\x10\x00\x9d\x01\x2a"


def receive(packets, *, on_packet=None, with_codecs=True):
    """Hand RTP packets to a tapped receiver as aiortc's transport does."""

    async def run():
        connection = RTCPeerConnection(ice.configuration())
        receiver = connection.addTransceiver("video", direction="recvonly").receiver
        handed_on, seen, faults = [], [], []

        async def original(packet, arrival_time_ms):
            handed_on.append((packet, arrival_time_ms))

        receiver._handle_rtp_packet = original
        ReceiverTap(receiver, Kind.VIDEO, on_packet or seen.append, faults.append)
        if with_codecs:
            getattr(receiver, tap.CODECS).update(
                {
                    97: RTCRtpCodecParameters("video/VP8", 90_000, payloadType=97),
                    98: RTCRtpCodecParameters(
                        "video/rtx", 90_000, payloadType=98, parameters={"apt": 97}
                    ),
                }
            )
        for packet in packets:
            await receiver._handle_rtp_packet(packet, arrival_time_ms=1234)
        await connection.close()
        return seen, handed_on, faults

    return asyncio.run(run())


def rtp(payload, **fields):
    header = {"payload_type": 97, "sequence_number": 5, "timestamp": 900, "marker": 1, "ssrc": 1}
    return RtpPacket(**(header | fields), payload=payload)


# --- what it relies on -----------------------------------------------------------------------


def test_the_installed_aiortc_is_a_tested_one():
    assert check_aiortc() == importlib.metadata.version("aiortc")


@pytest.mark.parametrize("version", ["1.13.0", "1.17.0", "2.0.0"])
def test_another_aiortc_is_refused_with_the_versions_that_work(monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    check_aiortc.cache_clear()
    with pytest.raises(UnsupportedAiortcError) as caught:
        check_aiortc()
    assert version in str(caught.value)
    for tested in tap.TESTED_AIORTC:
        assert tested in str(caught.value)


def test_the_private_names_exist():
    async def run():
        connection = RTCPeerConnection(ice.configuration())
        receiver = connection.addTransceiver("video").receiver
        instances = {RTCRtpReceiver: receiver, RTCDtlsTransport: receiver.transport}
        missing = [
            name
            for owner, names in tap.PRIVATE_NAMES.items()
            for name in names
            if not hasattr(instances[owner], name)
        ]
        connection_of_ice = receiver.transport.transport._connection
        missing += [n for n in ("_nominated", "_protocols") if not hasattr(connection_of_ice, n)]
        missing += [] if hasattr(connection.getTransceivers()[0].sender, "_ssrc") else ["_ssrc"]
        missing += [] if hasattr(asyncio.get_running_loop(), "_remove_reader") else ["loop"]
        mapper = getattr(receiver, tap.TIMESTAMP_MAPPER)
        assert mapper._origin is None
        assert mapper.map(1_000) == 0
        assert mapper._origin == 1_000
        await connection.close()
        return missing

    assert asyncio.run(run()) == []


def test_the_transports_handlers_still_take_what_is_decrypted():
    rtp_handler = inspect.signature(RTCDtlsTransport._handle_rtp_data).parameters
    assert list(rtp_handler) == ["self", "data", "arrival_time_ms"]
    assert list(inspect.signature(RTCDtlsTransport._handle_rtcp_data).parameters)[1:] == ["data"]


def test_a_receiver_is_started_with_nothing_awaited_since_dtls_is_up():
    # Otherwise packets could come between the two and be lost.
    source = inspect.getsource(RTCPeerConnection)
    connected = source.index('if dtlsTransport.state == "connected":')
    between = source[connected : source.index("transceiver.receiver.receive(", connected)]
    assert between.count("await") == 2  # of `sender.send`, and of `receive` itself


def test_the_handler_still_takes_the_arrival_by_keyword():
    parameters = inspect.signature(RTCRtpReceiver._handle_rtp_packet).parameters
    assert "arrival_time_ms" in parameters
    assert "arrival_time_ms=" in inspect.getsource(RTCDtlsTransport._handle_rtp_data)


# --- what it does ----------------------------------------------------------------------------


def test_a_packet_is_seen_and_handed_on():
    packet = rtp(KEY_FRAME)
    (seen,), handed_on, faults = receive([packet])
    assert handed_on == [(packet, 1234)]
    assert faults == []
    assert (seen.kind, seen.sequence, seen.timestamp, seen.marker) == (Kind.VIDEO, 5, 900, True)
    assert (seen.size, seen.starts_frame, seen.key) == (5, True, True)
    assert seen.arrival > 0


def test_a_retransmission_counts_as_the_packet_it_repeats():
    (seen,), _, _ = receive([rtp(b"\x00\x05" + KEY_FRAME, payload_type=98, sequence_number=70)])
    assert (seen.sequence, seen.size, seen.key) == (5, 5, True)


def test_a_packet_of_an_unknown_codec_is_handed_on_unseen():
    seen, handed_on, _ = receive([rtp(KEY_FRAME, payload_type=50)])
    assert seen == []
    assert len(handed_on) == 1


def test_an_error_never_reaches_aiortc():
    def stumble(_packet):
        raise ZeroDivisionError

    _, handed_on, faults = receive([rtp(KEY_FRAME), rtp(KEY_FRAME)], on_packet=stumble)
    assert len(handed_on) == 2
    assert [type(f) for f in faults] == [ZeroDivisionError] * 2


def test_other_receivers_are_left_alone():
    async def run():
        connection = RTCPeerConnection(ice.configuration())
        tapped = connection.addTransceiver("video").receiver
        other = connection.addTransceiver("audio").receiver
        ReceiverTap(tapped, Kind.VIDEO, print, print)
        untouched = "_handle_rtp_packet" not in vars(other)
        await connection.close()
        return untouched and "_handle_rtp_packet" in vars(tapped)

    assert asyncio.run(run())


@pytest.mark.parametrize("origin", [0, 900, (1 << 32) - 10])
def test_a_decoded_frame_finds_its_rtp_timestamp(origin):
    async def run():
        connection = RTCPeerConnection(ice.configuration())
        receiver = connection.addTransceiver("video").receiver
        one = ReceiverTap(receiver, Kind.VIDEO, print, print)
        mapper = getattr(receiver, tap.TIMESTAMP_MAPPER)
        sent = [(origin + 3_600 * i) % (1 << 32) for i in range(5)]
        back = [one.rtp_timestamp(mapper.map(timestamp)) for timestamp in sent]
        await connection.close()
        return sent, back

    sent, back = asyncio.run(run())
    assert back == sent
