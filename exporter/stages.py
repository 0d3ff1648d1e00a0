"""The catalogue: every mark and every stage Talkscope knows, once.

What comes in: nothing. What goes out: `MARKS`, `STAGES` and the constants that name them.
Histograms, spans, report rows, `doctor` and the reference docs are derived from here, so a
new stage is one entry, and no other module repeats a stage's name as a literal. Levels and counts
that are no stage are in `exporter.gauges`.

It must not know how a mark is seen (that is `exporter.sources`) nor how a value is
published (`exporter.metrics`, `exporter.spans`, `report`). Standard library only: code that
runs inside OpenTalking's process imports it.

Definitions follow OpenTalking's benchmark page and, where the page's words and its
published rows differ, the way the rows were computed; each entry says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """How a stage relates to the others."""

    ELEMENTARY = "elementary"
    """One party's work between neighbouring marks; those of a turn do not overlap."""
    COMPOSITE = "composite"
    """Spans several elementary stages, so it moves when any of them moves."""
    SAMPLE = "sample"
    """Not an interval: a rate, a ratio, a level or an offset."""


class Scope(StrEnum):
    """What one value of a stage belongs to."""

    TURN = "turn"
    SESSION = "session"
    RUN = "run"


class Unit(StrEnum):
    """Base unit of a stage, as Prometheus wants it."""

    SECONDS = "s"
    FRAMES_PER_SECOND = "frames/s"
    RATIO = "1"
    BYTES = "By"
    COUNT = "{item}"


class Instrument(StrEnum):
    """The Prometheus type that carries a stage."""

    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    COUNTER = "counter"
    """Values add up over turns; the exported name has `_total` at its end."""
    REPORT_ONLY = "none"
    """Belongs to one benchmark run and is not exported as a series."""


class Startup(StrEnum):
    """How warm the target was when a turn began."""

    COLD = "cold"
    """First turn after the target started."""
    WARM = "warm"
    """First turn of a later session."""
    STEADY = "steady"
    """Every other turn."""


class Phase(StrEnum):
    """What a turn was for; a turn outside a benchmark run has none."""

    WARMUP = "warmup"
    MEASURED = "measured"


class InputKind(StrEnum):
    """How the user's input of a turn reached the target."""

    TEXT = "text"
    SPEECH = "speech"
    """Streamed microphone audio."""
    AUDIO_UPLOAD = "audio_upload"


class Outcome(StrEnum):
    """How a turn ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    VANISHED = "vanished"
    """Accepted, and then no event."""
    NO_MEDIA = "no_media"
    """The target says that it plays, and no packet arrives."""
    TIMEOUT = "timeout"
    INCOMPLETE = "incomplete"
    """The exporter stopped before the turn ended; no client says this."""


class ProcessRole(StrEnum):
    """Which of OpenTalking's processes an agent sits in."""

    UNIFIED = "unified"
    WORKER = "worker"
    API = "api"


class Source(StrEnum):
    """A way of seeing a deployment."""

    BUS = "bus"
    """OpenTalking's events on Redis (split mode)."""
    SSE = "sse"
    """The same events, relayed by a client from its session's event stream (either mode)."""
    LOG = "log"
    """The log of the process that runs the pipeline (unified server or worker)."""
    HTTP = "http"
    """OpenTalking's HTTP endpoints, polled."""
    AGENT = "agent"
    """Talkscope's agent inside OpenTalking's process."""
    CLIENT = "client"
    """A WebRTC client: load generator, bench or browser."""
    ACCELERATOR = "accelerator"
    """The device's management library."""
    SUPERVISOR = "supervisor"
    """Whoever started the target's processes."""


# --- marks ---------------------------------------------------------------------------------

