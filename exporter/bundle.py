"""Turns, sessions, readings and events → a run bundle on disk (docs/bundle.md).

What comes in: finished records. What goes out: a folder whose manifest is written last, with
the hash of every file, so that a run that was cut off is told from a whole one. It must not
know how anything was seen.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from exporter import __version__, upstream
from exporter.observations import Readings, TargetEvent
from exporter.turn_record import SessionRecord, Turn

SCHEMA: Final = 1
MANIFEST: Final = "manifest.json"
TURNS: Final = "turns.jsonl"
SESSIONS: Final = "sessions.jsonl"
SAMPLES: Final = "samples.jsonl"
EVENTS: Final = "events.jsonl"
TARGET: Final = "target.json"


class BundleExistsError(Exception):
    """The folder already holds a bundle; a run never overwrites another."""


class Bundle:
    """An open bundle. `close` makes it whole."""

    def __init__(self, folder: Path, *, now: float) -> None:
        """Create the folder and an unfinished manifest.

        Raises `BundleExistsError` when a bundle is there, OSError when it cannot be written.
        """
        if (folder / MANIFEST).exists():
            raise BundleExistsError(f"{folder} already holds a bundle; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._created = now
        self._run_id = uuid.uuid4().hex
        self._counts: dict[str, int] = {}
        self._sessions: dict[str, SessionRecord] = {}
        self._files: dict[str, TextIO] = {
            name: (folder / name).open("w", encoding="utf-8")
            for name in (TURNS, SESSIONS, SAMPLES, EVENTS)
        }
        self._write_manifest(closed=None)

    def turn(self, turn: Turn) -> None:
        """Append a turn; on disk when this returns."""
        self._append(TURNS, turn.to_json(), flush=True)

    def session(self, record: SessionRecord) -> None:
        """Keep the latest state of a session; written on close."""
        self._sessions[record.session] = record

    def event(self, event: TargetEvent) -> None:
        """Append an event without what a person said or heard."""
        data = {k: v for k, v in event.data.items() if k != upstream.USER_TEXT_FIELD}
        self._append(
            EVENTS,
            {
                "unix": event.at,
                "source": str(event.source),
                "session": event.session,
                "event": event.name,
                "data": data,
            },
        )

    def readings(self, readings: Readings) -> None:
        """Append every level of one reading."""
        for reading in readings.readings:
            self._append(
                SAMPLES,
                {
                    "unix": readings.at,
                    "name": reading.name,
                    "value": reading.value,
                    "labels": dict(reading.labels),
                },
            )

    def close(self, target: Mapping[str, Any], *, now: float) -> None:
        """Write what is left and the manifest; afterwards the bundle is complete."""
        for record in self._sessions.values():
            self._append(SESSIONS, record.to_json())
        for file in self._files.values():
            file.close()
        _write_json(self._folder / TARGET, {"schema": SCHEMA, **target})
        self._write_manifest(closed=now)

    def _append(self, name: str, record: Mapping[str, Any], *, flush: bool = False) -> None:
        file = self._files[name]
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._counts[name] = self._counts.get(name, 0) + 1
        if flush:
            file.flush()

    def _write_manifest(self, *, closed: float | None) -> None:
        files: dict[str, dict[str, Any]] = {}
        if closed is not None:
            for path in sorted(self._folder.iterdir()):
                if path.is_file() and path.name != MANIFEST:
                    with path.open("rb") as stream:
                        digest = hashlib.file_digest(stream, "sha256").hexdigest()
                    files[path.name] = {
                        "sha256": digest,
                        "bytes": path.stat().st_size,
                        "records": self._counts.get(path.name, 0)
                        if path.name in self._files
                        else 1,
                    }
        manifest = {
            "schema": SCHEMA,
            "tool": "talkscope",
            "version": __version__,
            "run_id": self._run_id,
            "created_unix": self._created,
            "closed_unix": closed,
            "complete": closed is not None,
            "files": files,
        }
        _write_json(self._folder / MANIFEST, manifest)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # Written aside and renamed, so that a reader never sees half a file.
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    part.replace(path)
