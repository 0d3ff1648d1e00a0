"""Recognitions whose text the client has been told, and may send back to be answered.

What comes in: transcripts with their marks, later texts to be spoken to. What goes out: the marks
of the recognition that a text came from. Of a text only a hash is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

KEPT: Final = 1_000
"""Sessions whose last transcript is remembered."""


class Transcripts:
    """By session, the last of each."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, dict[str, float]]] = OrderedDict()

    def keep(self, session: str, text: str, heard: dict[str, float]) -> None:
        """The session's client is about to be told `text`."""
        self._kept[session] = (hash(text.strip()), heard)
        self._kept.move_to_end(session)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def take(self, session: str, text: str) -> dict[str, float]:
        """The marks of the recognition that gave `text`; none when it was typed or changed."""
        told, heard = self._kept.pop(session, (None, {}))
        return heard if told == hash(text.strip()) else {}
