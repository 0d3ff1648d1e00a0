"""Read and verify a run bundle.

What comes in: the path of a bundle, a folder or a `.tar.gz` of one (`docs/bundle.md`).
What goes out: a `Bundle` whose every byte is the one its manifest vouches for and whose every
field has its type; or one `BundleError` that names the file, the line and what to do.
It must not know what the numbers mean or how they are summarised.

The manifest is the last thing a run writes, so a bundle without one was cut off. Files that
the manifest does not name are not part of the bundle and are left alone. Turns and readings are
folded line by line, so that a bundle of a million turns needs no more memory than its numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from report.archive import LIMIT_BYTES, MANIFEST, Region, Store, open_store, unreadable
from report.decode import DecodeError, decode, parse
from report.errors import BundleError
from report.lines import PARALLEL_FROM, Accumulator, LineError, beside, fold
from report.records import SCHEMA, Header, Manifest, Run, Session, Target, Turn
from report.samples import Samples
from report.turn_table import TurnTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

A = TypeVar("A", bound=Accumulator)
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
    """A verified bundle."""

    manifest: Manifest
    run: Run
    target: Target
    turns: TurnTable
    sessions: tuple[Session, ...]
    samples: Samples
    sha256: str
    """SHA-256 of the manifest, hex; as the manifest holds the hash of every other file, it
    identifies the whole bundle."""


def read(path: Path) -> Bundle:
    """Read and verify the bundle at `path`; raises `BundleError`, and nothing else."""
    store = open_store(path)
    try:
        return _read(store)
    except OSError as error:
        raise unreadable(path, error) from error


def verified_files(path: Path) -> tuple[Store, str, dict[str, Region]]:
    """The store at `path`, its manifest's hash, and the manifest and every file it names, each
    byte as it was when the run ended; the regions live as long as the store. Raises
    `BundleError`."""
    store = open_store(path)
    try:
        raw_manifest = _read_manifest(store)
        files = _present(store, _document(store, MANIFEST, raw_manifest, Manifest))
        _refuse(store, _first_changed(files))
        manifest = store.find(MANIFEST)
        assert manifest is not None
        regions = {name: region for name, (region, _) in files.items()}
        return store, hashlib.sha256(raw_manifest).hexdigest(), {MANIFEST: manifest, **regions}
    except OSError as error:
        raise unreadable(path, error) from error


def _read(store: Store) -> Bundle:
    raw_manifest = _read_manifest(store)
    manifest = _document(store, MANIFEST, raw_manifest, Manifest)
    files = _present(store, manifest)
    regions = {name: region for name, (region, _) in files.items()}
    if sum(region.size for region in regions.values()) < PARALLEL_FROM:
        _refuse(store, _first_changed(files))
        contents = _contents(store, regions)
    else:
        # Hashing a large bundle takes seconds, so it runs beside the reading. What is wrong with
        # the bytes is told before what they say.
        changed = beside(_first_changed, files)
        try:
            contents = _contents(store, regions)
        finally:
            _refuse(store, changed())
    run, target, turns, sessions, samples = contents
    return Bundle(
        manifest=manifest,
        run=run,
        target=target,
        turns=turns,
        sessions=sessions,
        samples=samples,
        sha256=hashlib.sha256(raw_manifest).hexdigest(),
    )


def _contents(
    store: Store, files: Mapping[str, Region]
) -> tuple[Run, Target, TurnTable, tuple[Session, ...], Samples]:
    run = _document(store, RUN, files[RUN].read(), Run)
    if not 0 <= run.started_unix <= _LAST_INSTANT:
        raise BundleError(
            _place(store, RUN), f"started_unix is {run.started_unix}, which is no date", _VERSION
        )
    target = _document(store, TARGET, files[TARGET].read(), Target)
    turns = _fold(store, TURNS, files[TURNS], TurnTable)
    if turns.may_repeat():
        _fold(store, TURNS, files[TURNS], _Unrepeated.of_turns, parallel=False)
    turns.finish()
    sessions = _fold(store, SESSIONS, files[SESSIONS], _Unrepeated.of_sessions, parallel=False)
    samples = _fold(store, SAMPLES, files[SAMPLES], Samples)
    return run, target, turns, tuple(sessions.records), samples


def _place(store: Store, name: str, line: int | None = None) -> str:
    return f"{store.path}/{name}" + ("" if line is None else f":{line}")


def _read_manifest(store: Store) -> bytes:
    region = store.find(MANIFEST)
    if region is None:
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
    if region.size > _LIMIT_MANIFEST:
        raise BundleError(
            _place(store, MANIFEST), "is larger than 1 MiB: not a bundle's manifest", _COPY
        )
    try:
        return region.read()
    except OSError as error:
        raise unreadable(store.path / MANIFEST, error) from error


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


def _present(store: Store, manifest: Manifest) -> dict[str, tuple[Region, str]]:
    """Where every file of the manifest lies, of the size it had, and its hash."""
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
    return {
        name: (_whole(store, name, entry.bytes), entry.sha256.lower())
        for name, entry in sorted(manifest.files.items())
    }


def _whole(store: Store, name: str, size: int) -> Region:
    region = store.find(name)
    if region is None:
        raise BundleError(_place(store, name), f"is missing, though {MANIFEST} names it", _COPY)
    if region.size < size:
        cut = f"of {size} bytes only {region.size} are there"
        line, ended = _last_line(region)
        if region.size and name.endswith(".jsonl") and not ended:
            raise BundleError(_place(store, name, line), f"this last line is cut off: {cut}", _COPY)
        raise BundleError(_place(store, name), f"is cut off: {cut}", _COPY)
    if region.size > size:
        raise _changed(store, name)
    return region


def _last_line(region: Region) -> tuple[int, bool]:
    """The number of the last line, and whether it is ended."""
    ends, last = 0, b""
    for block in region.blocks():
        ends += block.count(b"\n")
        last = block[-1:]
    return ends + 1, last == b"\n"


def _first_changed(files: Mapping[str, tuple[Region, str]]) -> str | None:
    """The first file whose hash is not the one expected."""
    return next((name for name, (region, hash_) in files.items() if region.sha256() != hash_), None)


def _refuse(store: Store, changed: str | None) -> None:
    if changed is not None:
        raise _changed(store, changed)


def _changed(store: Store, name: str) -> BundleError:
    return BundleError(
        _place(store, name), f"was changed after the run: not the hash in {MANIFEST}", _COPY
    )


class _Unrepeated(Generic[T]):
    """An accumulator of lines that keeps its records and finds one that is there twice."""

    def __init__(self, schema: type[T], identity: Callable[[T], Hashable], keep: bool) -> None:
        self.records: list[T] = []
        self._schema, self._identity, self._keep = schema, identity, keep
        self._first: dict[Hashable, int] = {}
        self._lines = 0

    @classmethod
    def of_turns(cls) -> _Unrepeated[Turn]:
        """Only looks."""
        return _Unrepeated(Turn, lambda turn: (turn.session, turn.turn), keep=False)

    @classmethod
    def of_sessions(cls) -> _Unrepeated[Session]:
        """Keeps them."""
        return _Unrepeated(Session, lambda session: session.session, keep=True)

    def line(self, line: bytes) -> None:
        """See `report.lines.Accumulator`."""
        self._lines += 1
        record = decode(self._schema, parse(line))
        first = self._first.setdefault(self._identity(record), self._lines)
        if first != self._lines:
            # Counted twice, it would move every statistic without a trace.
            raise DecodeError("", f"is the same record as line {first}")
        if self._keep:
            self.records.append(record)

    def merge(self, other: _Unrepeated[T]) -> None:
        """See `report.lines.Accumulator`; a file whose records are compared is not cut."""
        raise NotImplementedError


def _fold(
    store: Store, name: str, region: Region, make: Callable[[], A], *, parallel: bool = True
) -> A:
    try:
        return fold(region, make, parallel=parallel)
    except LineError as error:
        raise BundleError(_place(store, name, error.line), error.problem, _VERSION) from error
