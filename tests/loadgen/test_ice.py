"""Candidates and STUN servers: a loopback target must cause no packet that leaves the machine."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiortc import RTCPeerConnection

from loadgen.media import ice
from loadgen.media.meter import MediaMeter
from loadgen.media.peer import Peer, warm_up


def candidates(sdp):
    return set(re.findall(r"a=candidate:\S+ \d udp \d+ (\S+)", sdp))


def offered(addresses):
    async def run():
        peer = Peer(MediaMeter(), addresses=addresses, stun_urls=(), on_news=lambda: None)
        sdp, kind = await peer.offer()
        await peer.close()
        assert kind == "offer"
        return candidates(sdp)

    return asyncio.run(run())


def test_only_the_chosen_address_is_offered():
    assert offered(ice.LOOPBACK) == {"127.0.0.1"}


def test_the_sound_is_offered_in_opus_alone():
    async def run():
        peer = Peer(MediaMeter(), addresses=ice.LOOPBACK, stun_urls=(), on_news=lambda: None)
        sdp, _ = await peer.offer()
        await peer.close()
        return re.findall(r"a=rtpmap:\d+ (\S+)", sdp.split("m=audio")[1])

    assert asyncio.run(run()) == ["opus/48000/2"]


def test_any_address_of_this_machine_may_be_chosen():
    assert offered(("127.0.0.2",)) == {"127.0.0.2"}


def test_without_a_choice_loopback_is_left_out():
    assert "127.0.0.1" not in offered(None)


def test_other_connections_keep_their_addresses():
    async def run():
        restricted = RTCPeerConnection(ice.configuration())
        restricted.addTransceiver("audio")
        ice.offer_only(restricted, ice.LOOPBACK)
        free = RTCPeerConnection(ice.configuration())
        free.addTransceiver("audio")
        await free.setLocalDescription(await free.createOffer())
        sdp = free.localDescription.sdp
        await restricted.close()
        await free.close()
        return candidates(sdp)

    assert "127.0.0.1" not in asyncio.run(run())


def test_no_stun_server_is_asked_unless_named():
    assert ice.configuration().iceServers == []
    (server,) = ice.configuration(["stun:stun.example:3478"]).iceServers
    assert server.urls == "stun:stun.example:3478"


@pytest.mark.parametrize("stun_urls", [(), ("stun:127.0.0.1:3478",)])
def test_the_connection_knows_the_named_stun_server_alone(stun_urls):
    async def run():
        connection = RTCPeerConnection(ice.configuration(stun_urls))
        receiver = connection.addTransceiver("audio").receiver
        server = receiver.transport.transport.iceGatherer._connection.stun_server
        await connection.close()
        return server

    assert asyncio.run(run()) == (("127.0.0.1", 3478) if stun_urls else None)


def test_warming_up_receives_a_picture_over_loopback(monkeypatch):
    seen = []
    take = MediaMeter.on_packet
    monkeypatch.setattr(
        MediaMeter, "on_packet", lambda self, packet: (seen.append(packet), take(self, packet))
    )
    asyncio.run(warm_up())
    assert any(packet.key for packet in seen)
