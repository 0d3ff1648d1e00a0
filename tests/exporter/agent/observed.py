"""The stand-in of OpenTalking under the hooks of one role, and what they told."""

from __future__ import annotations

from exporter.agent.events import PublishedEvent
from exporter.agent.guard import Guard
from exporter.agent.hooks import HOOKS, Hooks, Watch
from exporter.agent.process import Levels
from exporter.agent.session import SessionCreated
from exporter.agent.speech import Speech
from exporter.stages import ProcessRole


class Observed:
    """All hooks of `role` set; `hooks.remove()` takes them away."""

    def __init__(self, role=ProcessRole.UNIFIED):
        self.items = []
        self.loops = []
        self.ends = 0
        self.guard = Guard()
        self.levels = Levels()
        self.hooks = Hooks()
        watch = Watch(self.items.append, self.guard, self.levels, self.loops.append, self._end)
        self.hooks.set(HOOKS[role], watch)

    def _end(self):
        self.ends += 1

    def _records(self, kind):
        return [item.record() for item in self.items if isinstance(item, kind)]

    @property
    def speeches(self):
        return self._records(Speech)

    @property
    def events(self):
        return self._records(PublishedEvent)

    @property
    def sessions(self):
        return self._records(SessionCreated)
