"""The synthetic avatar's frame number, read from a decoded picture's luma.

What comes in: a decoded frame. What goes out: its number, or None when it carries none. It must
not know RTP, sessions or who drew the number; the drawing side is `deploy/demo/barcode.py`.

Layout: two rows of 16 cells over the full width at the very top. Each row is `height // 16`
pixels high, at least 16, rounded to a multiple of 16. Row 1 is the number modulo 65536, most
significant bit left, white is 1; row 2 is its complement. A picture whose second row is not the
complement of the first carries no number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

BITS: Final = 16
MODULUS: Final = 1 << BITS

_MACROBLOCK = 16
_THRESHOLD = 128
_SAMPLES = 4
"""Pixels taken from a cell in each direction, from its middle half, clear of blurred edges."""


def row_height(height: int) -> int:
    """Return the height in pixels of each row in a picture of this height (pixels)."""
    return _MACROBLOCK * max(1, (height // 16 + _MACROBLOCK // 2) // _MACROBLOCK)


def read(frame: av.VideoFrame) -> int | None:
    """Return the frame number in a decoded picture with a luma plane of 8 bits, or None."""
    plane = frame.planes[0]
    luma = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
    return read_luma(luma[:, : plane.width])


def read_luma(luma: NDArray[np.uint8]) -> int | None:
    """Return the frame number in a luma picture of shape (height, width), or None."""
    height, width = luma.shape
    if width < 2 * BITS or height < 2 * row_height(height):
        return None
    rows, columns = _sample_points(width, height)
    samples = luma[rows[:, None], columns].reshape(2, _SAMPLES, BITS, _SAMPLES)
    bits = samples.mean(axis=(1, 3)) >= _THRESHOLD
    if (bits[0] == bits[1]).any():
        return None
    return int.from_bytes(np.packbits(bits[0]).tobytes(), "big")


@lru_cache(maxsize=8)
def _sample_points(width: int, height: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels that are looked at."""
    row = row_height(height)
    inside = 0.25 + (np.arange(_SAMPLES) + 0.5) / (2 * _SAMPLES)
    rows = np.concatenate([top + inside * row for top in (0, row)])
    edges = np.arange(BITS + 1) * width // BITS
    columns = (edges[:-1, None] + inside * np.diff(edges)[:, None]).ravel()
    return rows.astype(np.intp), columns.astype(np.intp)
