"""The speech that a call belongs to: a context variable in, notes on its `Speech` out.

The runner's hook sets the variable for the time of a speech, and asyncio hands it on to the tasks
that work for it. It must not know which method was called.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from exporter.agent.hooks.setting import Watch
from exporter.agent.speech import Speech

_ENTERED: Final = "_speak_t0_wall"
_MILESTONES: Final = "_speak_milestones"
_TIMING: Final = "_active_timing"
"""Where the runner for adapters of third parties keeps its beginning, as `started_at`."""


@dataclass(slots=True)
class Live:
    """A speech while its runner works on it."""

    speech: Speech
    runner: Any
    called: float
    milestones: Any = None

    def enter(self) -> None:
        """Take over when OpenTalking itself says that it began, as its own figures do."""
        if self.speech.entered is not None:
            return
        began = getattr(self.runner, _ENTERED, None)
        if began is None:
            began = getattr(getattr(self.runner, _TIMING, None), "started_at", None)
        self.speech.enter(self.called if began is None else float(began))
        self.milestones = getattr(self.runner, _MILESTONES, None)


live_speech: ContextVar[Live | None] = ContextVar("talkscope_live", default=None)


def note(watch: Watch, mark: str, at: float) -> None:
    """Note an instant of the speech at work, if there is one."""
    live = live_speech.get()
    if live is not None:
        watch.guard(mark, _mark, live, mark, at)


def note_failure(watch: Watch, code: str, error: BaseException) -> None:
    """Note what went wrong with it."""
    live = live_speech.get()
    if live is not None:
        watch.guard(code, live.speech.failed, code, error)


def _mark(live: Live, mark: str, at: float) -> None:
    live.enter()
    live.speech.mark(mark, at)
