"""One line of `turns.jsonl` → what is counted of its turn.

What comes in: the bytes of a line. What goes out: a `Line`, whose fields all have their types, or
None where the schema has to look at the line (`read_turn`), which accepts it or names what is
wrong. It must not know other turns.

A million turns are 3 GB of JSON, so the parser is told what to keep: numbers become fields of
fixed place, and the maps of texts, which repeat from turn to turn, stay bytes until they are
needed. What it takes, `report.decode` takes as well, and as the same.
"""

# No `from __future__ import annotations`: the annotations are needed at run time.

import math
from typing import Annotated, Final

import msgspec

from exporter import stages
from exporter.stages import InputKind, Outcome, Phase, Scope, Startup
from report.decode import LARGEST, decode, parse
from report.records import Turn

TURN_STAGES: Final = tuple(s for s in stages.STAGES.values() if s.scope is Scope.TURN)
MARKS: Final = tuple(stages.MARKS)

# Exclusive, since an integer beside the limit would be rounded onto it: the schema decides there.
_Number = Annotated[float, msgspec.Meta(gt=-LARGEST, lt=LARGEST)]
_Whole = Annotated[int, msgspec.Meta(gt=-int(LARGEST), lt=int(LARGEST))]


def _row(name: str, keys: tuple[str, ...]) -> type[msgspec.Struct]:
    """An object of numbers; NaN, which JSON cannot spell, for a key that is not there."""
    fields = [(f"n{place}", _Number, math.nan) for place in range(len(keys))]
    return msgspec.defstruct(
        name,
        fields,
        rename={field: key for (field, *_), key in zip(fields, keys, strict=True)},
        # A key that is not known is still checked by the schema.
        forbid_unknown_fields=True,
        gc=False,
    )


class LineDrift(msgspec.Struct, gc=False):
    """See `report.records.Drift`."""

    basis: str


class LineClock(msgspec.Struct, gc=False):
    """See `report.records.Clock`."""

    client_uncertainty_seconds: _Number | None = None


class LineTiming(msgspec.Struct, gc=False):
    """See `report.records.Timing`; the same fields in the same order."""

    output_width: _Number | None = None
    output_height: _Number | None = None
    output_fps: _Number | None = None
    chunk_samples: _Number | None = None
    sample_rate: _Number | None = None


class Line(msgspec.Struct, gc=False):
    """See `report.records.Turn`. Every field must be there, and nothing may have gone wrong."""

    session: str
    turn: _Whole
    outcome: Outcome
    marks: _row("Marks", MARKS)  # type: ignore[valid-type]
    """By place, as `MARKS`."""
    values: _row("Values", tuple(stage.key for stage in TURN_STAGES))  # type: ignore[valid-type]
    """By place, as `TURN_STAGES`."""
    phase: Phase | None
    startup: Startup | None
    input: InputKind | None
    model: str | None
    backend: str | None
    avatar: str | None
    trace_id: str | None
    error: None
    drift: LineDrift | None
    timing: LineTiming | None
    clock: LineClock | None
    mark_sources: msgspec.Raw
    value_sources: msgspec.Raw
    absent: msgspec.Raw
    bases: msgspec.Raw


_LINE: Final = msgspec.json.Decoder(Line)
_TEXTS: Final = msgspec.json.Decoder(dict[str, str])


def read_line(line: bytes) -> Line | None:
    """What is counted of a turn; None where the schema has to look."""
    # Only an escape can spell half of a surrogate pair, which is no text; and the parser does not
    # look whether what it skips is UTF-8.
    if b"\\" in line:
        return None
    try:
        if not line.isascii():
            line.decode("utf-8")
        return _LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_texts(raw: msgspec.Raw) -> dict[str, str] | None:
    """A map of texts of a line; None where it is none."""
    try:
        return _TEXTS.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def read_turn(line: bytes) -> Turn:
    """The turn of a line, by the schema. Raises `DecodeError` that names the field."""
    return decode(Turn, parse(line))
