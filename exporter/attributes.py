"""Every attribute name that enters a span.

Rule for personal data: a span carries ids, names of models and numbers. What a person said or
heard, prompts, answers, transcripts, addresses and keys have no constant here, and so no way in.
"""

from __future__ import annotations

from typing import Final

SESSION: Final = "session.id"
TURN: Final = "talkscope.turn"
CLIENT_TURN: Final = "talkscope.client_turn"
PHASE: Final = "talkscope.phase"
STARTUP: Final = "talkscope.startup"
INPUT: Final = "talkscope.input"
OUTCOME: Final = "talkscope.outcome"
CLOCK_BASIS: Final = "talkscope.clock.basis"
CLIENT_CLOCK_OFFSET: Final = "talkscope.clock.client_offset_seconds"
CLIENT_CLOCK_UNCERTAINTY: Final = "talkscope.clock.client_uncertainty_seconds"
VALUE_PREFIX: Final = "talkscope."
STAGE_SOURCE: Final = "talkscope.source"
STAGE_OWNER: Final = "talkscope.owner"
MODEL: Final = "opentalking.model"
BACKEND: Final = "opentalking.backend"
AVATAR: Final = "opentalking.avatar"
CHUNK: Final = "talkscope.chunk"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
ERROR_TYPE: Final = "error.type"

ON_TURNS: Final[dict[str, str]] = {
    SESSION: "OpenTalking's id of the session",
    TURN: "ordinal of the turn in its session, from 1",
    CLIENT_TURN: "the client's own id of the turn",
    PHASE: "`warmup` or `measured`, in a benchmark run",
    STARTUP: "`cold`, `warm` or `steady`",
    INPUT: "`text`, `speech` or `audio_upload`",
    OUTCOME: "how the turn ended",
    MODEL: "the avatar model",
    BACKEND: "the backend that serves it",
    AVATAR: "the avatar's id",
    CLOCK_BASIS: "whose clock the span's times are on",
    CLIENT_CLOCK_OFFSET: "the exporter's clock minus the client's, which was added",
    CLIENT_CLOCK_UNCERTAINTY: "how well that is known",
    ERROR_TYPE: "code of the error, on turns that failed",
}
"""Attributes of a turn's span and what they mean."""

ON_STAGES: Final[dict[str, str]] = {
    STAGE_OWNER: "who owns the stage",
    STAGE_SOURCE: "who saw its end: `agent`, `bus`, `sse`, `log`, `client`, or `estimated`",
    GEN_AI_OPERATION: "`chat`, on the language model's stage",
    GEN_AI_PROVIDER: (
        "whose interface is asked, on that stage: `openai` for all that speak its protocol, else "
        "what OpenTalking calls it"
    ),
    GEN_AI_MODEL: "the model that was asked, on that stage, when the agent or OpenTalking tells",
    CHUNK: "number of the chunk, from 1, on spans of chunks",
}
"""Attributes of the spans inside a turn."""