TARGET_STARTED: Final = "target.started"
TARGET_READY: Final = "target.ready"
SESSION_REQUESTED: Final = "session.requested"
SESSION_CREATED: Final = "session.created"
OFFER_STARTED: Final = "webrtc.offer_started"
CLIENT_FIRST_FRAME: Final = "client.first_frame"
USER_SPEECH_STARTED: Final = "user_speech.started"
ASR_FIRST_PARTIAL: Final = "asr.first_partial"
STT_REQUESTED: Final = "stt.requested"
STT_TRANSCRIBED: Final = "stt.transcribed"
ASR_FINAL: Final = "asr.final"
INPUT: Final = "input"
INPUT_ENQUEUED: Final = "input.enqueued"
SPEAK_ENTERED: Final = "speak.entered"
LLM_REQUESTED: Final = "llm.requested"
LLM_FIRST_TOKEN: Final = "llm.first_token"
TTS_REQUESTED: Final = "tts.requested"
TTS_FIRST_PCM: Final = "tts.first_pcm"
AVATAR_REQUESTED: Final = "avatar.requested"
AVATAR_FIRST_FRAME: Final = "avatar.first_frame"
MEDIA_QUEUED: Final = "media.queued"
SPEECH_GENERATED: Final = "speech.generated"
SPEECH_TIMED: Final = "speech.timed"
SPEECH_ENDED: Final = "speech.ended"
CLIENT_FIRST_AUDIO: Final = "client.first_audio"
CLIENT_FIRST_TALKING_FRAME: Final = "client.first_talking_frame"
CLIENT_SPEECH_ENDED: Final = "client.speech_ended"
CLIENT_INTERRUPTED: Final = "client.interrupted"
CLIENT_SILENT: Final = "client.silent"

MARKS: Final[dict[str, str]] = {
    TARGET_STARTED: "the first of the target's processes was started",
    TARGET_READY: "the target answers its health check and lists the model as connected",
    SESSION_REQUESTED: "the client sends the request that creates a session",
    SESSION_CREATED: "the response to that request has arrived",
    OFFER_STARTED: "the client begins to create its WebRTC offer",
    CLIENT_FIRST_FRAME: (
        "the last packet of the first complete key frame has arrived (it may be an idle frame)"
    ),
    USER_SPEECH_STARTED: "the first audio of the user's speech is sent to the target",
    ASR_FIRST_PARTIAL: "the first partial transcript is published",
    STT_REQUESTED: "the server asks the speech recogniser for the transcript",
    STT_TRANSCRIBED: "the recogniser has returned the final transcript to the server",
    ASR_FINAL: "the final transcript has arrived",
    INPUT: (
        "the user's input is complete: the text request is sent, the last speech audio is sent, "
        "or the audio upload begins"
    ),
    INPUT_ENQUEUED: "the API has put the speak task into the task queue",
    SPEAK_ENTERED: "the pipeline begins to work on the turn",
    LLM_REQUESTED: "the pipeline begins the request to the language model",
    LLM_FIRST_TOKEN: "the first non-blank token of the answer has arrived",
    TTS_REQUESTED: "the first sentence is submitted to speech synthesis",
    TTS_FIRST_PCM: "the first audio samples of the first sentence have arrived in the server",
    AVATAR_REQUESTED: "the first audio chunk is submitted to the synthesis backend",
    AVATAR_FIRST_FRAME: "the frames of the first chunk have been returned by the synthesis backend",
    MEDIA_QUEUED: "the first audio+video chunk is queued for WebRTC, before it is encoded or sent",
    SPEECH_GENERATED: "generation and queueing of the whole answer have finished; playback has not",
    SPEECH_TIMED: "the turn's speech.timing event was observed",
    SPEECH_ENDED: "the turn's speech.ended event was observed; playback may still be going on",
    CLIENT_FIRST_AUDIO: "the first audio packet of the answer has arrived at the client",
    CLIENT_FIRST_TALKING_FRAME: (
        "the last packet of the first video frame that belongs to the answer has arrived at the "
        "client"
    ),
    CLIENT_SPEECH_ENDED: "the last audio packet of the answer has arrived at the client",
    CLIENT_INTERRUPTED: "the client sends the request that interrupts the answer",
    CLIENT_SILENT: "the last audio packet of the interrupted answer has arrived at the client",
}


