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
ERROR_TYPE: Final = "error.type"
