"""Read and verify a run bundle.

What comes in: the path of a bundle, a folder or a `.tar.gz` of one (`docs/bundle.md`).
What goes out: a `Bundle` whose every byte is the one its manifest vouches for and whose every
field has its type; or one `BundleError` that names the file, the line and what to do.
It must not know what the numbers mean or how they are summarised.

The manifest is the last thing a run writes, so a bundle without one was cut off. Files that
the manifest does not name are not part of the bundle and are left alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from report.archive import LIMIT_BYTES, MANIFEST, Store, open_store
from report.decode import DecodeError, decode, parse
from report.errors import BundleError
from report.records import SCHEMA, Header, Manifest, Run, Sample, Session, Target, Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

RUN: Final = "run.json"
TARGET: Final = "target.json"
TURNS: Final = "turns.jsonl"
SESSIONS: Final = "sessions.jsonl"
SAMPLES: Final = "samples.jsonl"

READ: Final = frozenset({RUN, TARGET, TURNS, SESSIONS, SAMPLES})
"""What a report is made from; each must be in the manifest."""

_LIMIT_MANIFEST: Final = 2**20
_LAST_INSTANT: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)

_AGAIN = "run the benchmark again"
_COPY = "copy the bundle again from where it was recorded"
_VERSION = "make the report with the version of Talkscope that recorded it"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its records in file order, and its bytes for packing it."""

    manifest: Manifest
    run: Run
    target: Target
    turns: tuple[Turn, ...]
    sessions: tuple[Session, ...]
    samples: tuple[Sample, ...]
    sha256: str
    """SHA-256 of the manifest, hex; as the manifest holds the hash of every other file, it
    identifies the whole bundle."""
    files: dict[str, bytes]
    """The manifest and every file it names."""


def read(path: Path) -> Bundle:
    """Read and verify the bundle at `path`; raises `BundleError`, and nothing else."""
    store = open_store(path)
    raw_manifest = _read_manifest(store)
    manifest = _document(store, MANIFEST, raw_manifest, Manifest)
    files = _verified(store, manifest)
    run = _document(store, RUN, files[RUN], Run)
    if not 0 <= run.started_unix <= _LAST_INSTANT:
        raise BundleError(
            _place(store, RUN), f"started_unix is {run.started_unix}, which is no date", _VERSION
        )
    return Bundle(
        manifest=manifest,
        run=run,
        target=_document(store, TARGET, files[TARGET], Target),
        turns=_lines(store, TURNS, files[TURNS], Turn, lambda turn: (turn.session, turn.turn)),
        sessions=_lines(store, SESSIONS, files[SESSIONS], Session, lambda s: s.session),
        samples=_lines(store, SAMPLES, files[SAMPLES], Sample),
        sha256=hashlib.sha256(raw_manifest).hexdigest(),
        files={MANIFEST: raw_manifest, **files},
    )


def _place(store: Store, name: str, line: int | None = None) -> str:
    return f"{store.path}/{name}" + ("" if line is None else f":{line}")


def _read_manifest(store: Store) -> bytes:
    data = store.read(MANIFEST, _LIMIT_MANIFEST)
    if data is None:
        if store.holds_any(READ):
            raise BundleError(
                _place(store, MANIFEST),
                "is missing: the run was cut off before it was written",
                _AGAIN,
            )
        raise BundleError(
            str(store.path),
            f"is not a bundle: it has neither {MANIFEST} nor {TURNS}",
            "give the folder or the .tar.gz that the benchmark wrote",
        )
    if len(data) > _LIMIT_MANIFEST:
        raise BundleError(
            _place(store, MANIFEST), "is larger than 1 MiB: not a bundle's manifest", _COPY
        )
    return data


def _document(store: Store, name: str, data: bytes, schema: type[T]) -> T:
    """A JSON file that states its schema."""
    place = _place(store, name)
    try:
        value = parse(data)
        header = decode(Header, value)
        if header.schema != SCHEMA:
            raise BundleError(
                place, f"schema is {header.schema}, this version reads {SCHEMA}", _VERSION
            )
        return decode(schema, value)
    except DecodeError as error:
        # Only the manifest is read before its bytes are vouched for.
        raise BundleError(place, str(error), _COPY if name == MANIFEST else _VERSION) from error


def _verified(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """Every file of the manifest, each byte as it was when the run ended."""
    place = _place(store, MANIFEST)
    if not manifest.complete:
        raise BundleError(place, "complete is false: the run was cut off before its end", _AGAIN)
    for name in manifest.files:
        # A name such as `../x` would read, and pack, what is not the bundle's.
        if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
            raise BundleError(place, f"files: {name!r} is no name of a bundle's file", _COPY)
    for name in sorted(READ - manifest.files.keys()):
        raise BundleError(place, f"files: {name} is missing", _AGAIN)
    sizes = [entry.bytes for entry in manifest.files.values()]
    if min(sizes) < 0 or sum(sizes) > LIMIT_BYTES:
        raise BundleError(
            place,
            f"files: {sum(sizes)} bytes in all, a bundle has 0 to {LIMIT_BYTES}",
            "record a shorter run",
        )
    return {name: _verified_file(store, manifest, name) for name in sorted(manifest.files)}


def _verified_file(store: Store, manifest: Manifest, name: str) -> bytes:
    expected = manifest.files[name]
    data = store.read(name, expected.bytes)
    if data is None:
        raise BundleError(_place(store, name), f"is missing, though {MANIFEST} names it", _COPY)
    if len(data) < expected.bytes:
        cut = f"of {expected.bytes} bytes only {len(data)} are there"
        if data and name.endswith(".jsonl") and not data.endswith(b"\n"):
            line = data.count(b"\n") + 1
            raise BundleError(_place(store, name, line), f"this last line is cut off: {cut}", _COPY)
        raise BundleError(_place(store, name), f"is cut off: {cut}", _COPY)
    if len(data) > expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256.lower():
        raise BundleError(
            _place(store, name), f"was changed after the run: not the hash in {MANIFEST}", _COPY
        )
    return data


def _lines(
    store: Store,
    name: str,
    data: bytes,
    schema: type[T],
    identity: Callable[[T], Hashable] | None = None,
) -> tuple[T, ...]:
    """The records of a `.jsonl` file; with `identity`, no two may be the same thing."""
    records: list[T] = []
    seen: dict[Hashable, int] = {}
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), 1):
        place = _place(store, name, number)
        try:
            record = decode(schema, parse(line))
        except DecodeError as error:
            raise BundleError(place, str(error), _VERSION) from error
        if identity is not None and (first := seen.setdefault(identity(record), number)) != number:
            # Counted twice, it would move every statistic without a trace.
            raise BundleError(place, f"is the same record as line {first}", _VERSION)
        records.append(record)
    return tuple(records)
