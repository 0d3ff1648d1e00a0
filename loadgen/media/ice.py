"""Which network addresses a peer connection offers, and which STUN servers it asks.

What comes in: addresses chosen by the caller. What goes out: an aiortc configuration, and a
connection restricted to those addresses. It must not know sessions or targets.

aioice offers every interface except loopback, and aiortc asks a public STUN server unless told
otherwise. Neither may happen towards a target on this machine; and no STUN server is ever asked
that the caller did not name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aioice import Candidate
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

LOOPBACK: Final = ("127.0.0.1",)


def configuration(stun_urls: Sequence[str] = ()) -> RTCConfiguration:
    """Return a configuration that asks these STUN or TURN servers and no other (RFC 7064)."""
    return RTCConfiguration(iceServers=[RTCIceServer(urls=url) for url in stun_urls])


def offer_only(connection: RTCPeerConnection, addresses: Sequence[str]) -> None:
    """Restrict the host candidates of this connection to `addresses` (IP literals).

    Call it when the transceivers exist and before the local description is set. Only this
    connection is changed, not aioice.
    """
    for transceiver in connection.getTransceivers():
        ice: Any = transceiver.receiver.transport.transport.iceGatherer._connection
        ice.get_component_candidates = _only(ice.get_component_candidates, addresses)


def _only(
    gather: Callable[..., Awaitable[list[Candidate]]], chosen: Sequence[str]
) -> Callable[..., Awaitable[list[Candidate]]]:
    # aioice lists the interfaces itself and hands them to this method: the one place to choose.
    async def gather_chosen(component: int, addresses: list[str], **rest: Any) -> list[Candidate]:
        return await gather(component=component, addresses=list(chosen), **rest)

    return gather_chosen
