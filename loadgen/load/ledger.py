"""Which sessions may exist on the target: news of visits in, what is still owed a DELETE out.

The news may come from other machines and stop in the middle, so whoever keeps the ledger can put
away what a killed worker left. With a file, the ledger itself survives its keeper. It must not
know HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

REQUESTED, CREATED, CLOSED = "requested", "created", "closed"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A session that the target may still hold."""

    session: str | None
    """None: its creation was under way when the news stopped, so nobody knows its id."""
    worker: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in the bundle."""
        return {"session": self.session, "worker": self.worker, "reason": self.reason}


class Ledger:
    """Sessions by (worker, visit)."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` keeps every entry as it comes, one JSON object a line."""
        self._file: TextIO | None = file.open("a", encoding="utf-8") if file else None
        self._open: dict[tuple[str, int], str | None] = {}
        self.orphans: list[Orphan] = []

    @property
    def open(self) -> int:
        """Sessions that exist or are being created."""
        return len(self._open)

    def note(
        self,
        worker: str,
        visit: int,
        state: str,
        *,
        session: str | None = None,
        orphan: str | None = None,
    ) -> None:
        """A visit's session is `requested`, `created` or `closed`; `orphan` says why in vain."""
        if self._file is not None:
            entry = {"worker": worker, "visit": visit, "state": state, "session": session}
            self._file.write(json.dumps(entry | {"orphan": orphan}) + "\n")
            self._file.flush()
        key = (worker, visit)
        if state != CLOSED:
            self._open[key] = session or self._open.get(key)
            return
        known = self._open.pop(key, None)
        if orphan is not None:
            self.orphans.append(Orphan(known, worker, orphan))

    def left_by(self, worker: str) -> list[tuple[int, str | None]]:
        """(visit, session id) of what a worker has open."""
        return [(visit, s) for (of, visit), s in self._open.items() if of == worker]

    def workers(self) -> set[str]:
        """The workers that have sessions open."""
        return {worker for worker, _ in self._open}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read(file: Path) -> Ledger:
    """The ledger that a process left; a last line that was cut off is not there."""
    ledger = Ledger()
    for entry in _entries(file):
        ledger.note(
            str(entry["worker"]),
            int(entry["visit"]),
            str(entry["state"]),
            session=entry.get("session"),
            orphan=entry.get("orphan"),
        )
    return ledger


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            yield json.loads(line)
