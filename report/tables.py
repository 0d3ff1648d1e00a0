"""Markdown's small parts: text that stays on its line, and tables.

What comes in: strings, some of them from the measured system. What goes out: Markdown that is
also readable in a terminal. It must not know what is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPED = str.maketrans({"|": r"\|", "<": r"\<", "`": r"\`"})


def inline(text: str) -> str:
    """Foreign text as one line that neither breaks a table nor steers a terminal.

    White space becomes one blank, a character that does not print becomes U+FFFD, and what
    would begin a cell, a tag or code is escaped.
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line).translate(
        _ESCAPED
    )


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()
) -> list[str]:
    """Lines of a table whose columns line up in a monospaced font.

    `right` names the headings of the columns that are aligned to the right.
    """
    widths = [
        max(len(heading), 3, *(len(row[i]) for row in rows)) for i, heading in enumerate(headings)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, heading, width in zip(cells, headings, widths, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rules = (
        f"{'-' * (width - 1)}:" if heading in right else "-" * width
        for heading, width in zip(headings, widths, strict=True)
    )
    return [line(headings), f"| {' | '.join(rules)} |", *(line(row) for row in rows)]
