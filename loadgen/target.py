"""The deployment before a run: its URL in, what it serves out, or why nothing can be measured.

It must not know what will be measured. `UsageError` is the caller's mistake, `RunFailedError` the
deployment's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadgen.opentalking import Models, ModelStatus, OpenTalking


class BenchError(Exception):
    """A run could not be made; the message says why and what to do."""


class UsageError(BenchError):
    """What was asked for cannot be: unknown model or avatar, unusable speech file, bad URL."""


class RunFailedError(BenchError):
    """The target or this client failed before there was anything to report."""


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment as it answered before the run."""

    url: str
    model: str
    backend: str
    avatar: str
    health: Mapping[str, Any]
    models: Models


async def check(client: OpenTalking, *, model: str | None, avatar: str | None) -> Target:
    """Ask the target; unset `model` and `avatar` become its default and its first.

    Raises UsageError, RunFailedError or TargetError.
    """
    health = await client.health()
    models = await client.models()
    avatars = await client.avatars()
    chosen = _choose_model(models, model)
    if not avatars:
        raise UsageError(f"{client.url} has no avatar: put one into its avatars directory")
    shown = avatar or avatars[0]
    if shown not in avatars:
        raise UsageError(f"unknown avatar {shown!r}; the target has: {', '.join(avatars)}")
    return Target(client.url, chosen.id, chosen.backend, shown, health, models)


def _choose_model(models: Models, wanted: str | None) -> ModelStatus:
    connected = {status.id: status for status in models.connected}
    if not connected:
        raise RunFailedError(
            "the target has no connected model: " + ", ".join(map(_why_not, models.statuses))
        )
    if wanted is None:
        return connected.get(models.default or "", models.connected[0])
    if wanted in connected:
        return connected[wanted]
    known = next((status for status in models.statuses if status.id == wanted), None)
    problem = f"unknown model {wanted!r}" if known is None else f"model {_why_not(known)}"
    raise UsageError(f"{problem}; connected are: {', '.join(connected)}")


def _why_not(status: ModelStatus) -> str:
    return f"{status.id} is not connected ({status.reason or 'no reason given'})"
