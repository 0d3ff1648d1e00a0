"""Numbers as text.

What comes in: finite numbers. What goes out: the shortest text that keeps the digits a reader
needs. It must not know what a number measures.
"""

from __future__ import annotations

from typing import Final

GIB: Final = 2**30
"""The page's columns say GB and hold GiB."""


def figure(value: float) -> str:
    """Three significant digits below 100, whole numbers from there on: 1374, 29.2, 0.000421.

    For tables that people read. A value that is not zero never reads as zero.
    """
    size = abs(value)
    if size < 1.0:
        return _plain(f"{value:.3g}")
    return _plain(f"{value:.{2 if size < 10.0 else 1 if size < 100.0 else 0}f}")


def exact(value: float) -> str:
    """Three decimals at most, as in the page's rows: 1374.507, 29.23, 1661."""
    text = _plain(f"{value:.3f}")
    return figure(value) if text == "0" else text


def gib(value: float) -> str:
    """Bytes as GiB, as in the page's rows: 7.928, 1.41."""
    return exact(value / GIB)


def _plain(text: str) -> str:
    if "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
