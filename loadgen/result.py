"""The client's account of one turn: a verdict and measurements in, a record out.

Pure. It must not know how a record is sent or shown. Names are the catalogue's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from exporter import stages
from exporter.stages import Outcome, Phase
from loadgen.marks import TurnMarks
from loadgen.media.onset import Basis
from loadgen.media.speech import Speech
from loadgen.turn import Failure, TurnWatch, Verdict


@dataclass(frozen=True, slots=True)
class TurnResult:
    """What the client saw of one turn; names as in docs/marks.md."""

    turn: str
    input: str
    phase: Phase | None
    started_unix: float
    """Wall clock at the input, seconds since the epoch."""
    outcome: Outcome
    error: Failure | None
    marks: Mapping[str, float]
    """Mark → seconds since the input."""
    samples: Mapping[str, float]
    """Catalogue key → number in the key's unit."""
    drift: Mapping[str, Any] | None
    bases: Mapping[str, str]
    absent: Mapping[str, str]
    """Mark or catalogue key → why it could not be seen."""
    timing: Mapping[str, Any] | None = field(default=None)
    """The `speech.timing` event as received."""
    media: Mapping[str, float] = field(default_factory=dict)
    """How the answer came across, by the names of `media_figures`; not sent to the exporter."""

    @property
    def ok(self) -> bool:
        """Whether the answer was received whole."""
        return self.outcome is Outcome.COMPLETED

    def record(self, session: str) -> TurnMarks:
        """The record for the exporter."""
        return TurnMarks(
            session=session,
            turn=self.turn,
            input=self.input,
            phase=self.phase,
            started_unix=self.started_unix,
            marks=self.marks,
            samples=self.samples,
            drift=self.drift,
            bases=self.bases,
            absent=self.absent,
            outcome=self.outcome,
            error=None if self.error is None else self.error.to_json(),
        )

    def values(self) -> dict[str, float]:
        """Catalogue key → value, for everything the client's own marks and samples give."""
        values = dict(self.samples)
        for stage in stages.turn_intervals():
            value = stages.value_between(stage, self.marks)
            if value is not None:
                values[stage.key] = value
        return values


def result_of(
    *,
    turn: str,
    input_kind: str,
    phase: Phase | None,
    started_unix: float,
    begun: float,
    verdict: Verdict,
    watch: TurnWatch,
    speech: Speech,
    instants: Mapping[str, float],
) -> TurnResult:
    """Put a turn's record together. `instants` are further marks, as monotonic seconds."""
    complete = verdict.outcome is Outcome.COMPLETED
    unfinished = f"the turn ended as {verdict.outcome}"
    seen: dict[str, float | None] = {
        stages.INPUT: begun,
        **instants,
        stages.CLIENT_FIRST_AUDIO: speech.first_audio,
        stages.CLIENT_FIRST_TALKING_FRAME: speech.first_talking_frame,
        stages.SPEECH_TIMED: watch.timed_at,
        stages.SPEECH_ENDED: watch.ended_at,
        stages.CLIENT_SPEECH_ENDED: speech.last_audio if complete else None,
    }
    absent: dict[str, str] = {}
    bases: dict[str, str] = {}
    samples: dict[str, float] = {}

    if speech.first_audio is None:
        absent[stages.CLIENT_FIRST_AUDIO] = "no audio packet of the answer arrived"
    if speech.first_talking_frame is None:
        spoken = complete or speech.first_audio is not None
        why = speech.no_talking_frame if spoken else None
        absent[stages.CLIENT_FIRST_TALKING_FRAME] = why or unfinished
    else:
        bases[stages.CLIENT_FIRST_TALKING_FRAME] = speech.talking_basis
    if not complete:
        absent[stages.CLIENT_SPEECH_ENDED] = unfinished

    # A broken-off answer has no steady playback to speak of.
    drift = speech.drift if complete else None
    if speech.playback_fps is not None and complete:
        samples[stages.PLAYBACK_FPS.key] = speech.playback_fps
        bases[stages.PLAYBACK_FPS.key] = speech.playback_basis
    else:
        absent[stages.PLAYBACK_FPS.key] = (
            "fewer than two video frames of the answer arrived" if complete else unfinished
        )
    if complete and speech.frames:
        samples[stages.FREEZES.key] = float(speech.freezes)
        samples[stages.FROZEN.key] = stages.FROZEN.from_base(speech.frozen_s)
    else:
        for stage in (stages.FREEZES, stages.FROZEN):
            absent[stage.key] = "no video frame of the answer arrived" if complete else unfinished
    if drift is None:
        absent[stages.AV_DRIFT.key] = (
            "no video frame arrived beside the audio" if complete else unfinished
        )
    else:
        bases[stages.AV_DRIFT.key] = drift.basis
        if drift.basis is Basis.CHANGE_ONLY:
            absent[stages.AV_DRIFT.key] = "only its change since the onset is known: " + (
                speech.no_talking_frame or "the first talking frame was looked for beside the sound"
            )
        else:
            samples[stages.AV_DRIFT.key] = drift.median_ms

    return TurnResult(
        turn=turn,
        input=input_kind,
        phase=phase,
        started_unix=started_unix,
        outcome=verdict.outcome,
        error=verdict.failure,
        marks={name: at - begun for name, at in seen.items() if at is not None},
        samples=samples,
        drift=asdict(drift) if drift is not None else None,
        bases=bases,
        absent=absent,
        timing=watch.timing,
        media=media_figures(speech),
    )


def media_figures(speech: Speech) -> dict[str, float]:
    """The quality of an answer as flat figures; what cannot be told is missing.

    `_s` are seconds, `_ms` milliseconds, `_bps` bits a second, `_ratio` shares of 1. Jitter is
    RFC 3550's, loss is the network's before repair. Freezes are among the samples.
    """
    figures: dict[str, float | None] = {
        "video_loss_ratio": speech.video.loss_ratio,
        "video_bitrate_bps": speech.video.bitrate_bps,
        "video_jitter_ms": speech.video.jitter_ms,
    }
    if speech.first_audio is not None:
        figures |= {
            "audio_loss_ratio": speech.audio.loss_ratio,
            "audio_bitrate_bps": speech.audio.bitrate_bps,
            "audio_jitter_ms": speech.audio.jitter_ms,
            "audio_gaps": speech.audio_gaps,
            "concealed_s": speech.concealed_s,
        }
    if speech.frames:
        figures["longest_gap_s"] = speech.longest_gap_s
    if speech.burst is not None:
        figures |= {"burst_frames": speech.burst.frames, "burst_s": speech.burst.seconds}
    return {name: float(value) for name, value in figures.items() if value is not None}
