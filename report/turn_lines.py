"""One line of `turns.jsonl` → a `Turn`.

What comes in: the bytes of a line. What goes out: the turn, or a `DecodeError` that names the
field. It must not know other turns.

`report.decode` takes several times as long as the parser. So a line whose fields all have their
types, which is every line that the exporter writes, is checked here in a few steps; any other is
left to the schema, which accepts it or names what is wrong. Both accept and refuse the same.
"""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from report.decode import LARGEST, decode, parse
from report.records import Clock, Drift, Timing, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED: Final = 4096
"""Distinct maps of texts that are kept; more would mean that they do not repeat."""

_NUMBERS: Final = frozenset({int, float})
_TEXT: Final = frozenset({str})
_NAMES: Final = frozenset({str, type(None)})
_TIMING: Final = tuple(part.name for part in fields(Timing))
_CHOICES: Final[dict[str, dict[str | None, Any]]] = {
    name: {**{str(choice): choice for choice in kind}, **({None: None} if kind is not hint else {})}
    for name, hint in get_type_hints(Turn).items()
    for kind in (hint, *get_args(hint))
    if isinstance(kind, type) and issubclass(kind, StrEnum)
}
"""Fields of a turn that hold one of a few words."""


class _UnusualError(Exception):
    """A line that the schema has to look at."""


class TurnReader:
    """Reads lines. Maps of texts, which repeat from turn to turn, are one object when equal."""

    def __init__(self) -> None:
        self._maps: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def read(self, line: bytes) -> Turn:
        """The turn of a line. Raises `DecodeError`."""
        found = parse(line)
        # Only an escape can spell half of a surrogate pair, which is no text.
        if b"\\" not in line:
            try:
                return self._plain(found)
            except (_UnusualError, KeyError, TypeError, AttributeError):
                pass
        turn = decode(Turn, found)
        changes: dict[str, Any] = {part.name: getattr(turn, part.name) for part in fields(Turn)}
        for name in ("mark_sources", "value_sources", "absent", "bases"):
            changes[name] = self._shared(changes[name])
        return Turn(**changes)

    def _plain(self, found: Any) -> Turn:
        number = found["turn"]
        names = (found["model"], found["backend"], found["avatar"], found["trace_id"])
        if (
            type(number) is not int
            or not -LARGEST <= number <= LARGEST
            or type(found["session"]) is not str
            or not _NAMES.issuperset(map(type, names))
            or found["error"] is not None
        ):
            raise _UnusualError
        return Turn(
            session=found["session"],
            turn=number,
            marks=_numbers(found["marks"]),
            values=_numbers(found["values"]),
            model=names[0],
            backend=names[1],
            avatar=names[2],
            trace_id=names[3],
            error=None,
            drift=_drift(found["drift"]),
            timing=_timing(found["timing"]),
            clock=_clock(found["clock"]),
            mark_sources=self._texts(found["mark_sources"]),
            value_sources=self._texts(found["value_sources"]),
            absent=self._texts(found["absent"]),
            bases=self._texts(found["bases"]),
            **{name: choices[found[name]] for name, choices in _CHOICES.items()},
        )

    def _texts(self, found: dict[str, Any]) -> dict[str, str]:
        if not _TEXT.issuperset(map(type, found.values())):
            raise _UnusualError
        return self._shared(found)

    def _shared(self, texts: dict[str, str]) -> dict[str, str]:
        key = tuple(texts.items())
        known = self._maps.get(key)
        if known is None:
            known = texts
            if len(self._maps) < _REMEMBERED:
                self._maps[key] = texts
        return known


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    values = found.values()
    kinds = set(map(type, values))
    if not found:
        return found
    if not kinds <= _NUMBERS or min(values) < -LARGEST or max(values) > LARGEST:
        raise _UnusualError
    return {name: float(value) for name, value in found.items()} if int in kinds else found


def _optional_number(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in _NUMBERS or not -LARGEST <= value <= LARGEST:
        raise _UnusualError
    return float(value)


def _drift(told: Mapping[str, Any] | None) -> Drift | None:
    if told is None:
        return None
    if type(told["basis"]) is not str:
        raise _UnusualError
    return Drift(told["basis"])


def _timing(told: Mapping[str, Any] | None) -> Timing | None:
    return None if told is None else Timing(*[_optional_number(told.get(n)) for n in _TIMING])


def _clock(told: Mapping[str, Any] | None) -> Clock | None:
    if told is None:
        return None
    return Clock(_optional_number(told.get("client_uncertainty_seconds")))
