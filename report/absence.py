"""Why a value is not there.

What comes in: a stage of the catalogue, and what the records that lack its value say.
What goes out: `Missing`, which stands where the value would and carries the reason.
It must not know how a value is summarised or shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.stages import Stage


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that could not be seen, in the place where it would stand."""

    reason: str


def not_seen(stage: Stage) -> Missing:
    """What the catalogue says: why nobody can see the stage, what seeing it takes, or where."""
    if stage.unseen:
        return Missing(stage.unseen)
    needs = dict.fromkeys(sight.needs for sight in stage.sights if sight.needs)
    if needs:
        return Missing(f"not seen; needs: {'; or '.join(needs)}")
    return Missing(f"not seen; looked for in: {'; or '.join(s.where for s in stage.sights)}")


def why(stage: Stage, given: Iterable[str]) -> Missing:
    """The reason of the records that lack the stage, when all of them give the same one.

    `given` holds what those records say, empty where one says nothing. Where they differ, or one
    says nothing, the catalogue speaks.
    """
    reasons = set(given)
    if len(reasons) == 1 and (reason := reasons.pop()):
        return Missing(reason)
    return not_seen(stage)
