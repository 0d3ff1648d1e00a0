"""Results of the backends' own benchmarks → figures that stand beside ours, never among them.

What comes in: a JSON file that a backend's tool wrote. What goes out: its figures in its own
words, with the tool and the file they came from. It must not convert, average or compare them:
they are of another boundary than ours.

Tools that are recognised by the members they write:

- OpenTalking's `quicktalk_bench.py`: `init_seconds`, `first_frame_seconds`, `render_fps`, …
- `omnirt bench`: `throughput_rps`, `latency_ms`, `ttft_ms`, `peak_vram`, …
- FlashTalk and FlashHead: chunk times such as `steady_chunk_core_ms_avg`
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from report.decode import DecodeError, parse
from report.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIMIT: Final = 2**24
_MOST: Final = 200

_MARKS_OF: Final = (
    ("QuickTalk local adapter (quicktalk_bench.py)", ("init_seconds", "audio_feature_seconds")),
    ("OmniRT (omnirt bench)", ("throughput_rps", "latency_ms")),
    ("FlashTalk / FlashHead (their own benchmark)", ("chunk_core_ms_avg",)),
    ("FlashTalk / FlashHead (their own benchmark)", ("steady_chunk_core_ms_avg",)),
    ("FlashTalk / FlashHead (their own benchmark)", ("steady_chunk_total_ms_avg",)),
)


@dataclass(frozen=True, slots=True)
class External:
    """What one tool measured."""

    tool: str
    file: str
    """Name of the file, without its folder."""
    sha256: str
    figures: tuple[tuple[str, float], ...]
    """Dotted name, with the unit in it as the tool writes it, and number."""


def read(path: Path) -> External:
    """The figures of a tool's JSON file. Raises `InputError`."""
    place = f"--external {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(place, f"cannot be read ({error.strerror})", "check the path") from error
    if len(data) > _LIMIT:
        raise InputError(place, "is larger than 16 MiB", "give the summary, not the samples")
    try:
        document = parse(data)
    except DecodeError as error:
        raise InputError(place, str(error), "give the JSON that the tool wrote") from error
    if not isinstance(document, dict):
        raise InputError(place, "is no JSON object", "give the JSON that the tool wrote")
    figures = tuple(_figures(document, ""))
    names = {name.rpartition(".")[2] for name, _ in figures} | document.keys()
    tool = next((tool for tool, needed in _MARKS_OF if names.issuperset(needed)), None)
    if tool is None:
        known = ", ".join(dict.fromkeys(tool for tool, _ in _MARKS_OF))
        raise InputError(place, "is of no tool that is known", f"there are: {known}")
    if len(figures) > _MOST:
        raise InputError(place, f"holds {len(figures)} numbers", "give the summary")
    return External(tool, path.name, hashlib.sha256(data).hexdigest(), figures)


def _figures(node: dict[str, object], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in node.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _figures(value, f"{dotted}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield dotted, float(value)
