"""What came of a run: entries from all workers in, records on disk and an account out.

It runs where the run is started (the master, or the only process). Every entry of a worker has a
sequence number, so what got lost on the way is counted and told, never left out silently. It
must not know Locust.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from statistics import median
from typing import Any, Final, TextIO

from exporter import stages
from exporter.stages import Outcome, Stage
from loadgen.load.health import quantile
from loadgen.load.ledger import Ledger
from loadgen.load.verdict import Verdict, Window, flags, judge

SCHEMA: Final = 1
ACCOUNT: Final = "loadgen.json"
TURNS: Final = "viewer_turns.jsonl"
VISITS: Final = "visits.jsonl"
WINDOWS: Final = "loadgen_windows.jsonl"
LEDGER: Final = "sessions_open.jsonl"

SHOWN: Final[tuple[Stage, ...]] = (
    stages.SESSION_CREATE,
    stages.WEBRTC_FIRST_FRAME,
    stages.PERCEIVED_TTFA,
    stages.PERCEIVED_TTFV,
    stages.TURN_COMPLETION,
    stages.INTERRUPT_LATENCY,
    stages.PLAYBACK_FPS,
    stages.AV_DRIFT,
)
"""What the account and the live line summarise."""

FOUND: Final[Mapping[Stage, str]] = {
    stages.PERCEIVED_TTFV: stages.CLIENT_FIRST_TALKING_FRAME,
    stages.AV_DRIFT: stages.AV_DRIFT.key,
}
"""Stages that can be found in several ways, or not at all, and the name under which a turn says so:
figures of two bases are not the same thing."""

_RECENT_S = 30.0
_BAD: Final = frozenset({Outcome.FAILED, Outcome.VANISHED, Outcome.NO_MEDIA, Outcome.TIMEOUT})


class End(IntEnum):
    """Exit statuses of a load test."""

    GOOD = 0
    FAILED = 1
    """Something went wrong: a turn, a session, a worker, a record."""
    NOT_ENOUGH_DATA = 2
    """No turn ended as it should."""
    INVALID = 3
    """The generator was the bottleneck: no figure can be believed."""


@dataclass(slots=True)
class Worker:
    """What is known of one worker."""

    host: str
    pid: int
    windows: list[Window] = field(default_factory=list)
    entries: int = 0
    missing: int = 0
    """Entries that were sent and did not arrive."""
    sessions: int = 0
    speaking: int = 0
    cut_off: int = 0
    """Turns that the end of the run cut off."""
    never_begun: int = 0
    """Visits that were due and had not begun when the run ended."""
    marks_lost: int = 0
    finished: bool = False
    lost: str | None = None
    last_heard_unix: float = 0.0


class Account:
    """Collects one run. `folder` takes its records, if any."""

    def __init__(self, folder: Path | None, ledger: Ledger) -> None:
        self.ledger = ledger
        self.workers: dict[str, Worker] = {}
        self.started_unix = time.time()
        self.outcomes: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refusals = 0
        self.visits = 0
        self.opened = 0
        self.unplaced = 0
        """Arrivals for which there was no worker."""
        self.freezes: int | None = None
        self.bases: dict[str, Counter[str]] = {stage.key: Counter() for stage in FOUND}
        self.absent: dict[str, Counter[str]] = {stage.key: Counter() for stage in FOUND}
        """Catalogue key → how it was found, or why it was not → turns that had an answer."""
        self._values: dict[str, list[float]] = {stage.key: [] for stage in SHOWN}
        self._recent: deque[tuple[float, str, float]] = deque()
        self._files: dict[str, TextIO] = {}
        self._folder = folder
        if folder is not None:
            for name in (TURNS, VISITS, WINDOWS):
                self._files[name] = (folder / name).open("w", encoding="utf-8")

    # --- what comes in ---------------------------------------------------------------------

    def hello(self, worker: str, host: str, pid: int) -> None:
        """A worker takes part."""
        self.workers.setdefault(worker, Worker(host, pid)).last_heard_unix = time.time()

    def report(self, message: Mapping[str, Any]) -> None:
        """A worker's entries since its last report, and how it stands."""
        worker = self.workers[message["worker"]]
        worker.last_heard_unix = time.time()
        worker.sessions, worker.speaking = message["sessions"], message["speaking"]
        worker.missing += max(0, message["sequence"] - worker.entries - worker.missing)
        for entry in message["entries"]:
            worker.entries += 1
            self._take(message["worker"], worker, entry)

    def finished(self, message: Mapping[str, Any]) -> None:
        """A worker has stopped all its visits."""
        self.report(message)
        worker = self.workers[message["worker"]]
        worker.finished = True
        worker.sessions, worker.speaking = 0, 0
        worker.cut_off, worker.marks_lost = message["cut_off"], message["marks_lost"]
        worker.never_begun = message["never_begun"]

    def lost(self, worker: str, why: str) -> None:
        """A worker is gone without a word; what it had not reported is not known."""
        of = self.workers[worker]
        of.lost, of.sessions, of.speaking = why, 0, 0

    def _take(self, name: str, worker: Worker, entry: Mapping[str, Any]) -> None:
        match entry["kind"]:
            case "session":
                self.ledger.note(
                    name,
                    entry["visit"],
                    entry["state"],
                    session=entry.get("session"),
                    orphan=entry.get("orphan"),
                )
            case "opened":
                self.opened += 1
                self._observe(entry["values"])
                self._write(VISITS, name, entry)
            case "turn":
                self.outcomes[entry["outcome"]] += 1
                if entry["outcome"] in _BAD:
                    self.failures[entry["error"]["message"]] += 1
                self._observe(entry["values"])
                if entry["outcome"] not in _BAD:
                    self._found(entry)
                froze = entry["values"].get(stages.FREEZES.key)
                if froze is not None:
                    self.freezes = (self.freezes or 0) + round(froze)
                self._write(TURNS, name, entry)
            case "failed":
                self.failures[entry["message"]] += 1
                self._write(VISITS, name, entry)
            case "refused":
                self.refusals += 1
                self._write(VISITS, name, entry)
            case "queued":
                self._write(VISITS, name, entry)
            case "begun":
                self.visits += 1
            case "window":
                window = Window.from_json(entry)
                worker.windows.append(window)
                self._write(WINDOWS, name, window.to_json())
            case kind:
                raise ValueError(f"an entry of unknown kind {kind!r}")

    def _found(self, entry: Mapping[str, Any]) -> None:
        for stage, name in FOUND.items():
            if stage.key in entry["values"]:
                self.bases[stage.key][entry["bases"][name]] += 1
            elif name in entry["absent"]:
                self.absent[stage.key][entry["absent"][name]] += 1

    def _observe(self, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        for key in self._values.keys() & values.keys():
            self._values[key].append(values[key])
            self._recent.append((now, key, values[key]))
        while self._recent and self._recent[0][0] < now - _RECENT_S:
            self._recent.popleft()

    def _write(self, name: str, worker: str, entry: Mapping[str, Any]) -> None:
        file = self._files.get(name)
        if file is not None:
            file.write(json.dumps({"worker": worker, **entry}, ensure_ascii=False) + "\n")
            file.flush()

    # --- what goes out ---------------------------------------------------------------------

    @property
    def end(self) -> End:
        """What the run's end says to the shell; the gravest thing first."""
        if self.verdict().saturated:
            return End.INVALID
        if self.errors or self.losses or self.ledger.orphans:
            return End.FAILED
        if not self.outcomes[Outcome.COMPLETED] and not self.outcomes[Outcome.INTERRUPTED]:
            return End.NOT_ENOUGH_DATA
        return End.GOOD

    @property
    def turns(self) -> int:
        """Turns that ended, however they did."""
        return sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        """Visits and turns that went wrong."""
        return sum(self.failures.values())

    @property
    def losses(self) -> list[str]:
        """What the run's figures lack, in words; empty when nothing."""
        told = [f"worker {name} {worker.lost}" for name, worker in self._sorted() if worker.lost]
        missing = sum(worker.missing for worker in self.workers.values())
        if missing:
            told.append(f"{missing} entries of workers did not arrive")
        late = self.unplaced + sum(worker.never_begun for worker in self.workers.values())
        if late:
            told.append(f"{late} viewers were due and had not begun when the run ended")
        marks = sum(worker.marks_lost for worker in self.workers.values())
        if marks:
            told.append(f"{marks} records did not reach the exporter")
        return told

    def verdict(self) -> Verdict:
        """Whether the figures can be believed."""
        return judge({name: worker.windows for name, worker in self._sorted()})

    def recent(self, stage: Stage) -> list[float]:
        """The stage's values of the last 30 s, sorted."""
        return sorted(value for _, key, value in self._recent if key == stage.key)

    def all(self, stage: Stage) -> list[float]:
        """All of the stage's values, sorted."""
        return sorted(self._values[stage.key])

    def write(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Close the records and write the account; return it."""
        for file in self._files.values():
            file.close()
        self.ledger.close()
        content = self.to_json() | dict(about)
        if self._folder is not None:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (self._folder / ACCOUNT).write_text(text, encoding="utf-8")
        return content

    def to_json(self) -> dict[str, Any]:
        """The account, as docs/load.md describes it."""
        return {
            "schema": SCHEMA,
            "started_unix": self.started_unix,
            "ended_unix": time.time(),
            "verdict": self.verdict().to_json(),
            "visits": self.visits,
            "sessions_opened": self.opened,
            "turns": dict(self.outcomes),
            "turns_cut_off": sum(worker.cut_off for worker in self.workers.values()),
            "refusals": self.refusals,
            stages.FREEZES.key: self.freezes,
            "failures": dict(self.failures.most_common()),
            "stages": {stage.key: summary(self.all(stage)) for stage in SHOWN if self.all(stage)},
            "bases": {key: dict(found) for key, found in self.bases.items() if found},
            "absent": {key: dict(why.most_common()) for key, why in self.absent.items() if why},
            "losses": self.losses,
            "orphans": [orphan.to_json() for orphan in self.ledger.orphans],
            "workers": {name: _worker(worker) for name, worker in self._sorted()},
        }

    def _sorted(self) -> Iterable[tuple[str, Worker]]:
        return sorted(self.workers.items())


def summary(ordered: list[float]) -> dict[str, float]:
    """Nearest-rank statistics of sorted values, which must not be empty."""
    return {
        "n": len(ordered),
        "p50": quantile(ordered, 0.50),
        "p95": quantile(ordered, 0.95),
        "p99": quantile(ordered, 0.99),
        "max": ordered[-1],
    }


def _worker(worker: Worker) -> dict[str, Any]:
    told = {k: v for k, v in asdict(worker).items() if k not in {"windows", "speaking", "sessions"}}
    windows = worker.windows
    told["windows"] = len(windows)
    told["flagged"] = sum(bool(flags(window)) for window in windows)
    if windows:
        told["loop_cpu"] = {
            "median": median(w.loop_cpu for w in windows),
            "max": max(w.loop_cpu for w in windows),
        }
        told["loop_lag_p99_s"] = max(w.loop_lag_p99_s for w in windows)
        told["most_sessions"] = max(w.sessions for w in windows)
    return told