# --- stages --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sight:
    """One place where OpenTalking 0.1.0 lets a stage be seen."""

    source: Source
    where: str
    """The event field, log field or observation, in words."""
    needs: str = ""
    """The switch that turns it on, or empty when it is always there."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One measured quantity: its name, its two marks (or none, for a sample) and its meaning.

    `key` is the benchmark name. Wherever a number stands beside a key (bundle, ingest, report)
    it is in the unit the key's suffix names: `_ms` milliseconds, `_s` seconds, `_bytes` bytes.
    `family` is the Prometheus name, in base units; `to_base` converts.
    """

    key: str
    title: str
    meaning: str
    boundaries: str
    kind: Kind
    scope: Scope
    owner: str
    unit: Unit
    better: str
    """`lower`, `higher` or `zero` (the nearer to zero the better)."""
    start: str | None = None
    end: str | None = None
    family: str | None = None
    instrument: Instrument = Instrument.HISTOGRAM
    buckets: tuple[float, ...] = ()
    sights: tuple[Sight, ...] = ()
    unseen: str = ""
    """Why nobody can see it on OpenTalking 0.1.0; empty where somebody can."""
    page: bool = False
    """Listed in the benchmark page's table of metrics."""
    timing_field: str | None = None
    """Field of the `speech.timing` event that carries the value as the target computed it."""
    log_field: str | None = None
    """Field of a pipeline log line that carries it (milliseconds)."""

    @property
    def is_signed(self) -> bool:
        """Whether values lie on both sides of zero: A/V drift."""
        return self.better == "zero"

    @property
    def is_interval(self) -> bool:
        """Whether the value is the time between two marks."""
        return self.start is not None

    def to_base(self, value: float) -> float:
        """Convert a value in the key's unit to the base unit (`unit`)."""
        return value / 1000.0 if self.key.endswith("_ms") else value

    def from_base(self, value: float) -> float:
        """Convert a value in the base unit to the key's unit."""
        return value * 1000.0 if self.key.endswith("_ms") else value


def _geometric(first: float, last: float, ratio: float) -> list[float]:
    edges = []
    edge = first
    while edge < last:
        edges.append(float(f"{edge:.3g}"))
        edge *= ratio
    return edges


TIME_BUCKETS: Final[tuple[float, ...]] = (
    *_geometric(0.005, 0.05, 1.6),
    *_geometric(0.05, 0.28, 1.25),
    # Time to first audio and video live between 0.3 and 6 s. Edges 10 % apart keep a
    # quantile, interpolated inside its bucket, within 5 % there (tests/exporter/test_stages.py).
    *_geometric(0.28, 6.55, 1.1),
    *(8.0, 10.0, 12.5, 16.0, 20.0, 30.0, 60.0),
)
"""Upper edges in seconds for every interval."""

DRIFT_BUCKETS: Final[tuple[float, ...]] = (
    # ITU-R BT.1359-1: detectability at +45/-125 ms, acceptability at +90/-185 ms. Of the
    # magnitude, because OpenMetrics has no sum for buckets below zero; a label says who leads.
    *(0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.06, 0.075, 0.09, 0.105, 0.125, 0.155, 0.185),
    *(0.22, 0.26, 0.32, 0.4, 0.6, 1.0),
)
"""Upper edges in seconds for the magnitude of A/V drift."""

FPS_BUCKETS: Final[tuple[float, ...]] = (
    *(5.0, 10.0, 12.5, 15.0, 17.5, 20.0, 22.0, 23.0, 24.0, 24.5, 25.0, 25.5, 26.0, 28.0),
    *(30.0, 31.0, 35.0, 40.0, 50.0, 60.0, 80.0, 120.0, 200.0, 400.0, 1000.0),
)
"""Upper edges in frames a second; narrow around the nominal 25 and 30."""

