"""One turn's evidence → its marks, its values, and a reason for every value it lacks.

What comes in: `Evidence` and a fresh `Turn`. What goes out: the same `Turn`, filled. Pure. It
must not know other turns, sessions or sinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

from exporter import stages, upstream
from exporter.observations import PipelineReported
from exporter.stages import InputKind, Outcome, Phase, Source
from exporter.turn_record import Evidence, Turn


def fill(turn: Turn, seen: Evidence) -> None:
    """Fill a turn's marks, values and bases from its evidence."""
    if seen.opened is not None:
        turn.client_turn, turn.input = seen.opened.turn, seen.opened.input
        turn.phase = seen.opened.phase
        turn.clock |= {
            "client_offset_seconds": seen.opened.clock.offset,
            "client_uncertainty_seconds": seen.opened.clock.uncertainty,
        }
        _set_mark(turn, stages.INPUT, seen.opened.started, Source.CLIENT)
    if seen.reported is not None:
        for name, at in seen.reported.marks.items():
            _set_mark(turn, name, at, Source.CLIENT)
        turn.bases = dict(seen.reported.bases)
        turn.drift = dict(seen.reported.drift) if seen.reported.drift else None
        turn.error = turn.error or (dict(seen.reported.error) if seen.reported.error else None)
    _server_marks(turn, seen)
    if seen.pipeline is not None:
        _agent_marks(turn, seen.pipeline)
    _fill_values(turn, seen)


def _set_mark(turn: Turn, name: str, at: float, source: Source | str) -> None:
    turn.marks[name] = at
    turn.mark_sources[name] = str(source)


def _server_marks(turn: Turn, seen: Evidence) -> None:
    """Place the server's marks on the exporter's clock.

    `speech.timing` gives distances from the entry of the pipeline, exactly; the entry itself
    is in no event. It lies before every one of: the arrival of speech.media_started less its
    distance, the arrival of speech.timing less its own, and the instants at which the log says
    that the pipeline was entered and the language model asked. The least is taken.
    """
    timing = seen.timing or {}
    bounds: list[float] = []
    queued = timing.get(upstream.OFFSETS[stages.MEDIA_QUEUED])
    if seen.media_started_at is not None and queued is not None:
        bounds.append(seen.media_started_at - queued / 1000.0)
    generated = timing.get(upstream.OFFSETS[stages.SPEECH_GENERATED])
    if seen.timing_at is not None and generated is not None:
        bounds.append(seen.timing_at - generated / 1000.0)
    if bounds:
        bounds += [at for at in (seen.entered, seen.llm_started) if at is not None]
    source = seen.source or Source.SSE
    if bounds:
        entered = min(bounds)
        _set_mark(turn, stages.SPEAK_ENTERED, entered, source)
        enqueued = timing.get(upstream.ENQUEUE_TO_ENTER)
        if enqueued is not None:
            _set_mark(turn, stages.INPUT_ENQUEUED, entered - enqueued / 1000.0, source)
        for name, timing_field in upstream.OFFSETS.items():
            offset = timing.get(timing_field)
            if offset is not None:
                _set_mark(turn, name, entered + offset / 1000.0, source)
    elif seen.started_at is not None:
        _set_mark(turn, stages.SPEAK_ENTERED, seen.started_at, "estimated")
        if seen.media_started_at is not None:
            _set_mark(turn, stages.MEDIA_QUEUED, seen.media_started_at, source)
    if seen.timing_at is not None:
        _set_mark(turn, stages.SPEECH_TIMED, seen.timing_at, source)
    if seen.ended_at is not None:
        _set_mark(turn, stages.SPEECH_ENDED, seen.ended_at, seen.ended_source or source)

    first_token = seen.line.fields.get(_LLM_FIELD) if seen.line is not None else None
    if seen.llm_started is not None:
        _set_mark(turn, stages.LLM_REQUESTED, seen.llm_started, Source.LOG)
        if first_token is not None:
            _set_mark(
                turn, stages.LLM_FIRST_TOKEN, seen.llm_started + first_token / 1000.0, Source.LOG
            )
    if first_token is not None:
        turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] = first_token
        turn.value_sources[stages.LLM_FIRST_TOKEN_LATENCY.key] = str(Source.LOG)
    if seen.first_pcm_ms is not None:
        turn.values[stages.TTS_FIRST_PCM_LATENCY.key] = seen.first_pcm_ms
        turn.value_sources[stages.TTS_FIRST_PCM_LATENCY.key] = str(Source.LOG)
        if (first_pcm := turn.marks.get(stages.TTS_FIRST_PCM)) is not None:
            _set_mark(
                turn, stages.TTS_REQUESTED, first_pcm - seen.first_pcm_ms / 1000.0, Source.LOG
            )


