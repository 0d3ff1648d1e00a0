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
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from msgspec.structs import astuple

from exporter import stages
from exporter.stages import InputKind, Outcome, Phase, Stage, Startup
from report.records import Timing, Turn
from report.turn_lines import MARKS, TURN_STAGES, read_line, read_texts, read_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msgspec import Raw
    from numpy.typing import NDArray

    from report.turn_lines import Line

SLOWEST: Final = 10
"""Turns that are kept whole because they were the slowest."""

KEPT: Final = 1000
"""Turns of the warmup, and turns that were not completed, that are kept whole."""

_MARKS: Final = "marks"
"""The source of a value that the exporter computed from two marks."""

_STEPPED: Final = "it ends before it begins, as after a step of a clock"
_BLOCK: Final = 4096
"""Turns that are counted at once; their lines are held meanwhile."""

_SLOW_BY: Final = (stages.PERCEIVED_TTFV, stages.FIRST_TURN_TOTAL, stages.TTFV)
"""How slow a turn was: by the first of these that it has."""

_PLACE: Final = {stage.key: place for place, stage in enumerate(TURN_STAGES)}
_MARK_ROW: Final = Struct(f"{len(MARKS)}d")
_VALUE_ROW: Final = Struct(f"{len(TURN_STAGES)}d")
_INPUT: Final = MARKS.index(stages.INPUT)
_IS_INTERVAL: Final = np.array([stage.is_interval for stage in TURN_STAGES])


@dataclass(frozen=True, slots=True)
class _Kind:
    """All of a measured turn but its numbers, which many turns have alike."""

    outcome: Outcome
    startup: Startup | None
    input: InputKind | None
    model: str | None
    backend: str | None
    avatar: str | None
    drift_basis: str | None
    timing: Timing | None
    mark_sources: Mapping[str, str]
    value_sources: Mapping[str, str]
    absent: Mapping[str, str]
    bases: Mapping[str, str]

    @property
    def is_row(self) -> bool:
        """Whether such a turn gives values."""
        return self.outcome is Outcome.COMPLETED and self.startup is not Startup.COLD