RATIO_BUCKETS: Final[tuple[float, ...]] = (
    *(0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    *(1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0),
)
"""Upper edges of the real-time factor; narrow around 1, where playback starts to starve."""

_TIMING_SWITCH = "OPENTALKING_BENCHMARK_TIMING=1 on the process that runs the pipeline"
_LOG_SWITCH = "the log of the process that runs the pipeline, at level INFO"
_NO_CLIENT = "a WebRTC client (talkscope bench or the load generator)"


_AGENT_SWITCH = "OpenTalking started by python -m exporter.agent"
_AGENT = Sight(Source.AGENT, "the pipeline's own instants", _AGENT_SWITCH)


def _timing(where: str, *, instants: bool = True) -> tuple[Sight, ...]:
    """Of the timing event; and, for what lies between two `instants`, of the agent as well."""
    event = (
        Sight(Source.BUS, where, _TIMING_SWITCH),
        Sight(Source.SSE, where, _TIMING_SWITCH),
    )
    return (*event, _AGENT) if instants else event


def _client(where: str) -> tuple[Sight, ...]:
    return (Sight(Source.CLIENT, where, _NO_CLIENT),)


STAGES: Final[dict[str, Stage]] = {}


def _interval(
    key: str,
    title: str,
    start: str,
    end: str,
    *,
    meaning: str,
    boundaries: str,
    owner: str,
    kind: Kind = Kind.ELEMENTARY,
    scope: Scope = Scope.TURN,
    family: str | None,
    sights: tuple[Sight, ...] = (),
    unseen: str = "",
    page: bool = False,
    timing_field: str | None = None,
    log_field: str | None = None,
) -> Stage:
    stage = Stage(
        key=key,
        title=title,
        meaning=meaning,
        boundaries=boundaries,
        kind=kind,
        scope=scope,
        owner=owner,
        unit=Unit.SECONDS,
        better="lower",
        start=start,
        end=end,
        family=family,
        instrument=Instrument.HISTOGRAM if family else Instrument.REPORT_ONLY,
        buckets=TIME_BUCKETS if family else (),
        sights=sights,
        unseen=unseen,
        page=page,
        timing_field=timing_field,
        log_field=log_field,
    )
    STAGES[key] = stage
    return stage


def _sample(
    key: str,
    title: str,
    *,
    meaning: str,
    boundaries: str,
    owner: str,
    unit: Unit,
    better: str,
    family: str | None,
    scope: Scope = Scope.TURN,
    instrument: Instrument = Instrument.HISTOGRAM,
    buckets: tuple[float, ...] = (),
    sights: tuple[Sight, ...] = (),
    page: bool = False,
    timing_field: str | None = None,
) -> Stage:
    stage = Stage(
        key=key,
        title=title,
        meaning=meaning,
        boundaries=boundaries,
        kind=Kind.SAMPLE,
        scope=scope,
        owner=owner,
        unit=unit,
        better=better,
        family=family,
        instrument=instrument,
        buckets=buckets,
        sights=sights,
        page=page,
        timing_field=timing_field,
    )
    STAGES[key] = stage
    return stage


# The target as a whole.

COLD_START = _interval(
    "cold_start_s",
    "cold start",
    TARGET_STARTED,
    TARGET_READY,
    meaning="Time from starting the target's processes until they can serve the model.",
    boundaries="processes started → health answers and the model is connected",
    owner="OpenTalking + synthesis backend",
    kind=Kind.COMPOSITE,
    scope=Scope.RUN,
    family=None,
    sights=(
        Sight(
            Source.SUPERVISOR,
            "start and readiness of the processes",
            "a target that talkscope bench starts itself (--start)",
        ),
    ),
)
WARMUP = _interval(
    "warmup_s",
    "warmup",
    INPUT,
    SPEECH_TIMED,
    meaning="Duration of the first, unmeasured turn, which loads models and fills caches.",
    boundaries="warmup speak request → its speech.timing event",
    owner="OpenTalking + synthesis backend",
    kind=Kind.COMPOSITE,
    scope=Scope.RUN,
    family=None,
    sights=(Sight(Source.CLIENT, "the first turn of talkscope bench", _TIMING_SWITCH),),
)

# A session.

SESSION_CREATE = _interval(
    "session_create_ms",
    "session create",
    SESSION_REQUESTED,
    SESSION_CREATED,
    meaning="Time from session creation request to API response.",
    boundaries="POST /sessions sent → response read",
    owner="OpenTalking",
    scope=Scope.SESSION,
    family="opentalking_session_create_seconds",
    sights=(
        *_client("duration of POST /sessions"),
        Sight(Source.AGENT, "the server's own duration of that request", _AGENT_SWITCH),
    ),
    page=True,
)
WEBRTC_FIRST_FRAME = _interval(
    "webrtc_first_frame_ms",
    "WebRTC first frame",
    OFFER_STARTED,
    CLIENT_FIRST_FRAME,
    meaning="Time until the client receives the first playable video frame.",
    boundaries=(
        "start of createOffer → last packet of the first complete key frame (an idle frame counts)"
    ),
    owner="OpenTalking + WebRTC",
    scope=Scope.SESSION,
    family="opentalking_webrtc_first_frame_seconds",
    sights=_client("RTP packets of the video track"),
    page=True,
)

# A turn, in the order in which it happens.

ASR_PARTIAL = _interval(
    "asr_partial_latency_ms",
    "ASR first partial",
    USER_SPEECH_STARTED,
    ASR_FIRST_PARTIAL,
    meaning="Latency from user speech to the first partial transcript.",
    boundaries="first speech audio sent → first partial transcript",
    owner="OpenTalking + STT provider",
    family="opentalking_asr_partial_latency_seconds",
    unseen="OpenTalking 0.1.0 publishes no partial transcript, only the final one",
    page=True,
)
ASR_FINAL_LATENCY = _interval(
    "asr_final_latency_ms",
    "ASR final transcript",
    INPUT,
    ASR_FINAL,
    meaning="Latency from the end of the user's speech to its final transcript.",
    boundaries="last speech audio sent → WebSocket reply with the text (spoken input only)",
    owner="OpenTalking + STT provider",
    family="opentalking_asr_final_latency_seconds",
    sights=_client("reply of WS /sessions/{id}/speak_audio_stream"),
)
STT = _interval(
    "stt_ms",
    "speech recognition (server)",
    STT_REQUESTED,
    STT_TRANSCRIBED,
    meaning="Duration of speech recognition inside the server, as OpenTalking's log counts it.",
    boundaries="recogniser asked for the transcript → final transcript (spoken input only)",
    owner="OpenTalking + STT provider",
    # Part of asr_final_latency_ms where a client tells it, so the two must not be stacked.
    kind=Kind.COMPOSITE,
    family="opentalking_stt_seconds",
    sights=(_AGENT,),
)
QUEUE_WAIT = _interval(
    "queue_wait_ms",
    "task queue wait",
    INPUT_ENQUEUED,
    SPEAK_ENTERED,
    meaning="Time a speak task waits in OpenTalking's task queue and for the pipeline's lock.",
    boundaries="speak task enqueued by the API → pipeline entered",
    owner="OpenTalking",
    family="opentalking_queue_wait_seconds",
    sights=_timing("speech.timing, api_enqueue_to_speak_enter_ms"),
)
TURN_PREPARE = _interval(
    "turn_prepare_ms",
    "turn preparation",
    SPEAK_ENTERED,
    LLM_REQUESTED,
    meaning="Work before the language model is asked: TTS adapter, cached opener.",
    boundaries="pipeline entered → LLM request begins",
    owner="OpenTalking",
    family="opentalking_turn_prepare_seconds",
    sights=(
        Sight(
            Source.LOG,
            "instants of the lines 'FlashHead prebuffer' and 'LLM streaming started'",
            _LOG_SWITCH + ", with timestamps; and " + _TIMING_SWITCH,
        ),
        _AGENT,
    ),
)
LLM_FIRST_TOKEN_LATENCY = _interval(
    "llm_first_token_ms",
    "LLM first token",
    LLM_REQUESTED,
    LLM_FIRST_TOKEN,
    meaning="Latency from text request to first LLM token.",
    boundaries="LLM request begins → first non-blank token",
    owner="OpenTalking + LLM endpoint",
    family="opentalking_llm_first_token_seconds",
    sights=(
        Sight(Source.LOG, "line 'Speak pipeline timing', llm_first_token_ms", _LOG_SWITCH),
        _AGENT,
    ),
    page=True,
    log_field="llm_first_token_ms",
)
SENTENCE_READY = _interval(
    "sentence_ready_ms",
    "first sentence ready",
    LLM_FIRST_TOKEN,
    TTS_REQUESTED,
    meaning="Time the language model takes to complete the first sentence that can be spoken.",
    boundaries="first non-blank token → first sentence submitted to TTS",
    owner="OpenTalking + LLM endpoint",
    family="opentalking_sentence_ready_seconds",
    sights=(
        Sight(
            Source.LOG,
            "from the instants of 'LLM streaming started' and of the first PCM",
            _LOG_SWITCH + ", with timestamps; and " + _TIMING_SWITCH,
        ),
        _AGENT,
    ),
)
TTS_FIRST_PCM_LATENCY = _interval(
    "tts_first_pcm_ms",
    "TTS first PCM",
    TTS_REQUESTED,
    TTS_FIRST_PCM,
    meaning="Latency from sentence submission to first PCM/audio bytes.",
    boundaries="first sentence submitted to TTS → its first audio samples",
    owner="OpenTalking + TTS provider",
    family="opentalking_tts_first_pcm_seconds",
    sights=(
        Sight(
            Source.LOG,
            "line 'TTS sentence done', first_pcm, while exactly one turn speaks",
            _LOG_SWITCH,
        ),
        _AGENT,
    ),
    page=True,
)
AUDIO_CHUNK_FILL = _interval(
    "audio_chunk_fill_ms",
    "audio chunk fill",
    TTS_FIRST_PCM,
    AVATAR_REQUESTED,
    meaning="Time until TTS has delivered enough audio for the first synthesis chunk.",
    boundaries="first audio samples → first chunk submitted to the synthesis backend",
    owner="OpenTalking + TTS provider",
    family="opentalking_audio_chunk_fill_seconds",
    sights=_timing("speech.timing, first_model_request_ms − ttfa_ms"),
)
AVATAR_FIRST_FRAME_LATENCY = _interval(
    "avatar_first_frame_ms",
    "avatar first frame",
    AVATAR_REQUESTED,
    AVATAR_FIRST_FRAME,
    meaning="Latency from audio submission to first available avatar frame.",
    boundaries="first audio chunk submitted → its frames returned",
    owner="OpenTalking + synthesis backend",
    family="opentalking_avatar_first_frame_seconds",
    sights=_timing("speech.timing, first_model_return_ms − first_model_request_ms"),
    page=True,
)
MEDIA_QUEUE = _interval(
    "media_queue_ms",
    "media queueing",
    AVATAR_FIRST_FRAME,
    MEDIA_QUEUED,
    meaning="Time the first frames wait for the pre-buffer before they are queued for WebRTC.",
    boundaries="first frames returned → first audio+video chunk queued",
    owner="OpenTalking",
    family="opentalking_media_queue_seconds",
    sights=_timing("speech.timing, first_webrtc_queue_ms − first_model_return_ms"),
)
MEDIA_DELIVERY = _interval(
    "media_delivery_ms",
    "media delivery",
    MEDIA_QUEUED,
    CLIENT_FIRST_TALKING_FRAME,
    meaning="Encoding, pacing, network and reception of the first talking frame.",
    boundaries="first chunk queued for WebRTC → first talking frame complete at the client",
    owner="OpenTalking + WebRTC",
    family="opentalking_media_delivery_seconds",
    sights=_client("RTP packets of the first talking frame, on the exporter's clock"),
)

# Composites of a turn.

TTFA = _interval(
    "ttfa_ms",
    "TTFA (server)",
    SPEAK_ENTERED,
    TTS_FIRST_PCM,
    meaning="OpenTalking's own time to first audio; a viewer's is the perceived TTFA.",
    boundaries="pipeline entered → first PCM on the server",
    owner="OpenTalking",
    kind=Kind.COMPOSITE,
    family="opentalking_ttfa_seconds",
    sights=_timing("speech.timing, ttfa_ms"),
    timing_field="ttfa_ms",
)
TTFV = _interval(
    "ttfv_ms",
    "TTFV (server)",
    TTS_FIRST_PCM,
    MEDIA_QUEUED,
    meaning=(
        "OpenTalking's own time to first video, counted from the first PCM; a viewer's is the "
        "perceived TTFV."
    ),
    boundaries="first PCM on the server → first audio+video chunk queued",
    owner="OpenTalking + synthesis backend",
    kind=Kind.COMPOSITE,
    family="opentalking_ttfv_seconds",
    sights=_timing("speech.timing, ttfv_ms"),
    timing_field="ttfv_ms",
)
FIRST_TURN_TOTAL = _interval(
    "first_turn_total_ms",
    "first-turn total",
    INPUT_ENQUEUED,
    MEDIA_QUEUED,
    meaning=(
        "First response as OpenTalking's published rows compute it (the page words it as "
        "completion, which is turn_completion_ms)."
    ),
    boundaries="speak task enqueued by the API → first audio+video chunk queued",
    owner="OpenTalking",
    kind=Kind.COMPOSITE,
    family="opentalking_first_response_seconds",
    sights=_timing("speech.timing, e2e_first_response_ms"),
    timing_field="e2e_first_response_ms",
)
GENERATION = _interval(
    "generation_ms",
    "generation",
    SPEAK_ENTERED,
    SPEECH_GENERATED,
    meaning="Time to generate and queue the whole answer; playback may outlast it.",
    boundaries="pipeline entered → everything queued for WebRTC",
    owner="OpenTalking",
    kind=Kind.COMPOSITE,
    family="opentalking_generation_seconds",
    sights=_timing("speech.timing, speak_wall_ms"),
    timing_field="speak_wall_ms",
)
PERCEIVED_TTFA = _interval(
    "perceived_ttfa_ms",
    "TTFA (perceived)",
    INPUT,
    CLIENT_FIRST_AUDIO,
    meaning="Time until the viewer's client receives the first sound of the answer.",
    boundaries="input complete → first audio packet of the answer at the client",
    owner="OpenTalking + WebRTC",
    kind=Kind.COMPOSITE,
    family="opentalking_perceived_ttfa_seconds",
    sights=_client("RTP packets of the audio track"),
)
PERCEIVED_TTFV = _interval(
    "perceived_ttfv_ms",
    "TTFV (perceived)",
    INPUT,
    CLIENT_FIRST_TALKING_FRAME,
    meaning="Time until the viewer's client receives the first talking frame of the answer.",
    boundaries="input complete → last packet of the first talking frame at the client",
    owner="OpenTalking + WebRTC",
    kind=Kind.COMPOSITE,
    family="opentalking_perceived_ttfv_seconds",
    sights=_client("RTP packets of the first talking frame"),
)
TURN_COMPLETION = _interval(
    "turn_completion_ms",
    "turn completion",
    INPUT,
    CLIENT_SPEECH_ENDED,
    meaning="Time until the viewer has received the whole answer.",
    boundaries="input complete → last audio packet of the answer at the client",
    owner="OpenTalking + WebRTC",
    kind=Kind.COMPOSITE,
    family="opentalking_turn_completion_seconds",
    sights=_client("RTP packets of the audio track"),
)
INTERRUPT_LATENCY = _interval(
    "interrupt_latency_ms",
    "interrupt latency",
    CLIENT_INTERRUPTED,
    CLIENT_SILENT,
    meaning="Time until an answer that the viewer interrupts falls silent.",
    boundaries="interrupt request sent → last audio packet of the answer at the client",
    owner="OpenTalking + WebRTC",
    kind=Kind.COMPOSITE,
    family="opentalking_interrupt_seconds",
    sights=_client("RTP packets of the audio track (scenarios that interrupt)"),
)

# Rates, ratios and levels.

RENDER_FPS = _sample(
    "render_fps",
    "render FPS",
    meaning="Video-frame generation throughput of the synthesis backend.",
    boundaries="frames of one chunk ÷ mean time to generate a chunk, over one turn",
    owner="synthesis backend",
    unit=Unit.FRAMES_PER_SECOND,
    better="higher",
    family="opentalking_render_fps",
    buckets=FPS_BUCKETS,
    sights=_timing(
        "speech.timing: chunk_samples · output_fps ÷ sample_rate ÷ mean(chunk_latency_ms)",
        instants=False,
    ),
    page=True,
)
STEADY_FPS = _sample(
    "steady_fps",
    "steady FPS (upstream)",
    meaning=(
        "Frame rate as OpenTalking computes it, which takes every chunk to last one second; "
        "render_fps is the corrected figure."
    ),
    boundaries="chunks · output_fps ÷ model time, over one turn",
    owner="synthesis backend",
    unit=Unit.FRAMES_PER_SECOND,
    better="higher",
    family=None,
    instrument=Instrument.REPORT_ONLY,
    sights=_timing("speech.timing, steady_fps", instants=False),
    timing_field="steady_fps",
)
STEADY_CHUNK = _sample(
    "steady_chunk_ms",
    "steady chunk",
    meaning="Steady-state chunk inference time.",
    boundaries="median time to generate a chunk without the turn's first chunk",
    owner="synthesis backend",
    unit=Unit.SECONDS,
    better="lower",
    family="opentalking_steady_chunk_seconds",
    buckets=TIME_BUCKETS,
    sights=_timing("speech.timing, chunk_latency_ms without the first", instants=False),
    page=True,
)
RTF = _sample(
    "rtf",
    "RTF",
    meaning="Real-time factor of synthesis: above 1 it is slower than playback.",
    boundaries="model time ÷ duration of the audio, over one turn",
    owner="synthesis backend",
    unit=Unit.RATIO,
    better="lower",
    family="opentalking_rtf_ratio",
    buckets=RATIO_BUCKETS,
    sights=_timing("speech.timing, rtf", instants=False),
    timing_field="rtf",
)
PLAYBACK_FPS = _sample(
    "playback_fps",
    "playback FPS",
    meaning="Frame rate that reaches the viewer while the avatar speaks.",
    boundaries="complete frames ÷ time, first talking frame → end of speech",
    owner="OpenTalking + WebRTC",
    unit=Unit.FRAMES_PER_SECOND,
    better="higher",
    family="opentalking_playback_fps",
    buckets=FPS_BUCKETS,
    sights=_client("RTP packets of the video track"),
)
FREEZES = _sample(
    "freezes",
    "freezes",
    meaning="How often the picture froze at the viewer while the avatar spoke.",
    boundaries=(
        "pauses between complete frames of at least max(3·δ, δ + 150 ms), δ their mean distance "
        "(W3C webrtc-stats, freezeCount), first talking frame → end of speech"
    ),
    owner="OpenTalking + WebRTC",
    unit=Unit.COUNT,
    better="lower",
    family="opentalking_freezes",
    instrument=Instrument.COUNTER,
    sights=_client("arrival times of complete video frames"),
)
FROZEN = _sample(
    "frozen_ms",
    "frozen time",
    meaning="How long the picture was frozen at the viewer while the avatar spoke, in all.",
    boundaries="sum of the freezes' durations (W3C webrtc-stats, totalFreezesDuration)",
    owner="OpenTalking + WebRTC",
    unit=Unit.SECONDS,
    better="lower",
    family="opentalking_frozen_seconds",
    instrument=Instrument.COUNTER,
    sights=_client("arrival times of complete video frames"),
)
AV_DRIFT = _sample(
    "av_drift_ms",
    "A/V drift",
    meaning="Audio/video timeline offset during playback; positive: sound early (ITU-R BT.1359).",
    boundaries=(
        "median over one speech of (video lateness − audio lateness), anchored at its first "
        "talking frame and first audio packet"
    ),
    owner="OpenTalking",
    unit=Unit.SECONDS,
    better="zero",
    family="opentalking_av_drift_seconds",
    buckets=DRIFT_BUCKETS,
    sights=_client("RTP timestamps and arrival times, with the basis stated"),
    page=True,
)
QUEUE_DEPTH = _sample(
    "queue_depth",
    "queue depth",
    meaning="Worker or external model-service queue depth.",
    boundaries="tasks waiting when polled, by queue",
    owner="OpenTalking / backend",
    unit=Unit.COUNT,
    better="lower",
    scope=Scope.RUN,
    family="opentalking_queue_depth",
    instrument=Instrument.GAUGE,
    sights=(
        Sight(
            Source.BUS, "length of opentalking:task_queue; opentalking:flashtalk_queue_status", ""
        ),
        Sight(Source.HTTP, "GET /queue/status (its zero can also mean that it is broken)", ""),
    ),
    page=True,
)
IDLE_VRAM = _sample(
    "idle_vram_bytes",
    "idle VRAM",
    meaning="Accelerator memory in use after warmup and before the measured turns.",
    boundaries="last reading between the end of the warmup turn and the first measured input",
    owner="OpenTalking + synthesis backend",
    unit=Unit.BYTES,
    better="lower",
    scope=Scope.RUN,
    family=None,
    instrument=Instrument.REPORT_ONLY,
    sights=(Sight(Source.ACCELERATOR, "device memory", "an accelerator and its vendor's library"),),
)
PEAK_VRAM = _sample(
    "peak_vram_bytes",
    "peak VRAM",
    meaning="Highest accelerator memory in use during the measured turns.",
    boundaries="maximum reading from the first measured input to the last measured end",
    owner="OpenTalking + synthesis backend",
    unit=Unit.BYTES,
    better="lower",
    scope=Scope.RUN,
    family=None,
    instrument=Instrument.REPORT_ONLY,
    sights=(Sight(Source.ACCELERATOR, "device memory", "an accelerator and its vendor's library"),),
)


def turn_intervals() -> tuple[Stage, ...]:
    """Stages of one turn that are the time between two marks, in catalogue order."""
    return tuple(s for s in STAGES.values() if s.scope is Scope.TURN and s.is_interval)


def page_metrics() -> tuple[Stage, ...]:
    """The stages of the benchmark page's table of metrics, in catalogue order."""
    return tuple(s for s in STAGES.values() if s.page)


def value_between(stage: Stage, marks: Mapping[str, float]) -> float | None:
    """Time between a stage's two marks in the key's unit, or None when either is missing.

    `marks` maps mark names to seconds on one clock.
    """
    if stage.start is None or stage.end is None:
        return None
    start, end = marks.get(stage.start), marks.get(stage.end)
    if start is None or end is None:
        return None
    return stage.from_base(end - start)
