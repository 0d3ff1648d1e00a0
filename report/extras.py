"""What a report shows beside its own numbers.

What comes in: nothing. What goes out: the shape that the writers of all formats share.
It must not know how any of it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from report.external import External
    from report.published import Beside
    from report.slo import Check


@dataclass(frozen=True, slots=True)
class Extras:
    """Asked for on the command line, so none by default."""

    references: tuple[Beside, ...] = ()
    externals: tuple[External, ...] = ()
    checks: tuple[Check, ...] = ()


NOTHING: Final = Extras()
