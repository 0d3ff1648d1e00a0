"""One whole turn with every mark, for tests of the sinks."""

from __future__ import annotations

from exporter import stages
from exporter.stages import InputKind, Outcome, Phase, Startup
from exporter.turn_record import Turn

START = 1_795_364_973.0
STEP = 0.125

CHAIN = (
    stages.INPUT,
    stages.INPUT_ENQUEUED,
    stages.SPEAK_ENTERED,
    stages.LLM_REQUESTED,
    stages.LLM_FIRST_TOKEN,
    stages.TTS_REQUESTED,
    stages.TTS_FIRST_PCM,
    stages.AVATAR_REQUESTED,
    stages.AVATAR_FIRST_FRAME,
    stages.MEDIA_QUEUED,
    stages.CLIENT_FIRST_TALKING_FRAME,
    stages.CLIENT_SPEECH_ENDED,
)


def turn(**changes: object) -> Turn:
    """Marks 125 ms apart along the chain, and the value of every interval between them."""
    marks = {name: START + i * STEP for i, name in enumerate(CHAIN)}
    record = Turn(
        session="sess_1",
        turn=2,
        model="wav2lip",
        backend="omnirt",
        avatar="demo",
        startup=Startup.STEADY,
        outcome=Outcome.COMPLETED,
        phase=Phase.MEASURED,
        input=InputKind.TEXT,
        marks=marks,
        mark_sources=dict.fromkeys(marks, "bus"),
    )
    for stage in stages.turn_intervals():
        value = stages.value_between(stage, marks)
        if value is not None:
            record.values[stage.key] = value
    for name, change in changes.items():
        setattr(record, name, Outcome(change) if name == "outcome" else change)
    return record
