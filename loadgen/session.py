"""One session with the target, from its creation to its deletion, one turn at a time.

What comes in: a target, a model, an avatar and inputs. What goes out: `TurnResult`s, records for
a `MarkSink`, and `TargetError` when the session cannot go on. It ties HTTP, events, WebRTC and
the meter together; it must not know runs, users or how anything is shown.

Every wait has a limit. Whatever happens, the session is deleted: a session left behind holds
the target's memory, and with a single-slot model everybody else's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from exporter import stages, steady_clock
from exporter.stages import Outcome, Phase
from loadgen import opentalking
from loadgen.errors import Cause, TargetError
from loadgen.marks import MarkSink, RelayedEvent, SessionMarks, TurnOpened
from loadgen.media import ice
from loadgen.media.meter import MediaMeter, SessionMedia
from loadgen.media.onset import FirstTimestamps
from loadgen.media.peer import Peer
from loadgen.opentalking import Description, EventName, OpenTalking
from loadgen.result import TurnResult, result_of
from loadgen.sse import Event
from loadgen.told import FirstTimestampsOf
from loadgen.turn import (
    Failure,
    Input,
    SpeechInput,
    TextInput,
    TurnLimits,
    TurnWatch,
    UploadInput,
    Verdict,
)

_POLL_S = 0.1
_SETTLE_S = 5.0
_ANSWERED = frozenset({Outcome.COMPLETED, Outcome.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Longest waits of a session, in seconds."""

    create: float = 100.0
    """`POST /sessions`: OpenTalking itself gives up after 90 s."""
    subscribed: float = 10.0
    ready: float = 180.0
    """Until the worker has loaded the model, queueing included."""
    offer: float = 70.0
    """The target's answer to the offer: OpenTalking itself gives up after 60 s."""
    connected: float = 15.0
    """ICE and DTLS."""
    first_frame: float = 15.0
    """From connected to the first complete key frame."""
    close: float = 5.0
    """Each step of closing."""
    turn: TurnLimits = field(default_factory=TurnLimits)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What to ask the target for, and how to reach its media."""

    model: str
    avatar: str
    addresses: tuple[str, ...] | None = None
    """Host candidates to offer; None: 127.0.0.1 for a loopback target, else every interface."""
    stun_urls: tuple[str, ...] = ()
    decode: bool = True
    """Decode the pictures, at ten times the cost of only receiving them."""
    limits: SessionLimits = field(default_factory=SessionLimits)


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What the client saw of a session; marks are seconds since its creation was requested."""

    session: str
    model: str
    avatar: str
    started_unix: float
    marks: Mapping[str, float]

    def values(self) -> dict[str, float]:
        """Catalogue key → value of the session's stages."""
        found = {
            stage.key: stages.value_between(stage, self.marks)
            for stage in stages.STAGES.values()
            if stage.scope is stages.Scope.SESSION
        }
        return {key: value for key, value in found.items() if value is not None}