class _Block:
    """Measured turns that wait to be counted."""

    def __init__(self) -> None:
        self.turns: list[Turn | bytes] = []
        """Themselves, or their lines."""
        self.identities: list[tuple[str, int]] = []
        self.marks = bytearray()
        """A `_MARK_ROW` a turn."""
        self.values = bytearray()
        """A `_VALUE_ROW` a turn."""
        self.kinds: list[_Kind] = []
        """In order of appearance."""
        self.kind: array[int] = array("q")
        self._places: dict[tuple[object, ...], int] = {}
        """In `kinds`, by what tells kinds apart."""
        self._latest: dict[tuple[object, ...], tuple[tuple[Raw, ...], int]] = {}
        """The last maps of texts with the same of everything else, and the place."""

    def add_kind(self, kind: _Kind) -> int:
        """Remember a kind; its place in `kinds`."""
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def place_of_line(self, found: Line) -> int | None:
        """Where in `kinds` a line's is; None where a map of texts holds something else."""
        key = (
            *(found.phase, found.outcome, found.startup, found.input),
            *(found.model, found.backend, found.avatar),
            None if found.drift is None else found.drift.basis,
            None if found.timing is None else astuple(found.timing),
        )
        texts = (found.mark_sources, found.value_sources, found.absent, found.bases)
        # Texts are most of a line, and comparing them is much faster than hashing them.
        latest = self._latest.get(key)
        if latest is not None and latest[0] == texts:
            return latest[1]
        whole = (*key, *map(bytes, texts))
        place = self._places.get(whole)
        if place is None:
            kind = _kind_of_line(found)
            if kind is None:
                return None
            place = self._places[whole] = self.add_kind(kind)
        self._latest[key] = texts, place
        return place


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
        self._block = _Block()

    # --- lines -----------------------------------------------------------------------------

    def line(self, line: bytes) -> None:
        """See `report.lines.Accumulator`."""
        found = read_line(line)
        if found is None or not self._add_line(found, line):
            self.add(read_turn(line))

    def _add_line(self, found: Line, line: bytes) -> bool:
        """Count the turn of a line; False, and nothing done, where the schema has to look at it."""
        block = self._block
        outcome, phase = found.outcome, found.phase
        place = block.place_of_line(found)
        if place is None:
            return False
        identity = found.session, found.turn
        self._identities.append(hash(identity))
        if phase is not Phase.MEASURED:
            if phase is None:
                self.unphased += 1
            elif len(self.warmup) < KEPT:
                self.warmup.append(read_turn(line))
            return True
        self.sessions.add(found.session)
        if outcome is not Outcome.COMPLETED and len(self.failed) < KEPT:
            self.failed.append(read_turn(line))
        uncertainty = None if found.clock is None else found.clock.client_uncertainty_seconds
        if uncertainty is not None and block.kinds[place].is_row:
            self.clock_uncertainty = max(self.clock_uncertainty or 0.0, uncertainty)
        block.marks += _MARK_ROW.pack(*astuple(found.marks))
        block.values += _VALUE_ROW.pack(*astuple(found.values))
        block.identities.append(identity)
        block.turns.append(line)
        block.kind.append(place)
        if len(block.kind) >= _BLOCK:
            self._flush()
        return True

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
        self.sessions.add(turn.session)
        if turn.outcome is not Outcome.COMPLETED and len(self.failed) < KEPT:
            self.failed.append(turn)
        kind = _kind_of_turn(turn)
        uncertainty = None if turn.clock is None else turn.clock.client_uncertainty_seconds
        if uncertainty is not None and kind.is_row:
            self.clock_uncertainty = max(self.clock_uncertainty or 0.0, uncertainty)
        block = self._block
        block.marks += _MARK_ROW.pack(*(turn.marks.get(mark, math.nan) for mark in MARKS))
        block.values += _VALUE_ROW.pack(*(turn.values.get(s.key, math.nan) for s in TURN_STAGES))
        block.identities.append((turn.session, turn.turn))
        block.turns.append(turn)
        block.kind.append(block.add_kind(kind))
        if len(block.kind) >= _BLOCK:
            self._flush()

    # --- blocks ----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Count what waits."""
        block, self._block = self._block, _Block()
        if not block.kind:
            return
        kind = np.frombuffer(block.kind, np.int64)
        turns = np.bincount(kind, minlength=len(block.kinds)).tolist()
        for one, count in zip(block.kinds, turns, strict=True):
            if count:
                self._add_kind(one, count)
        begins = self._add_span(np.frombuffer(block.marks).reshape(len(kind), -1))
        rows = np.array([one.is_row for one in block.kinds])[kind]
        places = np.flatnonzero(rows)
        values = np.frombuffer(block.values).reshape(len(kind), -1)[places]
        self._add_slowest(block, places, values)
        self._add_evidence(block.kinds, kind[places], ~np.isnan(values))
        # Nothing ends before it begins.
        with np.errstate(invalid="ignore"):
            stepped = (values < 0.0) & _IS_INTERVAL
        for place in np.flatnonzero(stepped.any(axis=0)).tolist():
            self.reasons[TURN_STAGES[place].key][_STEPPED] += int(stepped[:, place].sum())
        values[stepped] = math.nan
        self._begins.frombytes(begins[places].tobytes())
        for stage, column in zip(TURN_STAGES, values.T, strict=True):
            self._columns[stage.key].frombytes(column.tobytes())

    def _add_kind(self, kind: _Kind, turns: int) -> None:
        self.outcomes[kind.outcome] += turns
        if kind.input is not None:
            self.inputs[kind.input] = None
        if kind.outcome is not Outcome.COMPLETED:
            return
        self.startups[kind.startup or "unknown"] += turns
        if not kind.is_row:
            return
        self.completed += turns
        for name, seen in (
            (kind.model, self.models),
            (kind.backend, self.backends),
            (kind.avatar, self.avatars),
            (kind.drift_basis, self.drift_bases),
        ):
            if name is not None:
                seen[name] = None
        if kind.timing is not None:
            self._add_timing(kind.timing)

    def _add_span(self, marks: NDArray[np.float64]) -> NDArray[np.float64]:
        """When each turn began, NaN where none of its marks was seen."""
        inputs = marks[:, _INPUT]
        begins = np.where(np.isnan(inputs), np.fmin.reduce(marks, axis=1), inputs)
        begin, end = float(np.fmin.reduce(begins)), float(np.fmax.reduce(marks, axis=None))
        if begin == begin:
            self.begin, self.end = min(self.begin, begin), max(self.end, end)
        return begins

    def _add_slowest(
        self, block: _Block, places: NDArray[np.intp], values: NDArray[np.float64]
    ) -> None:
        """Keep the slowest of a block; `places` says where in it each row of `values` is from."""
        slow = np.full(len(values), math.nan)
        for stage in reversed(_SLOW_BY):
            column = values[:, _PLACE[stage.key]]
            slow = np.where(np.isnan(column), slow, column)
        least = self._slowest[0][0] if len(self._slowest) == SLOWEST else -math.inf
        if len(slow) > SLOWEST:
            # A partition puts NaN last, as if it were the greatest.
            tenth = -np.partition(-slow, SLOWEST - 1)[SLOWEST - 1]
            least = max(least, tenth) if tenth == tenth else least
        with np.errstate(invalid="ignore"):
            found = np.flatnonzero(slow >= least).tolist()
        orders = [(float(slow[i]), *block.identities[places[i]], i) for i in found]
        for value, session, number, i in heapq.nlargest(SLOWEST, orders):
            turn = block.turns[places[i]]
            if isinstance(turn, bytes):
                turn = read_turn(turn)
            _keep(self._slowest, (value, session, number, turn))

    def _add_evidence(
        self, kinds: Sequence[_Kind], kind: NDArray[np.int64], present: NDArray[np.bool_]
    ) -> None:
        """Where values came from and why some are not there: once for each combination of a kind
        and the stages that are there."""
        if not len(kind):
            return
        packed = np.packbits(present, axis=1)
        seen = np.column_stack([kind.view(np.uint8).reshape(len(kind), -1), packed])
        _, first, turns = np.unique(seen, axis=0, return_index=True, return_counts=True)
        # In order of appearance.
        for row, count in sorted(zip(first.tolist(), turns.tolist(), strict=True)):
            self._add_combination(kinds[kind[row]], present[row].tolist(), count)

    def _add_combination(self, kind: _Kind, present: Sequence[bool], turns: int) -> None:
        for stage, there in zip(TURN_STAGES, present, strict=True):
            if not there:
                self.reasons[stage.key][kind.absent.get(stage.key, "")] += turns
                continue
            source = value_source(stage, kind)
            if source:
                self.sources[stage.key][source] = None
            for name in (stage.key, stage.start, stage.end):
                if name is not None and name in kind.bases:
                    self.bases[stage.key][kind.bases[name]] = None

    def _add_timing(self, timing: Timing) -> None:
        self.timed = True
        if timing.output_width and timing.output_height:
            self.resolutions[timing.output_width, timing.output_height] = None
        if timing.output_fps:
            self.frame_rates[timing.output_fps] = None
        # A rate below 1 Hz is none, and dividing by a tiny one would leave the finite numbers.
        if timing.chunk_samples and timing.sample_rate and timing.sample_rate >= 1.0:
            self.chunks_ms[timing.chunk_samples / timing.sample_rate * 1000.0] = None

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

    def __getstate__(self) -> dict[str, object]:
        self.finish()
        return self.__dict__

    def may_repeat(self) -> bool:
        """Whether two turns may be the same: their hashes are."""
        ordered = np.sort(np.frombuffer(self._identities, np.int64))
        return bool((ordered[1:] == ordered[:-1]).any())

    def column(self, key: str) -> array[float]:
        """A stage's values of the completed measured turns that have one, in the key's unit."""
        column = self._columns[key]
        if not self.reasons[key]:
            return column
        values = np.frombuffer(column)
        return array("d", values[~np.isnan(values)].tobytes())

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


