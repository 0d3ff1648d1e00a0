"""What a request to OpenTalking's API says of the speech that it asks for.

What comes in: its `traceparent` header, and instants on the API's wall clock. What goes out: a
JSON object that travels inside the speak task from the API to the pipeline, and there the same
again. It must not know HTTP, queues or OpenTalking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exporter import stages

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?"
)
_THIS_VERSION: Final = "00-"


def traceparent_of(header: str) -> str | None:
    """The W3C trace context in a header, or None when it is malformed.

    Of a version to come only the fields of version 00 are taken over (W3C Trace Context,
    section 3.2.4).
    """
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None or (header.startswith(_THIS_VERSION) and match[2] is not None):
        return None
    return _THIS_VERSION + match[1]


@dataclass(frozen=True, slots=True)
class Asked:
    """`marks` are mark → wall clock of the API's machine, as OpenTalking's `enqueue_unix` is."""

    traceparent: str | None = None
    marks: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """An object for the task; empty when there is nothing to tell."""
        told: dict[str, Any] = {}
        if self.traceparent is not None:
            told["traceparent"] = self.traceparent
        if self.marks:
            told["marks"] = dict(self.marks)
        return told


def from_json(told: Mapping[str, Any]) -> Asked:
    """The same at the other end; raises when it is of another shape."""
    marks = told.get("marks", {})
    known = {name: float(at) for name, at in marks.items() if name in stages.MARKS}
    return Asked(traceparent_of(str(told.get("traceparent", ""))), known)
