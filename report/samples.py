"""Readings of levels → one series for each.

What comes in: the lines of `samples.jsonl`. What goes out: times and values of each level, 16
bytes a reading. It must not know what a level means.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from report.decode import LARGEST, decode, parse
from report.records import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(slots=True)
class Level:
    """One level with one set of labels."""

    name: str
    labels: Mapping[str, str]
    times: array[float] = field(default_factory=lambda: array("d"))
    """Seconds since the Unix epoch, in the order of the file."""
    values: array[float] = field(default_factory=lambda: array("d"))

    @property
    def readings(self) -> Iterable[tuple[float, float]]:
        """(time, value) of each reading."""
        return zip(self.times, self.values, strict=True)


class Samples:
    """An accumulator of lines (`report.lines`)."""

    def __init__(self) -> None:
        self._levels: dict[tuple[str, tuple[tuple[str, str], ...]], Level] = {}
        self._seen: dict[tuple[Any, ...], Level] = {}
        """The same by name and labels in the order of a line."""

    def line(self, line: bytes) -> None:
        """See `report.lines.Accumulator`."""
        found = parse(line)
        # Most of ten million lines are plain readings; the schema names what is wrong with others.
        if not self._plain(found):
            self.add(decode(Sample, found))

    def _plain(self, found: Any) -> bool:
        """Take a reading of a level that is known already; say whether it was one."""
        try:
            unix, value = found["unix"], found["value"]
            level = self._seen[(found["name"], *found["labels"].items())]
        except (KeyError, TypeError, AttributeError):
            return False
        if not (type(unix) is type(value) is float and abs(unix) <= LARGEST >= abs(value)):
            return False
        level.times.append(unix)
        level.values.append(value)
        return True

    def add(self, sample: Sample) -> None:
        """Take one reading."""
        level = self._level(sample.name, sample.labels)
        level.times.append(sample.unix)
        level.values.append(sample.value)

    def merge(self, other: Self) -> None:
        """See `report.lines.Accumulator`."""
        for theirs in other._levels.values():
            level = self._level(theirs.name, theirs.labels)
            level.times.extend(theirs.times)
            level.values.extend(theirs.values)

    def of(self, name: str) -> list[Level]:
        """The levels of one name, sorted by their labels."""
        return [self._levels[key] for key in sorted(self._levels) if key[0] == name]

    def _level(self, name: str, labels: Mapping[str, str]) -> Level:
        key = (name, tuple(sorted(labels.items())))
        found = self._levels.get(key)
        if found is None:
            found = self._levels[key] = Level(name, dict(labels))
        self._seen[name, *labels.items()] = found
        return found
