"""JSON text → typed records: the only place where a bundle's types are checked.

What comes in: bytes of one JSON document, and a dataclass whose annotations are the schema.
What goes out: an instance of it, or a `DecodeError` that names the field.
It must not know files, lines or what any field means.

Annotations understood: `str`, `bool`, `int`, `float`, a `StrEnum`, a dataclass, `dict[str, X]`,
`tuple[X, ...]` and `X | None`. A field that is not in the JSON takes its default, or None where
its annotation allows None, and is an error otherwise. Fields the dataclass does not have are
ignored, so that a newer writer may add some. No value is coerced: a number in quotes, a NaN
or a boolean in the place of a number is an error, never a zero.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, NoReturn, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST: Final = 1e18
"""No time, size or rate of a run comes near it, and sums of such numbers stay finite."""

_SHOWN: Final = 40
"""Characters of an offending value that an error quotes."""


class DecodeError(ValueError):
    """`field` (dotted, empty for the document itself) does not hold what its schema says."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}" if field else problem)
        self.field = field
        self.problem = problem


def parse(data: bytes) -> object:
    """One JSON document from UTF-8 bytes; `DecodeError` when it is none.

    `NaN` and `Infinity`, which Python's parser takes though JSON has no such numbers, are
    refused.
    """
    try:
        return _PARSER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DecodeError("", f"is not UTF-8 (byte {error.start + 1})") from error
    except RecursionError as error:
        raise DecodeError("", "is nested too deeply") from error
    except DecodeError:
        raise
    except ValueError as error:
        raise DecodeError("", f"is not JSON ({error})") from error


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError("", f"holds {name}, which is not a number")


_PARSER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""One for all documents: making one takes as long as parsing a short line."""


def decode(schema: type[T], value: object) -> T:
    """`value` (as `parse` returns it) as an instance of the dataclass `schema`.

    Raises `DecodeError` at the first field that does not fit.
    """
    instance: T = _record(schema, value, "")
    return instance


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _record(schema: Any, value: object, field: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(field, value, "an object")
    hints = _hints(schema)
    arguments = {}
    for part in fields(schema):
        inner = f"{field}.{part.name}" if field else part.name
        hint = hints[part.name]
        if part.name in value:
            arguments[part.name] = _convert(hint, value[part.name], inner)
        elif part.default is MISSING and part.default_factory is MISSING:
            if NoneType not in get_args(hint):
                raise DecodeError(inner, "is missing")
            arguments[part.name] = None
    return schema(**arguments)


def _convert(hint: Any, value: object, field: str) -> Any:
    origin = get_origin(hint)
    if origin is UnionType:
        if value is None:
            return None
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
        return _convert(hint, value, field)
    if origin is dict:
        return _mapping(get_args(hint)[1], value, field)
    if origin is tuple:
        if not isinstance(value, list):
            raise _unfit(field, value, "a list")
        inner = get_args(hint)[0]
        return tuple(_convert(inner, item, f"{field}[{i}]") for i, item in enumerate(value))
    if is_dataclass(hint):
        return _record(hint, value, field)
    return _scalar(hint, value, field)


def _mapping(hint: Any, value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unfit(field, value, "an object")
    mapping = {}
    for key, item in value.items():
        inner = f"{field}.{key if key.isprintable() else repr(key)}"
        mapping[_text(key, inner)] = _convert(hint, item, inner)
    return mapping


def _scalar(hint: Any, value: object, field: str) -> Any:
    if hint is str:
        return _text(value, field)
    if hint is bool:
        if not isinstance(value, bool):
            raise _unfit(field, value, "true or false")
        return value
    if hint is int or hint is float:
        return hint(_number(value, field, whole=hint is int))
    if issubclass(hint, StrEnum):
        try:
            return hint(_text(value, field))
        except ValueError:
            options = ", ".join(hint)
            raise _unfit(field, value, f"one of {options}") from None
    raise TypeError(f"{field}: {hint!r} is no annotation this module understands")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _unfit(field, value, "a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair, which no file can hold.
        raise _unfit(field, value, "Unicode text") from None
    return value


def _number(value: object, field: str, *, whole: bool) -> int | float:
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise _unfit(field, value, kind)
    assert isinstance(value, int | float)
    # 1e999 is well-formed JSON that reads as infinity.
    if not abs(value) <= LARGEST or not math.isfinite(value):
        raise DecodeError(field, f"is out of range (|x| ≤ {LARGEST:g})")
    return value


def _unfit(field: str, value: object, expected: str) -> DecodeError:
    if isinstance(value, dict | list):
        # Not quoted: it may be of any size and depth.
        shown = "an object" if isinstance(value, dict) else "a list"
    else:
        shown = json.dumps(value)
        if len(shown) > _SHOWN:
            shown = shown[: _SHOWN - 1] + "…"
    return DecodeError(field, f"is {shown} where {expected} is expected")
