"""Setting hooks and taking them away: what to wrap in, wrapped methods out.

What goes out besides: the hooks that could not be set, because OpenTalking or a library is not of
the shape they were written for, and what is lost with each. It must not know what a wrapper does.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.agent.courier import Item
from exporter.agent.guard import Guard
from exporter.agent.process import Levels

log = logging.getLogger("talkscope.agent")


@dataclass(frozen=True, slots=True)
class Watch:
    """What the wrappers need: somebody who takes items and hears of the server, and the guard."""

    take: Callable[[Item], None]
    guard: Guard
    levels: Levels = field(default_factory=Levels)
    serving: Callable[[AbstractEventLoop], None] = lambda _: None
    """The server has started, in this loop."""
    served: Callable[[], None] = lambda: None
    """The server has stopped: what is not sent now is lost."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One method to wrap, the shape it must have, and what cannot be told without it."""

    module: str
    path: str
    parameters: tuple[str, ...]
    check: Callable[[Any], bool]
    wrap: Callable[[Any, Watch], Any]
    loses: str

    @property
    def place(self) -> str:
        """The name for people."""
        return f"{self.module}.{self.path}"


@dataclass(slots=True)
class Hooks:
    """The hooks that have been set, and what each of the others would have told."""

    missing: dict[str, str] = field(default_factory=dict)
    _originals: list[tuple[Any, str, Any]] = field(default_factory=list)

    def set(self, hooks: Sequence[Hook], watch: Watch) -> None:
        """Set each hook whose target is there; one line says what the others cost."""
        for hook in hooks:
            try:
                self._set(hook, watch)
            except Exception as error:
                self.missing[hook.place] = hook.loses
                log.warning(
                    "talkscope agent: %s is not as expected (%s): missing from now on: %s",
                    hook.place,
                    error,
                    hook.loses,
                )

    def _set(self, hook: Hook, watch: Watch) -> None:
        owner: Any = importlib.import_module(hook.module)
        *owners, name = hook.path.split(".")
        for step in owners:
            owner = getattr(owner, step)
        original = getattr(owner, name)
        signature = inspect.signature(original).parameters
        lacking = [p for p in hook.parameters if p not in signature]
        if lacking:
            raise TypeError(f"it has no parameter {', '.join(lacking)}")
        if not hook.check(original):
            raise TypeError("it works in another way")
        setattr(owner, name, hook.wrap(original, watch))
        self._originals.append((owner, name, original))

    def remove(self) -> None:
        """Put everything back as it was."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)
