"""Turns → what a report needs of them, at a few bytes a turn.

What comes in: the lines of `turns.jsonl`. What goes out: one column of numbers a stage over the
completed measured turns, tallies of everything else, and the few turns that are shown one by
one. It must not know how a column is summarised or shown.

Three rules hold. Warmup, measured and cold turns are never mixed: a measured turn that was the
target's first is counted, and gives no values. Only a completed turn gives values; every other
one counts among the outcomes. What a turn does not have leaves its reason.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from exporter import stages
from exporter.stages import InputKind, Outcome, Phase, Scope, Stage, Startup
from report.turn_lines import TurnReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from report.records import Timing, Turn

TURN_STAGES: Final = tuple(s for s in stages.STAGES.values() if s.scope is Scope.TURN)

SLOWEST: Final = 10
"""Turns that are kept whole because they were the slowest."""

KEPT: Final = 1000
"""Turns of the warmup, and turns that were not completed, that are kept whole."""

_MARKS: Final = "marks"
"""The source of a value that the exporter computed from two marks."""

_STEPPED: Final = "it ends before it begins, as after a step of a clock"
_BLOCK: Final = 8192
_NAN: Final = math.nan

_SLOW_BY: Final = (stages.PERCEIVED_TTFV, stages.FIRST_TURN_TOTAL, stages.TTFV)
"""How slow a turn was: by the first of these that it has."""


@dataclass(slots=True)
class _Shape:
    """Turns that have the same stages, from the same sources, and lack the rest alike."""

    first: Turn
    """Held because shapes are told apart by the ids of its parts, unique while they live."""
    turns: int = 1


class TurnTable:
    """An accumulator of lines (`report.lines`)."""

    def __init__(self) -> None:
        self.completed = 0
        """Completed measured turns that were not cold: the rows of the columns."""
        self.unphased = 0
        """Turns of nobody's benchmark."""
        self.outcomes: Counter[Outcome] = Counter()
        """Of the measured turns."""
        self.startups: Counter[str] = Counter()
        """Of the completed measured turns; `unknown` where nobody told."""
        self.inputs: dict[InputKind, None] = {}
        """Of the measured turns, in order of appearance, like every dict to None here."""
        self.sessions: set[str] = set()
        """That held a measured turn."""
        self.begin = math.inf
        self.end = -math.inf
        """First input and last thing seen of the measured turns; infinite without one."""
        self.models: dict[str, None] = {}
        self.backends: dict[str, None] = {}
        self.avatars: dict[str, None] = {}
        self.resolutions: dict[tuple[float, float], None] = {}
        self.frame_rates: dict[float, None] = {}
        self.chunks_ms: dict[float, None] = {}
        self.timed = False
        """Whether any completed measured turn had a timing event."""
        self.drift_bases: dict[str, None] = {}
        self.clock_uncertainty: float | None = None
        self.warmup: list[Turn] = []
        """The first of them."""
        self.failed: list[Turn] = []
        """The first of the measured turns that were not completed."""
        self.reasons: dict[str, Counter[str]] = {s.key: Counter() for s in TURN_STAGES}
        """Why completed measured turns lack a stage; empty where a turn does not say."""
        self.sources: dict[str, dict[str, None]] = {s.key: {} for s in TURN_STAGES}
        self.bases: dict[str, dict[str, None]] = {s.key: {} for s in TURN_STAGES}
        self._columns: dict[str, array[float]] = {s.key: array("d") for s in TURN_STAGES}
        self._begins: array[float] = array("d")
        self._slowest: list[tuple[float, str, int, Turn]] = []
        self._identities: array[int] = array("q")
        self._reader = TurnReader()
        self._rows: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        self._waiting = 0
        self._shapes: dict[tuple[object, ...], _Shape] = {}

    # --- lines -----------------------------------------------------------------------------

    def line(self, line: bytes) -> None:
        """See `report.lines.Accumulator`."""
        self.add(self._reader.read(line))

    def add(self, turn: Turn) -> None:
        """Count one turn."""
        self._identities.append(hash((turn.session, turn.turn)))
        if turn.phase is Phase.WARMUP:
            if len(self.warmup) < KEPT:
                self.warmup.append(turn)
            return
        if turn.phase is None:
            self.unphased += 1
            return
        self.outcomes[turn.outcome] += 1
        self.sessions.add(turn.session)
        if turn.input is not None:
            self.inputs[turn.input] = None
        times = [time for mark, time in turn.marks.items() if mark in stages.MARKS]
        begin = _NAN
        if times:
            begin = turn.marks.get(stages.INPUT, min(times))
            self.begin = min(self.begin, begin)
            self.end = max(self.end, *times)
        if turn.outcome is not Outcome.COMPLETED:
            if len(self.failed) < KEPT:
                self.failed.append(turn)
            return
        self._add_completed(turn, begin)

    def _add_completed(self, turn: Turn, begin: float) -> None:
        self.startups[turn.startup or "unknown"] += 1
        if turn.startup is Startup.COLD:
            return
        self.completed += 1
        for name, seen in (
            (turn.model, self.models),
            (turn.backend, self.backends),
            (turn.avatar, self.avatars),
            (turn.drift.basis if turn.drift else None, self.drift_bases),
        ):
            if name is not None:
                seen[name] = None
        if turn.timing is not None:
            self._add_timing(turn.timing)
        uncertainty = turn.clock.client_uncertainty_seconds if turn.clock else None
        if uncertainty is not None:
            self.clock_uncertainty = max(self.clock_uncertainty or 0.0, uncertainty)
        self._add_evidence(turn)
        values = turn.values
        rows = self._rows.setdefault(tuple(values), [])
        rows.append((begin, *values.values()))
        self._waiting += 1
        if self._waiting >= _BLOCK:
            self._flush()
        slow = next((values[stage.key] for stage in _SLOW_BY if stage.key in values), None)
        if slow is not None and (len(self._slowest) < SLOWEST or slow >= self._slowest[0][0]):
            _keep(self._slowest, (slow, turn.session, turn.turn, turn))

    def _add_timing(self, timing: Timing) -> None:
        self.timed = True
        if timing.output_width and timing.output_height:
            self.resolutions[timing.output_width, timing.output_height] = None
        if timing.output_fps:
            self.frame_rates[timing.output_fps] = None
        # A rate below 1 Hz is none, and dividing by a tiny one would leave the finite numbers.
        if timing.chunk_samples and timing.sample_rate and timing.sample_rate >= 1.0:
            self.chunks_ms[timing.chunk_samples / timing.sample_rate * 1000.0] = None

    def _add_evidence(self, turn: Turn) -> None:
        """Where values came from and why some are not there: once for each combination, since
        the reader gives equal parts as one object."""
        shape = (
            *(id(turn.mark_sources), id(turn.value_sources), id(turn.absent), id(turn.bases)),
            *turn.values,
        )
        known = self._shapes.get(shape)
        if known is not None:
            known.turns += 1
            return
        if len(self._shapes) < KEPT:
            self._shapes[shape] = _Shape(turn)
        else:
            self._count_reasons(turn, 1)
        for stage in TURN_STAGES:
            if stage.key in turn.values:
                source = value_source(stage, turn)
                if source:
                    self.sources[stage.key][source] = None
                for name in (stage.key, stage.start, stage.end):
                    if name is not None and name in turn.bases:
                        self.bases[stage.key][turn.bases[name]] = None

    def _count_reasons(self, turn: Turn, times: int) -> None:
        for stage in TURN_STAGES:
            if stage.key not in turn.values:
                self.reasons[stage.key][turn.absent.get(stage.key, "")] += times

    def _flush(self) -> None:
        """Rows → columns; a stage that a row does not have is NaN there."""
        for keys, rows in self._rows.items():
            begins, *columns = zip(*rows, strict=True)
            self._begins.extend(begins)
            found = {
                key: self._possible(key, column)
                for key, column in zip(keys, columns, strict=True)
                if key in self._columns
            }
            nothing = array("d", [_NAN]) * len(rows)
            for key, column in self._columns.items():
                column.extend(found.get(key, nothing))
        self._rows.clear()
        self._waiting = 0

    def _possible(self, key: str, column: tuple[float, ...]) -> Iterable[float]:
        """The column, NaN where an interval is negative: nothing ends before it begins."""
        if not stages.STAGES[key].is_interval or min(column) >= 0.0:
            return column
        self.reasons[key][_STEPPED] += sum(value < 0.0 for value in column)
        return [value if value >= 0.0 else _NAN for value in column]

    # --- the whole -------------------------------------------------------------------------

    def merge(self, other: Self) -> None:
        """See `report.lines.Accumulator`."""
        self._flush()
        self.completed += other.completed
        self.unphased += other.unphased
        self.outcomes += other.outcomes
        self.startups += other.startups
        self.sessions |= other.sessions
        self.begin, self.end = min(self.begin, other.begin), max(self.end, other.end)
        self.timed |= other.timed
        for ours, theirs in zip(self._seen(), other._seen(), strict=True):
            ours.update(theirs)
        if other.clock_uncertainty is not None:
            self.clock_uncertainty = max(self.clock_uncertainty or 0.0, other.clock_uncertainty)
        self.warmup += other.warmup[: KEPT - len(self.warmup)]
        self.failed += other.failed[: KEPT - len(self.failed)]
        for key, reasons in other.reasons.items():
            self.reasons[key] += reasons
        for key, column in other._columns.items():
            self._columns[key].extend(column)
        self._begins.extend(other._begins)
        for entry in other._slowest:
            _keep(self._slowest, entry)
        self._identities.extend(other._identities)

    def _seen(self) -> tuple[dict[Any, None], ...]:
        return (
            *(self.inputs, self.models, self.backends, self.avatars, self.resolutions),
            *(self.frame_rates, self.chunks_ms, self.drift_bases),
            *self.sources.values(),
            *self.bases.values(),
        )

    def finish(self) -> None:
        """Write down what waits; afterwards nothing is added. Also before it is sent away."""
        self._flush()
        for shape in self._shapes.values():
            self._count_reasons(shape.first, shape.turns)
        self._shapes.clear()

    def __getstate__(self) -> dict[str, object]:
        self.finish()
        return {**self.__dict__, "_reader": None}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)
        self._reader = TurnReader()

    def may_repeat(self) -> bool:
        """Whether two turns may be the same: their hashes are."""
        return len(set(self._identities)) < len(self._identities)

    def column(self, key: str) -> array[float]:
        """A stage's values of the completed measured turns that have one, in the key's unit."""
        column = self._columns[key]
        if not self.reasons[key]:
            return column
        return array("d", (value for value in column if value == value))

    def row_sums(self, keys: Sequence[str], total: str) -> Iterable[tuple[float, ...]]:
        """For each turn that has `total` and every one of `keys`: their values, total first."""
        columns = [self._columns[key] for key in (total, *keys)]
        return (row for row in zip(*columns, strict=True) if all(v == v for v in row))

    def over_time(self, key: str) -> tuple[array[float], array[float]]:
        """When each turn of the columns began (seconds since the epoch), and its value of a stage;
        NaN where either is not known."""
        return self._begins, self._columns[key]

    @property
    def slowest(self) -> tuple[Turn, ...]:
        """The slowest completed measured turns, the slowest first."""
        return tuple(entry[3] for entry in sorted(self._slowest, key=_order, reverse=True))


def value_source(stage: Stage, turn: Turn) -> str:
    """Where a turn's value of a stage came from; empty when nobody told.

    A value computed from marks names who saw each of them, since one that the exporter only
    `estimated` deserves less trust.
    """
    source = turn.value_sources.get(stage.key, "")
    seers = [turn.mark_sources.get(mark, "unknown") for mark in (stage.start, stage.end) if mark]
    if source == _MARKS and seers:
        return f"{source} ({' → '.join(seers)})"
    return source


def _order(entry: tuple[float, str, int, Turn]) -> tuple[float, str, int]:
    return entry[:3]


def _keep(heap: list[tuple[float, str, int, Turn]], entry: tuple[float, str, int, Turn]) -> None:
    """A heap of the greatest; session and number settle ties, so order does not matter."""
    if len(heap) < SLOWEST:
        heapq.heappush(heap, entry)
    elif _order(entry) > _order(heap[0]):
        heapq.heapreplace(heap, entry)