def _kind_of_line(found: Line) -> _Kind | None:
    """None where a map of texts holds something else."""
    sources, value_sources = read_texts(found.mark_sources), read_texts(found.value_sources)
    absent, bases = read_texts(found.absent), read_texts(found.bases)
    if sources is None or value_sources is None or absent is None or bases is None:
        return None
    return _Kind(
        outcome=found.outcome,
        startup=found.startup,
        input=found.input,
        model=found.model,
        backend=found.backend,
        avatar=found.avatar,
        drift_basis=None if found.drift is None else found.drift.basis,
        timing=None if found.timing is None else Timing(*astuple(found.timing)),
        mark_sources=sources,
        value_sources=value_sources,
        absent=absent,
        bases=bases,
    )


def _kind_of_turn(turn: Turn) -> _Kind:
    return _Kind(
        outcome=turn.outcome,
        startup=turn.startup,
        input=turn.input,
        model=turn.model,
        backend=turn.backend,
        avatar=turn.avatar,
        drift_basis=None if turn.drift is None else turn.drift.basis,
        timing=turn.timing,
        mark_sources=turn.mark_sources,
        value_sources=turn.value_sources,
        absent=turn.absent,
        bases=turn.bases,
    )


def value_source(stage: Stage, turn: Turn | _Kind) -> str:
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
