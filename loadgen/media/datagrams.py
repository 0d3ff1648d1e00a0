"""Reads the datagrams of many sockets with few system calls and the kernel's receive times.

What comes in: UDP sockets and who takes their datagrams. What goes out: each datagram, still in
the buffer it was read into, with its arrival. It must not know RTP, ICE or aiortc. Linux only
(`is_supported`).

A packet that carries the time of its receipt (`SO_TIMESTAMPNS`) loses nothing by waiting, so
all sockets are looked at together, with one `recvmmsg` for what has gathered in each, instead of
waking up for each packet: that is most of what receiving costs. Only a lost packet is in a hurry,
as the request for it cannot go out before: while there are any, looks are more frequent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import select
import socket
import struct
import sys
import time
import weakref
from asyncio.trsock import TransportSocket
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

from cffi import FFI

from loadgen.media.load import ReceiveLoad

POLL_S: Final = 0.04
"""Time between two looks at the sockets. Waking up is most of what few sessions cost, 0.1 ms on a
virtual machine, so more often would make them dearer than many."""
HURRY_S: Final = 0.02
"""The same where packets are lost: as often as a browser asks for them (libwebrtc,
`NackRequester`). The other is a multiple of it."""
_HURRY_FOR_S: Final = 1.0
"""How long after a packet was missed."""
_SLICE_S: Final = 0.001
"""Longest time at a stretch, so that the loop's other work is not late."""

_BUFFER_BYTES: Final = 2**20
"""Asked for each socket, so that a large key frame fits, which comes in one burst. The kernel gives
at most twice `net.core.rmem_max`, and uses memory for what lies there only."""

_SLOTS: Final = 32
"""Datagrams taken by one call."""
_SLOT_BYTES: Final = 2_048
_CONTROL_BYTES: Final = 128
_NAME_BYTES: Final = 28
"""Size of `struct sockaddr_in6`."""

_SO_TIMESTAMPNS: Final = 35
_SO_RXQ_OVFL: Final = 40
_MSG_DONTWAIT: Final = 0x40
_DROPS_LENGTH: Final = 32
"""Control bytes of a receive time alone; more means that a count of drops follows it."""

_ADDRESS4: Final = struct.Struct("!2xH4s")
_ADDRESS6: Final = struct.Struct("!2xH4x16s")


class Taker(Protocol):
    """Takes the datagrams of one socket."""

    def on_media(self, buffer: bytearray, at: int, length: int, arrival: float) -> None:
        """An RTP or RTCP packet (RFC 7983) lies in `buffer[at : at + length]`.

        It is gone when this returns. `arrival` is in `time.monotonic()` seconds.
        """

    def on_other(self, data: bytes, address: tuple[str, int]) -> None:
        """Any other datagram, such as STUN or DTLS."""

    def on_pass(self, now: float) -> bool:
        """All that had arrived was handed over; returns whether a packet is missing."""

    def on_fault(self, error: Exception) -> None:
        """One of the other methods raised; the sockets of others are read on."""


class _Kernel(NamedTuple):
    """`recvmmsg` and the memory it fills."""

    ffi: FFI
    receive: Any
    headers: Any


