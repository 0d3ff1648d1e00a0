"""Why a value is not there.

What comes in: a stage of the catalogue, and what the records that lack its value say.
What goes out: `Missing`, which stands where the value would and carries the reason.
It must not know how a value is summarised or shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def why(stage: Stage, absent: Iterable[Mapping[str, str]]) -> Missing:
    """The reason of the records that lack the stage, when all of them give the same one.

    `absent` holds, for each of those records, catalogue key → reason. Where they differ, or
    one of them gives none, the catalogue speaks.
    """
    given = {reasons.get(stage.key, "") for reasons in absent}
    if len(given) == 1 and (reason := given.pop()):
        return Missing(reason)
    return not_seen(stage)
