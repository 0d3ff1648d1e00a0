"""The results that OpenTalking's benchmark page publishes, to stand beside a run's own.

What comes in: the words of `--reference`, and a `Result`. What goes out: the published row, ours
beside it, and in what the two settings differ. It must not average anything, nor show anything.

The rows are data (`published.json`), in the page's words; its three tables hold rows of three
kinds. Only those of the results table have the columns that can be compared number by number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from report.absence import Missing
from report.errors import InputError
from report.page import Column
from report.row import row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from report.result import Result

_RESULTS: Final = "Test Results"
_COMBINATIONS: Final = "Tested Combinations"
_GUIDE: Final = "Benchmark Results Reference"

_GUIDE_COLUMNS: Final = {
    "Output resolution": Column.RESOLUTION,
    "Cold start": Column.COLD_START,
    "Warmup": Column.WARMUP,
    "TTFA": Column.TTFA,
    "TTFV": Column.TTFV,
    "First-turn total latency": Column.FIRST_TURN,
    "Steady FPS": Column.STEADY_FPS,
    "VRAM usage": Column.PEAK_VRAM,
}
"""Rows of the reference table → the column they are the value of; RTF has none."""

_SETTING: Final = (
    *(Column.MODEL, Column.TECHNIQUE, Column.BACKEND, Column.HARDWARE, Column.OS, Column.DRIVER),
    *(Column.COMMIT, Column.INPUT, Column.RESOLUTION, Column.FPS, Column.CHUNK),
)
"""What was measured; the other columns are how it fared."""

_FIGURES: Final = tuple(c for c in Column if c not in _SETTING and c is not Column.DATE)


@dataclass(frozen=True, slots=True)
class Published:
    """One published row."""

    name: str
    """`HARDWARE/MODEL/RESOLUTION`, or `HARDWARE/PATH` of the table of combinations."""
    section: str
    """Of the page."""
    cells: Mapping[Column, str]
    """What the row says, in the page's words."""
    words: str
    """What it says that is in no column."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Our row beside a published one."""

    published: Published
    figures: tuple[tuple[Column, str, str | Missing], ...]
    """Column, theirs and ours."""
    mismatches: tuple[str, ...]
    """In what the settings differ, or are not known to agree, in words."""


@cache
def _data() -> tuple[str, tuple[Published, ...]]:
    text = resources.files("report").joinpath("published.json").read_text(encoding="utf-8")
    document = json.loads(text)
    found: list[Published] = []
    for table in document["tables"]:
        section, headings, rows = table["section"], table["headings"], table["rows"]
        if section == _RESULTS:
            found += [_result(dict(zip(map(Column, headings), r, strict=True))) for r in rows]
        elif section == _COMBINATIONS:
            found += [_combination(*r) for r in rows]
        else:
            found.append(_guide(headings[1].removesuffix(" Reference"), rows))
    return document["origin"], tuple(found)


def _result(cells: dict[Column, str]) -> Published:
    name = "/".join(cells[c] for c in (Column.HARDWARE, Column.MODEL, Column.RESOLUTION))
    return Published(name, _RESULTS, cells, "")


def _combination(path: str, hardware: str, data: str, notes: str) -> Published:
    return Published(f"{hardware}/{path}", _COMBINATIONS, {}, f"{data}. {notes}")


def _guide(hardware: str, rows: list[list[str]]) -> Published:
    cells = {Column.HARDWARE: hardware, Column.MODEL: "quicktalk"}
    words = []
    for metric, value, meaning in rows:
        column = _GUIDE_COLUMNS.get(metric)
        if column is None:
            words.append(f"{metric} {value} ({meaning})")
        elif column is Column.RESOLUTION:
            resolution, _, fps = value.partition(" / ")
            cells[column], cells[Column.FPS] = resolution, fps.removesuffix("fps")
        else:
            cells[column] = value.partition(" ")[0]
    return Published(f"{hardware} Reference/quicktalk", _GUIDE, cells, "; ".join(words))


def origin() -> str:
    """Where the rows were read."""
    return _data()[0]


def published() -> tuple[Published, ...]:
    """Every published row, in the page's order."""
    return _data()[1]


def find(words: str) -> Published:
    """The row that `HARDWARE/MODEL`, or `HARDWARE/MODEL/RESOLUTION`, means; case does not matter.

    Raises `InputError`, which lists the rows, when it means none or several.
    """
    asked = words.casefold().split("/")
    exact = [one for one in published() if _parts(one)[: len(asked)] == asked]
    found = exact or [one for one in published() if all(p in one.name.casefold() for p in asked)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f'"{one.name}"' for one in (found or published()))
    problem = f"means {len(found)} published rows" if found else "means no published row"
    raise InputError(f'--reference "{words}"', problem, f"choose of: {names}")


def _parts(one: Published) -> list[str]:
    return one.name.casefold().split("/")


def beside(result: Result, reference: Published) -> Beside:
    """The two rows; a cell of the setting that differs, or that one of them lacks, is told."""
    ours = row(result)
    told = []
    for column in _SETTING:
        theirs, own = reference.cells.get(column), ours[column]
        if theirs is None:
            continue
        if isinstance(own, Missing):
            told.append(f"{column}: published {theirs}, ours unknown ({own.reason})")
        elif own != theirs:
            told.append(f"{column}: published {theirs}, ours {own}")
    if result.synthetic or result.stand_ins:
        told.append("ours is not of a real deployment")
    return Beside(
        reference,
        tuple((c, reference.cells[c], ours[c]) for c in _FIGURES if c in reference.cells),
        tuple(told),
    )