class Session:
    """A session; use it as an async context manager, or call `open` and `close`.

    `client` stays the caller's. `on_queued` hears the place in the target's queue and the
    target's word for it, `on_created` the session's id as soon as there is one to delete, also
    when that is after a cancellation. `first_timestamps` is asked, when an answer is over, what
    the agent told of it, and limits its own time. Not for concurrent turns.
    """

    def __init__(
        self,
        client: OpenTalking,
        config: SessionConfig,
        marks: MarkSink,
        *,
        on_queued: Callable[[int, str], None] | None = None,
        first_timestamps: FirstTimestampsOf | None = None,
        on_created: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._first_timestamps = first_timestamps
        self._config = config
        self._limits = config.limits
        self._sink = marks
        self._on_queued = on_queued
        self._on_created = on_created
        self._news = asyncio.Event()
        self._meter = MediaMeter(decoding=config.decode)
        self._peer: Peer | None = None
        self._id: str | None = None
        self._creation: asyncio.Task[opentalking.CreatedSession] | None = None
        self._relay: asyncio.Task[None] | None = None
        self._subscribed = False
        self._queue_place: tuple[int, str] | None = None
        self._zero = math.nan
        self._started_unix = math.nan
        self._marks: dict[str, float] = {}
        self._live: _LiveTurn | None = None
        self._turns = itertools.count(1)
        self._unsettled = False
        self._trouble: TargetError | None = None
        self._closing: asyncio.Task[None] | None = None
        self.cleanup_error: TargetError | None = None
        """Why the target may still hold the session, after `close`."""
        self.retry_after: float | None = None
        """Seconds that the target asked for, before another input, when it refused the last."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def report(self) -> SessionReport:
        """What has been seen of the session so far."""
        return SessionReport(
            session=self._id or "",
            model=self._config.model,
            avatar=self._config.avatar,
            started_unix=self._started_unix,
            marks=dict(self._marks),
        )

    @property
    def media(self) -> SessionMedia:
        """What the session has received so far."""
        return self._meter.totals()

    @property
    def trouble(self) -> TargetError | None:
        """Why no further turn can succeed, or None while the session lives; it stays."""
        if self._trouble is None and self._peer is not None:
            self._trouble = self._peer.trouble
        return self._trouble

    # --- opening ---------------------------------------------------------------------------

    async def open(self) -> SessionReport:
        """Create the session and wait until its first key frame is here.

        Raises TargetError; the session is then deleted already.
        """
        try:
            await self._create()
            await self._subscribe()
            await self._wait_ready()
            await self._connect()
        except TargetError as error:
            self._trouble = self._trouble or error
            await self.close()
            raise
        except BaseException:
            await self.close()
            raise
        return self.report

    async def _create(self) -> None:
        addresses: Sequence[str] | None = self._config.addresses
        if addresses is None and self._client.on_loopback:
            addresses = ice.LOOPBACK
        self._peer = Peer(
            self._meter,
            addresses=addresses,
            stun_urls=self._config.stun_urls,
            on_news=self._news.set,
            decode=self._config.decode,
        )
        # A task of its own: if we are cancelled now, `close` still learns the id it must delete.
        self._creation = asyncio.create_task(
            self._client.create_session(
                avatar=self._config.avatar,
                model=self._config.model,
                timeout=self._limits.create,
            )
        )
        self._creation.add_done_callback(self._tell_id)
        self._zero, self._started_unix = time.monotonic(), steady_clock.now()
        self._marks[stages.SESSION_REQUESTED] = 0.0
        created = await asyncio.shield(self._creation)
        self._mark(stages.SESSION_CREATED, time.monotonic())
        self._id = created.session
        self._send_marks()

    def _tell_id(self, creation: asyncio.Task[opentalking.CreatedSession]) -> None:
        if self._on_created is not None and not creation.cancelled() and not creation.exception():
            self._on_created(creation.result().session)

    async def _subscribe(self) -> None:
        self._relay = asyncio.create_task(self._relay_events())
        await self._until(
            lambda: self._subscribed,
            self._limits.subscribed,
            TargetError("the session's event stream does not open", Cause.TIMEOUT),
        )

    async def _relay_events(self) -> None:
        try:
            async with self._client.events(self._session) as events:
                self._subscribed = True
                self._news.set()
                async for event in events:
                    self._on_event(event)
        except TargetError as error:
            self._trouble = self._trouble or error
            self._news.set()

    def _on_event(self, event: Event) -> None:
        self._sink.send(RelayedEvent(self._session, event.unix, event.name, event.data))
        if event.name == EventName.SESSION_QUEUED:
            place, word = event.data.get("position"), event.data.get("message")
            if isinstance(place, int) and (place, word) != self._queue_place:
                self._queue_place = (place, str(word))
                # Position 0 is the word that the wait is over.
                if place and self._on_queued is not None:
                    self._on_queued(*self._queue_place)
        elif event.name == EventName.SESSION_EXPIRED:
            self._trouble = TargetError(
                "the target ended the session: its time was up "
                "(flashtalk_max_session_sec limits it)",
                Cause.REFUSED,
            )
        if self._live is not None and self._live.watch is not None:
            self._live.watch.on_event(event)
        self._news.set()

    async def _wait_ready(self) -> None:
        # Polled, because the event that says so may be published before we subscribe.
        deadline = time.monotonic() + self._limits.ready
        while True:
            record = await self._client.get_session(self._session)
            state = record.get("state")
            if state in opentalking.READY_STATES:
                return
            place = self._queue_place
            queue = f"; last news of its queue: {place[1]}, position {place[0]}" if place else ""
            if state == opentalking.FAILED_STATE or state in opentalking.GONE_STATES:
                raise TargetError(
                    f"the target could not start the session (state {state}{queue}): its queue "
                    "is full, or the model's backend refused; see the worker's log",
                    Cause.REFUSED,
                )
            if time.monotonic() >= deadline:
                raise TargetError(
                    f"the session was not ready within {self._limits.ready:.0f} s "
                    f"(state {state}{queue}): no worker takes it, or the model still loads",
                    Cause.TIMEOUT,
                )
            if self.trouble is not None:
                raise self.trouble
            await asyncio.sleep(_POLL_S)

    async def _connect(self) -> None:
        assert self._peer is not None
        peer = self._peer
        self._mark(stages.OFFER_STARTED, time.monotonic())
        offer = Description(*await peer.offer())
        answer = await self._client.offer(self._session, offer, timeout=self._limits.offer)
        await peer.accept(answer.sdp, answer.type)
        await self._until(
            lambda: peer.connected or self._meter.first_packet is not None,
            self._limits.connected,
            TargetError(
                f"no WebRTC connection within {self._limits.connected:.0f} s: UDP between this "
                "client and the target is blocked, or the target offers addresses that cannot "
                "be reached from here (a loopback target must offer 127.0.0.1)",
                Cause.CONNECTION_LOST,
            ),
        )
        await self._until(
            lambda: self._meter.first_key_frame is not None,
            self._limits.first_frame,
            TargetError(
                f"connected, but no complete key frame within {self._limits.first_frame:.0f} s: "
                "the target sends no video, or too much of it is lost on the way",
                Cause.NO_MEDIA,
            ),
        )
        assert self._meter.first_key_frame is not None
        self._mark(stages.CLIENT_FIRST_FRAME, self._meter.first_key_frame)
        self._send_marks()

    # --- turns -----------------------------------------------------------------------------

    async def turn(
        self, said: Input, *, phase: Phase | None = None, interrupt_after: float | None = None
    ) -> TurnResult:
        """Give one input and follow its answer to the end of playback.

        With `interrupt_after` the answer is interrupted when so many seconds of it have been
        heard; one that ends sooner is a completed turn.

        A turn that goes wrong is a result whose outcome is not `completed`. Raises TargetError
        when the session was dead before the input.
        """
        if self._live is not None:
            raise RuntimeError("a session speaks one turn at a time")
        await self._settle()
        if self.trouble is not None:
            raise self.trouble
        live = self._live = _LiveTurn(str(next(self._turns)), said.kind, phase)
        try:
            await self._say(said, live)
            if interrupt_after is not None:
                await self._break_in(live, interrupt_after)
            verdict = await self._verdict(live)
        except TargetError as error:
            self.retry_after = error.retry_after
            verdict = Verdict(Outcome.FAILED, Failure(error.cause.name, str(error)))
            if live.watch is None:
                self._begin(live, time.monotonic())
        finally:
            self._live = None
        self._unsettled = verdict.outcome is not Outcome.COMPLETED
        assert live.watch is not None
        interrupted_at = live.instants.get(stages.CLIENT_INTERRUPTED)
        if interrupted_at is not None and verdict.outcome is Outcome.INTERRUPTED:
            # Silent already when the command left: it took no time.
            live.mark(stages.CLIENT_SILENT, max(interrupted_at, self._meter.last_audio or 0.0))
        told = await self._told(live, verdict.outcome)
        outcome = result_of(
            turn=live.turn,
            input_kind=live.kind,
            phase=live.phase,
            started_unix=live.started_unix,
            begun=live.begun,
            verdict=verdict,
            watch=live.watch,
            speech=self._meter.end_turn(told),
            instants=live.instants,
        )
        self._sink.send(outcome.record(self._session))
        return outcome

    async def _told(self, live: _LiveTurn, outcome: Outcome) -> FirstTimestamps | None:
        """What the agent told of the answer, if there was one."""
        answered = outcome in _ANSWERED and self._meter.first_audio is not None
        if self._first_timestamps is None or not answered:
            return None
        return await self._first_timestamps(self._session, time.monotonic() - live.begun)

    async def interrupt(self) -> None:
        """Stop the running answer; its turn ends as `interrupted`."""
        await self._client.interrupt(self._session)

    async def _break_in(self, live: _LiveTurn, after: float) -> None:
        """Interrupt the answer when `after` seconds of it have been heard, unless it is over."""
        while True:
            heard_from = self._meter.first_audio
            at = math.inf if heard_from is None else heard_from + after
            over_at, _ = self._pending(live)
            now = time.monotonic()
            if now >= over_at:
                return
            if now >= at:
                break
            # The first audio packet makes no news of its own.
            await self._wait_news(min(at, over_at, now + _POLL_S))
        live.mark(stages.CLIENT_INTERRUPTED, time.monotonic())
        await self.interrupt()

    async def _say(self, said: Input, live: _LiveTurn) -> None:
        """Give the input; return when the target has accepted it."""
        match said:
            case TextInput():
                self._begin(live, time.monotonic())
                await self._client.speak(self._session, said.text)
            case UploadInput():
                self._begin(live, time.monotonic())
                await self._client.speak_audio(
                    self._session,
                    said.data,
                    filename=said.filename,
                    timeout=self._limits.turn.transcript,
                )
            case SpeechInput():
                await self._client.speak_audio_stream(
                    self._session,
                    said.pcm,
                    on_first_audio=lambda at: live.mark(stages.USER_SPEECH_STARTED, at),
                    on_last_audio=lambda at: self._begin(live, at),
                    timeout=self._limits.turn.transcript,
                )
                live.mark(stages.ASR_FINAL, time.monotonic())
        if live.watch is not None:
            live.watch.accepted(time.monotonic())

    def _begin(self, live: _LiveTurn, at: float) -> None:
        """The input is complete: the turn's zero."""
        live.begun, live.started_unix = at, steady_clock.now()
        live.watch = TurnWatch(at, self._limits.turn)
        self._meter.begin_turn(at)
        self._sink.send(
            TurnOpened(
                session=self._session,
                turn=live.turn,
                input=live.kind,
                phase=live.phase,
                started_unix=live.started_unix,
            )
        )

    async def _verdict(self, live: _LiveTurn) -> Verdict:
        while True:
            at, verdict = self._pending(live)
            if time.monotonic() >= at:
                return verdict
            await self._wait_news(at)

    def _pending(self, live: _LiveTurn) -> tuple[float, Verdict]:
        """See `TurnWatch.pending`; a dead session ends its turn at once."""
        assert live.watch is not None
        if self.trouble is not None:
            live.watch.fail(self.trouble.cause.name, str(self.trouble))
        return live.watch.pending(
            first_audio=self._meter.first_audio, last_audio=self._meter.last_audio
        )

    async def _settle(self) -> None:
        """After a turn that went wrong, its answer may still come: stop it, await silence.

        Without this the rest of it would be taken for the next answer.
        """
        if not self._unsettled or self.trouble is not None:
            return
        with contextlib.suppress(TargetError):
            await self.interrupt()
        quiet = self._limits.turn.quiet
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + _SETTLE_S:
            silent_since = max(begun, self._meter.last_audio or begun)
            if now >= silent_since + quiet:
                break
            await asyncio.sleep(silent_since + quiet - now)
        self._unsettled = False

    # --- waiting ---------------------------------------------------------------------------

    async def _until(
        self, reached: Callable[[], bool], seconds: float, too_late: TargetError
    ) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if self.trouble is not None:
                raise self.trouble
            if time.monotonic() >= deadline:
                raise too_late
            await self._wait_news(deadline)

    async def _wait_news(self, until: float) -> None:
        """Wait for an event, a change of the connection or the instant `until` (monotonic)."""
        self._news.clear()
        seconds = None if math.isinf(until) else max(0.0, until - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    # --- records ---------------------------------------------------------------------------

    @property
    def _session(self) -> str:
        assert self._id is not None
        return self._id

    def _mark(self, name: str, at: float) -> None:
        self._marks[name] = at - self._zero

    def _send_marks(self, outcome: Outcome | None = None) -> None:
        report = self.report
        absent = {}
        if outcome is not None and stages.CLIENT_FIRST_FRAME not in report.marks:
            absent[stages.CLIENT_FIRST_FRAME] = str(self._trouble or "the session was given up")
        self._sink.send(
            SessionMarks(
                session=report.session,
                model=report.model,
                avatar=report.avatar,
                started_unix=report.started_unix,
                marks=report.marks,
                absent=absent,
                outcome=outcome,
            )
        )

    # --- closing ---------------------------------------------------------------------------

    async def close(self) -> None:
        """Delete the session on the target and close all connections to it.

        It runs to its end even when the caller is cancelled meanwhile, and takes at most a few
        times `limits.close` seconds. A target that cannot be told is named in `cleanup_error`.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        cancelled = False
        while not self._closing.done():
            try:
                await asyncio.shield(self._closing)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _close(self) -> None:
        if self._id is not None:
            opened = stages.CLIENT_FIRST_FRAME in self._marks
            alive = opened and self.trouble is None
            self._send_marks(Outcome.COMPLETED if alive else Outcome.FAILED)
        await self._delete()
        if self._relay is not None:
            self._relay.cancel()
            await asyncio.gather(self._relay, return_exceptions=True)
        if self._peer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.close):
                    await self._peer.close()

    async def _delete(self) -> None:
        session = await self._created_session()
        if session is None:
            return
        for delete in (self._client.delete, self._client.delete_again):
            try:
                await delete(session, timeout=self._limits.close)
            except TargetError as error:
                self.cleanup_error = error
            else:
                self.cleanup_error = None
                return

    async def _created_session(self) -> str | None:
        """The id to delete, also when the request that creates it is still under way."""
        if self._creation is None:
            return None
        done, _ = await asyncio.wait({self._creation}, timeout=self._limits.close)
        if not done:
            self._creation.cancel()
            await asyncio.gather(self._creation, return_exceptions=True)
            return None
        return None if self._creation.exception() else self._creation.result().session


@dataclass(slots=True)
class _LiveTurn:
    """The turn that is being spoken."""

    turn: str
    kind: str
    phase: Phase | None
    begun: float = math.nan
    started_unix: float = math.nan
    watch: TurnWatch | None = None
    instants: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str, at: float) -> None:
        self.instants[name] = at
