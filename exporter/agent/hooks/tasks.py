"""The pipeline's end of the task queue: what the API's end has put into a speak task.

What comes in: tasks as OpenTalking takes them from its queue. What goes out: `asked_for`, set
while a task is handled, and so in the speech that it starts. It must not know the API's end
(`requests.py`).
"""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import Any, Final

from exporter.agent.asked import Asked, from_json
from exporter.agent.hooks.setting import Hook, Watch

FIELD: Final = "talkscope"
"""The field of a speak task that is ours. OpenTalking 0.1 reads the fields it knows by name and
throws the task away once it is taken, so it neither meets nor keeps this one."""

asked_for: ContextVar[Asked | None] = ContextVar("talkscope_asked", default=None)


def _handling(original: Any, watch: Watch) -> Any:
    """`handle_worker_task`."""

    @functools.wraps(original)
    async def wrapper(task: Any, *arguments: Any, **named: Any) -> Any:
        told: list[Asked] = []
        watch.guard("task", _read, task, told)
        token = asked_for.set(told[0] if told else None)
        try:
            return await original(task, *arguments, **named)
        finally:
            asked_for.reset(token)

    return wrapper


def _read(task: Any, told: list[Asked]) -> None:
    if FIELD in task:
        told.append(from_json(task[FIELD]))


HOOKS: Final = (
    Hook(
        "opentalking.runtime.task_consumer",
        "handle_worker_task",
        ("task",),
        inspect.iscoroutinefunction,
        _handling,
        "the trace context and the speech recognition of each speech",
    ),
)