def _agent_marks(turn: Turn, told: PipelineReported) -> None:
    """Take the agent's instants over: it read them where they happened, on the same clock."""
    for name, at in told.marks.items():
        _set_mark(turn, name, at, Source.AGENT)
    for key, value in told.samples.items():
        turn.values[key], turn.value_sources[key] = value, Source.AGENT.value
    turn.llm_model = told.llm_model or turn.llm_model
    turn.traceparent = told.traceparent
    turn.chunks = list(told.chunks)
    if told.first_video is not None and told.first_audio is not None:
        turn.first_timestamps = {"video": told.first_video, "audio": told.first_audio}
    for stage in (stages.LLM_FIRST_TOKEN_LATENCY, stages.TTS_FIRST_PCM_LATENCY):
        # The log rounds to whole milliseconds.
        if stages.value_between(stage, told.marks) is not None:
            turn.values.pop(stage.key, None)


_TURN_STAGES = tuple(s for s in stages.STAGES.values() if s.scope is stages.Scope.TURN)
_TOLD = tuple((s.key, s.timing_field) for s in _TURN_STAGES if s.timing_field)
_BETWEEN = tuple((s, s.key, s.start, s.end) for s in _TURN_STAGES if s.is_interval)


def _fill_values(turn: Turn, seen: Evidence) -> None:
    """Every value of the turn: as upstream computed it where it did, else from the marks."""
    timing = seen.timing or {}
    values, sources, marks = turn.values, turn.value_sources, turn.marks
    if seen.reported is not None:
        for key, value in seen.reported.samples.items():
            values[key] = value
            sources[key] = Source.CLIENT.value
    for key, timing_field in _TOLD:
        told = timing.get(timing_field)
        if told is not None:
            values[key] = told
            sources[key] = upstream.SPEECH_TIMING
    for stage, key, start, end in _BETWEEN:
        # This loop runs for every turn of a deployment: it looks before it computes.
        if start in marks and end in marks and key not in values:
            _fill_interval(turn, stage)
    if turn.phase is Phase.WARMUP:
        _fill_interval(turn, stages.WARMUP)
    chunks = timing.get(upstream.CHUNK_LATENCIES) or []
    if len(chunks) > 1:
        values[stages.STEADY_CHUNK.key] = median(chunks[1:])
        sources[stages.STEADY_CHUNK.key] = upstream.SPEECH_TIMING
    frames = frames_per_chunk(timing)
    if chunks and frames is not None and (mean := fmean(chunks)) > 0:
        values[stages.RENDER_FPS.key] = frames / (mean / 1000.0)
        sources[stages.RENDER_FPS.key] = upstream.SPEECH_TIMING


def _fill_interval(turn: Turn, stage: stages.Stage) -> None:
    between = stages.value_between(stage, turn.marks)
    if between is None:
        return
    if between < 0:
        turn.absent[stage.key] = (
            f"its marks are {-between:.1f} ms out of order, beyond what the clocks resolve"
        )
        return
    turn.values[stage.key] = between
    turn.value_sources[stage.key] = "marks"


def frames_per_chunk(timing: Mapping[str, Any]) -> float | None:
    """Video frames that one audio chunk is rendered into, from a clean `speech.timing` event."""
    samples = timing.get(upstream.CHUNK_SAMPLES)
    rate = timing.get(upstream.SAMPLE_RATE)
    fps = timing.get(upstream.OUTPUT_FPS)
    if not samples or not rate or not fps:
        return None
    return float(samples * fps / rate)


def explain(turn: Turn, seen: Evidence, *, expect_log: bool) -> None:
    """Say of every stage of the turn that has no value why it has none.

    `expect_log`: a log source is attached, so a missing line is worth another reason.
    """
    told = seen.reported.absent if seen.reported is not None else {}
    for stage in _TURN_STAGES:
        if stage.key in turn.values or stage.key in turn.absent:
            continue
        names = [name for name in (stage.key, stage.end, stage.start) if name is not None]
        reason = next((told[name] for name in names if name in told), None)
        turn.absent[stage.key] = reason or _why_absent(stage, turn, seen, expect_log=expect_log)


def _why_absent(stage: stages.Stage, turn: Turn, seen: Evidence, *, expect_log: bool) -> str:
    if stage.unseen:
        return stage.unseen
    if stage is stages.ASR_FINAL_LATENCY and turn.input is not InputKind.SPEECH:
        return f"the input was {turn.input or 'not spoken'}"
    if stage is stages.STT and turn.input is InputKind.TEXT:
        return f"the input was {turn.input}"
    if turn.outcome is not Outcome.COMPLETED:
        return f"the turn ended as {turn.outcome} before it"
    wanted = {sight.source for sight in stage.sights}
    if seen.timing is None and wanted & {Source.BUS, Source.SSE}:
        return f"no {upstream.SPEECH_TIMING} event; needs {stage.sights[0].needs}"
    if Source.LOG in wanted:
        if not expect_log:
            return f"no log is read; needs {stage.sights[0].needs}"
        return "the log lacks its line for this turn, or more than one turn spoke at once"
    if Source.CLIENT in wanted:
        if seen.reported is None:
            return "no client reported this turn"
        return "the client did not see it"
    return f"not in the turn's {upstream.SPEECH_TIMING} event"


_LLM_FIELD = stages.LLM_FIRST_TOKEN_LATENCY.log_field or ""
