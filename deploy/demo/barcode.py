"""The frame barcode: a 16-bit frame number drawn into a picture so that a viewer can read it back.

What comes in: a frame number and the size of the picture. What goes out: black and white cells, or
the number read back from them. It must not know of video, sessions or who draws: the standard
library is enough for it, and a decoder elsewhere can be written from this page alone.

Layout, for a picture of `width` x `height` pixels, all edges in whole pixels:

* Two rows of 16 cells lie at the very top, over the full width. Both have the same height:
  `height // 16`, at least 16, rounded to the nearest multiple of 16 (half a multiple rounds up).
  256 -> 16, 704 -> 48, 900 -> 64. Row 1 spans y in [0, r), row 2 spans [r, 2r).
* Cell `i` (0 is the leftmost) spans x in [i * width // 16, (i + 1) * width // 16).
* Row 1 holds the frame number modulo 65536, most significant bit at the left: white (255) is 1,
  black (0) is 0. Row 2 holds the bitwise complement of row 1.

To read it, take the mean luma of the middle half of each cell in both directions (that keeps clear
of the blur at cell edges); a mean of at least 128 is 1. The picture carries a frame number only if
row 2 is the complement of row 1 in all 16 cells: any plain area, and most pictures, fail that.

Rows are multiples of 16 high because that is VP8's macroblock: each macroblock belongs to one row
only, so the code survives a low bitrate.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

BITS = 16
MODULUS = 1 << BITS
MACROBLOCK = 16
THRESHOLD = 128


class Cell(NamedTuple):
    """One cell: left and top edges inclusive, right and bottom edges exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class Canvas(Protocol):
    """The one method of `PIL.ImageDraw.ImageDraw` that drawing needs."""

    def rectangle(self, xy: tuple[int, int, int, int], fill: tuple[int, int, int]) -> None: ...


def row_height(height: int) -> int:
    """Return the height in pixels of each of the two rows in a picture of this height."""
    return MACROBLOCK * max(1, (height // 16 + MACROBLOCK // 2) // MACROBLOCK)


def cells(width: int, height: int) -> Iterator[tuple[Cell, Cell]]:
    """Yield the cell of row 1 and the cell of row 2 for each bit, most significant first."""
    row = row_height(height)
    for index in range(BITS):
        left, right = index * width // BITS, (index + 1) * width // BITS
        yield Cell(left, 0, right, row), Cell(left, row, right, 2 * row)


def draw(canvas: Canvas, number: int, width: int, height: int) -> None:
    """Draw `number` modulo 65536 over the top of an RGB picture."""
    for index, pair in enumerate(cells(width, height)):
        one = number >> (BITS - 1 - index) & 1
        for cell, white in zip(pair, (one, not one), strict=True):
            level = 255 if white else 0
            # PIL's rectangle includes its right and bottom edges.
            box = (cell.left, cell.top, cell.right - 1, cell.bottom - 1)
            canvas.rectangle(box, fill=(level, level, level))


def read(luma: Callable[[int, int], int], width: int, height: int) -> int | None:
    """Return the frame number of a picture, or None if it carries none.

    `luma(x, y)` is the brightness of one pixel, 0 to 255.
    """
    number = 0
    for first, second in cells(width, height):
        bit, complement = _is_white(luma, first), _is_white(luma, second)
        if bit == complement:
            return None
        number = number << 1 | bit
    return number


def _is_white(luma: Callable[[int, int], int], cell: Cell) -> bool:
    quarter_x, quarter_y = (cell.right - cell.left) // 4, (cell.bottom - cell.top) // 4
    levels = [
        luma(x, y)
        for y in range(cell.top + quarter_y, cell.bottom - quarter_y)
        for x in range(cell.left + quarter_x, cell.right - quarter_x)
    ]
    return sum(levels) >= THRESHOLD * len(levels)
