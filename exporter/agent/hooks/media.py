"""Media on its way out: OpenTalking's queues to WebRTC, and aiortc's senders behind them.

What comes in: calls of both. What goes out: the RTP timestamps of each speech's first frame and
sample, and how much waits in all sessions' queues. It must not know runners.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

from exporter.agent.hooks.live import live_speech
from exporter.agent.hooks.setting import Hook, Watch
from exporter.agent.speech import MEDIA_KINDS, MediaKind, Speech

_SENT_TIMESTAMP: Final = "_RTCRtpSender__rtp_timestamp"
_SENDING_STATE: Final = "_talkscope_sending"
_CLOSED: Final = "closed"


@dataclass(slots=True)
class _Sending:
    """One RTP sender: the speech whose first frame or sample it is about to send."""

    kind: MediaKind
    carries: Speech | None = None
    encoded: bool = False


_sending: ContextVar[_Sending | None] = ContextVar("talkscope_sending", default=None)


def _connecting(original: Any, watch: Watch) -> Any:
    """`WebRTCSession.__init__`: its two queues tell what is put into and taken out of them."""
    connections: WeakSet[Any] = WeakSet()
    watch.levels.media = lambda: _waiting(connections)

    @functools.wraps(original)
    def wrapper(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        for kind in MEDIA_KINDS:
            watch.guard(f"{kind} queue", _watch_queue, self, kind, watch)
        watch.guard("media queues", connections.add, self)

    return wrapper


def _waiting(connections: WeakSet[Any]) -> Mapping[str, int]:
    """What waits in the sessions that are not closed: a closed one keeps what it held."""
    alive = [c for c in connections if c.pc.connectionState != _CLOSED]
    return {kind: sum(getattr(c, kind)._queue.qsize() for c in alive) for kind in MEDIA_KINDS}


def _watch_queue(connection: Any, kind: MediaKind, watch: Watch) -> None:
    """Follow the first item that a speech puts in until its sender takes it out.

    asyncio.Queue's `put` and `get` end in the methods that are replaced here.
    """
    queue = getattr(connection, kind)._queue
    put, get = queue.put_nowait, queue.get_nowait
    followed: list[tuple[Speech, Any]] = []

    def has_come(item: Any) -> None:
        live = live_speech.get()
        if live is not None and item is not None and live.speech.expect(kind):
            followed[:] = [(live.speech, item)]

    def has_gone(item: Any) -> None:
        sending = _sending.get()
        # Whoever else takes an item out throws it away.
        if sending is not None and followed and item is followed[0][1]:
            sending.carries, sending.encoded = followed[0][0], False
            followed.clear()

    def put_nowait(item: Any) -> None:
        put(item)
        watch.guard("media put", has_come, item)

    def get_nowait() -> Any:
        item = get()
        watch.guard("media taken", has_gone, item)
        return item

    queue.put_nowait, queue.get_nowait = put_nowait, get_nowait


def _encoding(original: Any, watch: Watch) -> Any:
    """`_next_encoded_frame` of aiortc's sender.

    The sender calls it again as soon as the packets of the frame before have left, and says then
    which RTP timestamp they bore. The encoder may hold sound back: what counts is the first
    packet that leaves once the speech's first samples are with the encoder.
    """

    @functools.wraps(original)
    async def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        watch.guard("media sent", _has_sent, self)
        token = _sending.set(getattr(self, _SENDING_STATE, None))
        try:
            frame = await original(self, *arguments, **named)
        finally:
            _sending.reset(token)
        watch.guard("media encoded", _has_encoded, self, frame)
        return frame

    return wrapper


def _has_sent(sender: Any) -> None:
    state: _Sending | None = getattr(sender, _SENDING_STATE, None)
    if state is None:
        setattr(sender, _SENDING_STATE, _Sending(sender.kind))
    elif state.carries is not None and state.encoded:
        state.carries.sent(state.kind, getattr(sender, _SENT_TIMESTAMP))
        state.carries = None


def _has_encoded(sender: Any, frame: Any) -> None:
    state: _Sending = getattr(sender, _SENDING_STATE)
    if frame is not None and frame.payloads:
        state.encoded = True


def _names_sent_timestamp(original: Any) -> bool:
    """Whether the sender still keeps the timestamp it sent last where `_has_sent` reads it."""
    sender = importlib.import_module(original.__module__).RTCRtpSender
    return (
        inspect.iscoroutinefunction(original)
        and _SENT_TIMESTAMP in sender._run_rtp.__code__.co_names
    )


_RTP: Final = "RTP timestamps of each speech's first talking frame and first audio sample"

HOOKS: Final = (
    Hook(
        "opentalking.providers.rtc.aiortc.adapter",
        "WebRTCSession.__init__",
        (),
        callable,
        _connecting,
        f"depths of the media queues, {_RTP}",
    ),
    Hook(
        "aiortc.rtcrtpsender",
        "RTCRtpSender._next_encoded_frame",
        ("codec",),
        _names_sent_timestamp,
        _encoding,
        _RTP,
    ),
)