class DatagramPoller:
    """Reads the sockets of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.load = ReceiveLoad()
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._timer: asyncio.Handle | None = None
        self._ready: deque[int] = deque()
        self._next = 0.0
        """When the sockets are looked at again, on the loop's clock."""
        self._interval = POLL_S
        self._missed_at = -math.inf
        self._takers: dict[int, Taker] = {}
        self._dropped: dict[int, int] = {}
        self._buffer = bytearray(_SLOTS * _SLOT_BYTES)
        self._control = bytearray(_SLOTS * _CONTROL_BYTES)
        self._names = bytearray(_SLOTS * _NAME_BYTES)
        self._kernel = self._prepare()

    def add(self, sock: socket.socket | TransportSocket, taker: Taker) -> None:
        """Read this socket from now on; nobody else may."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._timer = self._loop.call_at(next_look(self._loop.time()), self._poll)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        number = sock.fileno()
        self._takers[number] = taker
        self._dropped[number] = 0
        # Edge-triggered: sockets are told in the order in which their datagrams came, so none
        # waits much longer than the others.
        self._epoll.register(number, select.EPOLLIN | select.EPOLLET)

    def remove(self, taker: Taker) -> None:
        """Stop reading this taker's sockets."""
        assert self._epoll is not None or taker not in self._takers.values()
        for number in [n for n, t in self._takers.items() if t is taker]:
            del self._takers[number], self._dropped[number]
            if self._epoll is not None:
                # A socket that was closed meanwhile has left by itself.
                with contextlib.suppress(OSError):
                    self._epoll.unregister(number)
        if not self._takers and self._epoll is not None:
            assert self._timer is not None
            self._timer.cancel()
            self._epoll.close()
            self._epoll = self._timer = None

    def _prepare(self) -> _Kernel:
        ffi = FFI()
        # recvmmsg(2), socket(7); padding is the C compiler's.
        ffi.cdef(
            """
            struct iovec { void *base; size_t length; };
            struct msghdr {
                void *name; unsigned int name_length; struct iovec *vector; size_t vectors;
                void *control; size_t control_length; int flags;
            };
            struct mmsghdr { struct msghdr header; unsigned int length; };
            int recvmmsg(int, struct mmsghdr *, unsigned int, int, void *);
            """
        )
        headers = ffi.new("struct mmsghdr[]", _SLOTS)
        vectors = ffi.new("struct iovec[]", _SLOTS)
        buffer = ffi.from_buffer(self._buffer)
        control = ffi.from_buffer(self._control)
        names = ffi.from_buffer(self._names)
        for slot in range(_SLOTS):
            vectors[slot].base = buffer + slot * _SLOT_BYTES
            vectors[slot].length = _SLOT_BYTES
            header = headers[slot].header
            header.vector = vectors + slot
            header.vectors = 1
            header.control = control + slot * _CONTROL_BYTES
            header.control_length = _CONTROL_BYTES
            header.name = names + slot * _NAME_BYTES
            header.name_length = _NAME_BYTES
        self._owned = (vectors, buffer, control, names)
        stride = ffi.sizeof("struct mmsghdr")
        self._stride = stride
        self._headers = memoryview(ffi.buffer(headers)).cast("B")
        self._fresh = bytes(self._headers)
        self._lengths = self._headers.cast("I")
        self._length_at = ffi.offsetof("struct mmsghdr", "length") // 4
        self._control_lengths = self._headers.cast("Q")
        self._control_length_at = (
            ffi.offsetof("struct mmsghdr", "header")
            + ffi.offsetof("struct msghdr", "control_length")
        ) // self._control_lengths.itemsize
        self._times = memoryview(self._control).cast("q")
        return _Kernel(ffi, ffi.dlopen(None).recvmmsg, headers)

    def _poll(self) -> None:
        """Begin a pass over the sockets that have datagrams."""
        assert self._epoll is not None
        self._ready = deque(n for n, _ in self._epoll.poll(0, max(1, len(self._takers))))
        now = self._loop.time()
        self._interval = HURRY_S if now - self._missed_at < _HURRY_FOR_S else POLL_S
        self._next = next_look(now, self._interval)
        self._pass()

    def _pass(self) -> None:
        """Go on with the pass for a slice of time; others get their turn in between."""
        begun = now = time.monotonic()
        offset = time.time() - begun
        packets = dropped = 0
        oldest = math.inf
        while self._ready and now - begun < _SLICE_S:
            number = self._ready.popleft()
            taker = self._takers.get(number)
            if taker is None:
                continue
            count = _SLOTS
            # To the end, whatever happens: nobody tells again of what is left behind.
            while count == _SLOTS and number in self._takers:
                try:
                    count, first, drops = self._read(number, taker, offset)
                except Exception as error:
                    taker.on_fault(error)
                    continue
                packets += count
                dropped += drops
                oldest = min(oldest, first)
            now = time.monotonic()
            try:
                if taker.on_pass(now):
                    self._missed_at = now
                    self._next = min(self._next, next_look(now, HURRY_S))
            except Exception as error:
                taker.on_fault(error)
        if packets:
            self.load.note(max(0.0, now - oldest - self._interval), packets, dropped)
        if self._epoll is None:
            return
        if self._ready:
            # Not `call_soon`, which goes before all timers that have become due meanwhile.
            self._timer = self._loop.call_at(self._loop.time(), self._pass)
        else:
            self._timer = self._loop.call_at(self._next, self._poll)

    def _read(self, number: int, taker: Taker, offset: float) -> tuple[int, float, int]:
        """Hand over up to `_SLOTS` datagrams; return how many, the oldest's arrival, drops."""
        ffi, receive, headers = self._kernel
        count = receive(number, headers, _SLOTS, _MSG_DONTWAIT, ffi.NULL)
        if count < 0 and ffi.errno == errno.ECONNREFUSED:
            # An ICMP error of an earlier send, reported once; datagrams may lie behind it.
            count = receive(number, headers, _SLOTS, _MSG_DONTWAIT, ffi.NULL)
        if count <= 0:
            return 0, math.inf, 0
        # Now, for whatever is done with the datagrams may fail.
        drops = self._drops(number, count - 1)
        lengths = self._lengths[self._length_at : count * self._stride // 4 : self._stride // 4]
        sizes = lengths.tolist()
        self._headers[: count * self._stride] = self._fresh[: count * self._stride]
        buffer, times = self._buffer, self._times
        per_time = _CONTROL_BYTES // 8
        first = math.inf
        for slot, length in enumerate(sizes):
            at = slot * _SLOT_BYTES
            arrival = times[slot * per_time + 2] + times[slot * per_time + 3] * 1e-9 - offset
            if slot == 0:
                first = arrival
            if 127 < buffer[at] < 192:
                taker.on_media(buffer, at, length, arrival)
            else:
                taker.on_other(bytes(buffer[at : at + length]), self._address(slot))
        return count, first, drops

    def _drops(self, number: int, slot: int) -> int:
        """Datagrams dropped since the last one that told, as the newest datagram tells."""
        at = slot * (self._stride // self._control_lengths.itemsize) + self._control_length_at
        if self._control_lengths[at] <= _DROPS_LENGTH or number not in self._dropped:
            return 0
        (total,) = struct.unpack_from("=I", self._control, slot * _CONTROL_BYTES + 48)
        fresh = (total - self._dropped[number]) & 0xFFFFFFFF
        self._dropped[number] = total
        return int(fresh)

    def _address(self, slot: int) -> tuple[str, int]:
        at = slot * _NAME_BYTES
        (family,) = struct.unpack_from("=H", self._names, at)
        if family == socket.AF_INET:
            port, packed = _ADDRESS4.unpack_from(self._names, at)
        else:
            family = socket.AF_INET6
            port, packed = _ADDRESS6.unpack_from(self._names, at)
        return socket.inet_ntop(family, packed), port


def next_look(at: float, interval: float = POLL_S) -> float:
    """When the sockets are looked at next after `at`, both on the loop's clock.

    What is put off until then, because it is in no hurry, does not wake the process up.
    """
    return (math.floor(at / interval) + 1) * interval


_POLLERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, DatagramPoller] = (
    weakref.WeakKeyDictionary()
)


def is_supported() -> bool:
    """Whether this platform has `recvmmsg` and receive times, in 64 bits."""
    return sys.platform == "linux" and sys.maxsize > 2**32


def poller() -> DatagramPoller:
    """Return the running loop's poller."""
    loop = asyncio.get_running_loop()
    if loop not in _POLLERS:
        _POLLERS[loop] = DatagramPoller(loop)
    return _POLLERS[loop]


def receive_load() -> ReceiveLoad:
    """Return how well the running loop's sockets are kept up with."""
    return poller().load
