"""One line of `turns.jsonl` → a `Turn`.

What comes in: the bytes of a line. What goes out: the turn, or a `DecodeError` that names the
field. It must not know other turns.

Most of a line repeats from turn to turn, word for word: who saw which mark, why a value is
absent. A line laid out as the exporter writes it is cut around those parts, and each is decoded
once. Any other line, and any line with something wrong in it, is decoded whole by the schema, so
both ways accept and refuse the same.
"""

from __future__ import annotations

import json
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn, get_args, get_type_hints

from report.decode import LARGEST, decode, parse
from report.records import Clock, Drift, Timing, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED: Final = 4096
"""Distinct texts of repeating parts that are kept; more would mean that they do not repeat."""

_NUMBERS: Final = frozenset({int, float})
_MAPS: Final = ("mark_sources", "value_sources", "absent", "bases")
_TIMING: Final = tuple(part.name for part in fields(Timing))
_CHOICES: Final[dict[str, dict[str | None, Any]]] = {
    name: {**{str(choice): choice for choice in kind}, **({None: None} if kind is not hint else {})}
    for name, hint in get_type_hints(Turn).items()
    for kind in (hint, *get_args(hint))
    if isinstance(kind, type) and issubclass(kind, StrEnum)
}
"""Fields of a turn that hold one of a few words."""

_MARKS_AT: Final = ', "marks": '
_SOURCES_AT: Final = ', "mark_sources": '
_VALUES_AT: Final = ', "values": '
_REST_AT: Final = ', "value_sources": '
_TAIL_AT: Final = ', "drift": '
_CHUNKS_AT: Final = ', "chunks": '
_TIMING_AT: Final = ', "timing": '
_CLOCK_AT: Final = ', "clock": '


class _UnusualError(Exception):
    """A line to be decoded whole."""


def _refuse(_: str) -> NoReturn:
    raise _UnusualError


_decoder: Final = json.JSONDecoder(parse_constant=_refuse)


class TurnReader:
    """Reads lines and remembers the parts that repeat; equal parts are one object."""

    def __init__(self) -> None:
        self._parts: dict[str, Mapping[str, dict[str, str]]] = {}
        self._maps: dict[str, dict[str, str]] = {}

    def read(self, line: bytes) -> Turn:
        """The turn of a line. Raises `DecodeError`."""
        try:
            return self._cut(line.decode("utf-8"))
        except (_UnusualError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._shared(decode(Turn, parse(line)))

    def _cut(self, text: str) -> Turn:
        # The first place of each is the member of the turn itself: were it a member of something
        # inside, the part before it would not be whole and would not parse. Nor can a text hold
        # it, since a quotation mark in a text is escaped.
        marks_at = text.index(_MARKS_AT)
        sources_at = text.index(_SOURCES_AT, marks_at)
        values_at = text.index(_VALUES_AT, sources_at)
        rest_at = text.index(_REST_AT, values_at)
        tail_at = text.index(_TAIL_AT, rest_at)
        if "\\" in text:
            raise _UnusualError
        head = _decoder.decode(text[:marks_at] + "}")
        # Chunks and RTP timestamps, which a report has no use for, are not decoded.
        drift, chunks_at = _decoder.raw_decode(text, tail_at + len(_TAIL_AT))
        timing_at = text.index(_TIMING_AT, chunks_at)
        timing, clock_at = _decoder.raw_decode(text, timing_at + len(_TIMING_AT))
        skipped = text[chunks_at:timing_at]
        # A NaN or an Infinity refuses the line, wherever it stands.
        if not text.startswith(_CLOCK_AT, clock_at) or "N" in skipped or "I" in skipped:
            raise _UnusualError
        clock, end = _decoder.raw_decode(text, clock_at + len(_CLOCK_AT))
        if not skipped.startswith(_CHUNKS_AT) or text[end:] != "}":
            raise _UnusualError
        marks = _numbers(text, marks_at + len(_MARKS_AT), sources_at)
        values = _numbers(text, values_at + len(_VALUES_AT), rest_at)
        sources = self._part(text[sources_at:values_at])
        rest = self._part(text[rest_at:tail_at])
        number = head["turn"]
        names = (head["model"], head["backend"], head["avatar"], head["trace_id"])
        if (
            type(number) is not int
            or not -LARGEST <= number <= LARGEST
            or type(head["session"]) is not str
            or any(name is not None and type(name) is not str for name in names)
            or head["error"] is not None
        ):
            raise _UnusualError
        return Turn(
            session=head["session"],
            turn=number,
            marks=marks,
            values=values,
            model=names[0],
            backend=names[1],
            avatar=names[2],
            trace_id=names[3],
            error=None,
            drift=_drift(drift),
            timing=_timing(timing),
            clock=_clock(clock),
            **{name: choices[head[name]] for name, choices in _CHOICES.items()},
            mark_sources=sources["mark_sources"],
            value_sources=rest["value_sources"],
            absent=rest["absent"],
            bases=rest["bases"],
        )

    def _part(self, text: str) -> Mapping[str, dict[str, str]]:
        """Members of the line that map texts to texts; `text` begins with `, `."""
        found = self._parts.get(text)
        if found is None:
            found = _decoder.decode("{" + text[2:] + "}")
            if not all(type(v) is str for one in found.values() for v in one.values()):
                raise _UnusualError
            if len(self._parts) < _REMEMBERED:
                self._parts[text] = found
        return found

    def _shared(self, turn: Turn) -> Turn:
        """The turn, its repeating parts exchanged for equal ones that were seen before."""
        changes: dict[str, Any] = {part.name: getattr(turn, part.name) for part in fields(Turn)}
        for name in _MAPS:
            text = json.dumps(changes[name])
            if len(self._maps) < _REMEMBERED:
                self._maps.setdefault(text, changes[name])
            changes[name] = self._maps.get(text, changes[name])
        return Turn(**changes)


def _numbers(text: str, begin: int, end: int) -> dict[str, float]:
    found, stop = _decoder.raw_decode(text, begin)
    if stop != end:
        raise _UnusualError
    values = found.values()
    if found and not (
        _NUMBERS.issuperset(map(type, values))
        and min(values) >= -LARGEST
        and max(values) <= LARGEST
    ):
        raise _UnusualError
    if int in map(type, values):
        return {name: float(value) for name, value in found.items()}
    numbers: dict[str, float] = found
    return numbers


def _optional_number(value: object) -> float | None:
    if value is None:
        return None
    if type(value) not in _NUMBERS:
        raise _UnusualError
    assert isinstance(value, int | float)
    if not -LARGEST <= value <= LARGEST:
        raise _UnusualError
    return float(value)


def _drift(told: dict[str, Any] | None) -> Drift | None:
    if told is None:
        return None
    if type(told["basis"]) is not str:
        raise _UnusualError
    return Drift(told["basis"])


def _timing(told: dict[str, Any] | None) -> Timing | None:
    if told is None:
        return None
    return Timing(*[_optional_number(told.get(name)) for name in _TIMING])


def _clock(told: dict[str, Any] | None) -> Clock | None:
    if told is None:
        return None
    return Clock(_optional_number(told.get("client_uncertainty_seconds")))
