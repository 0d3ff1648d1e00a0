"""A UDP relay between a WebRTC client and its server on loopback that delays one medium.

What comes in: an offer and its answer, in whose candidates it puts its own ports. What goes out:
every datagram, at once, but for the RTP packets of the delayed medium, which leave so many seconds
after they came. RTCP, STUN, DTLS and the other medium are never delayed: only delivery is late,
nothing that the server says. It must not know what is measured.
"""

from __future__ import annotations

import heapq
import itertools
import re
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

from loadgen.media.packets import Kind
from loadgen.opentalking import Description, OpenTalking

_LOOPBACK: Final = "127.0.0.1"
_PORT: Final = re.compile(r"(a=candidate:\S+ \d+ udp \d+ \S+ )(\d+)", re.IGNORECASE)
_SSRC: Final = re.compile(r"a=ssrc:(\d+)")
_RTCP: Final = range(192, 224)
"""Second bytes that mean RTCP where it shares a port with RTP (RFC 5761, section 4)."""
_DATAGRAM: Final = 65_536


@dataclass
class _Leg:
    """One media section: the socket that the client talks to, and the one that the server does."""

    to_client: socket.socket
    to_server: socket.socket
    client_port: int
    server_port: int = 0


class Relay:
    """Give it the offer, then the answer; close it when the session is over."""

    def __init__(self) -> None:
        self.delays: dict[Kind, float] = {}
        """Seconds; may change between speeches."""
        self._legs: list[_Leg] = []
        self._kinds: dict[int, Kind] = {}
        self._held: list[tuple[float, int, bytes, socket.socket, int]] = []
        self._numbers = itertools.count()
        # Not epoll, which waits for whole milliseconds.
        self._selector = selectors.SelectSelector()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def offered(self, offer: Description) -> Description:
        """The client's offer, with this relay's ports in place of its own."""
        sections = []
        for section in _sections(offer.sdp):
            port = _port(section)
            if port is not None:
                leg = _Leg(_socket(), _socket(), port)
                self._legs.append(leg)
                section = _with_port(section, leg.to_server.getsockname()[1])
            sections.append(section)
        return replace(offer, sdp="".join(sections))

    def answered(self, answer: Description) -> Description:
        """The server's answer, likewise; from now on datagrams are passed on."""
        sections = []
        legs = iter(self._legs)
        for section in _sections(answer.sdp):
            for medium in (Kind.AUDIO, Kind.VIDEO):
                if section.startswith(f"m={medium.value} "):
                    self._kinds |= dict.fromkeys(map(int, _SSRC.findall(section)), medium)
            port = _port(section)
            if port is not None:
                leg = next(legs)
                leg.server_port = port
                section = _with_port(section, leg.to_client.getsockname()[1])
            sections.append(section)
        for leg in self._legs:
            if leg.server_port:
                self._selector.register(leg.to_client, selectors.EVENT_READ, (leg, True))
                self._selector.register(leg.to_server, selectors.EVENT_READ, (leg, False))
        self._thread.start()
        return replace(answer, sdp="".join(sections))

    def close(self) -> None:
        """Stop passing datagrams on."""
        self._running = False
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        for leg in self._legs:
            leg.to_client.close()
            leg.to_server.close()

    def _run(self) -> None:
        while self._running:
            due = self._held[0][0] - time.monotonic() if self._held else 0.1
            for key, _ in self._selector.select(min(0.1, max(0.0, due))):
                leg, from_client = key.data
                self._pass_on(leg, from_client)
            while self._held and self._held[0][0] <= time.monotonic():
                *_, data, by, port = heapq.heappop(self._held)
                by.sendto(data, (_LOOPBACK, port))

    def _pass_on(self, leg: _Leg, from_client: bool) -> None:
        if from_client:
            leg.to_server.sendto(leg.to_client.recv(_DATAGRAM), (_LOOPBACK, leg.server_port))
            return
        data = leg.to_server.recv(_DATAGRAM)
        kind = self._kind(data)
        delay = 0.0 if kind is None else self.delays.get(kind, 0.0)
        if delay <= 0:
            leg.to_client.sendto(data, (_LOOPBACK, leg.client_port))
            return
        at = time.monotonic() + delay
        heapq.heappush(self._held, (at, next(self._numbers), data, leg.to_client, leg.client_port))

    def _kind(self, data: bytes) -> Kind | None:
        """The medium of an RTP packet; None for all else."""
        if len(data) < 12 or data[0] >> 6 != 2 or data[1] in _RTCP:
            return None
        (ssrc,) = struct.unpack_from("!I", data, 8)
        return self._kinds.get(ssrc)


class RelayedOpenTalking(OpenTalking):
    """A client whose sessions' media go through a relay, one session at a time."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.relay = Relay()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        self.relay.close()

    async def offer(
        self, session: str, description: Description, *, timeout: float | None = None
    ) -> Description:
        """As the plain client's, with the relay's ports on both sides."""
        offered = self.relay.offered(description)
        return self.relay.answered(await super().offer(session, offered, timeout=timeout))


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((_LOOPBACK, 0))
    return made


def _sections(sdp: str) -> list[str]:
    return re.split(r"(?m)^(?=m=)", sdp)


def _port(section: str) -> int | None:
    found = _PORT.search(section)
    return int(found[2]) if found else None


def _with_port(section: str, port: int) -> str:
    return _PORT.sub(lambda match: f"{match[1]}{port}", section)
