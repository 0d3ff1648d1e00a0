"""Keeps Python's garbage collector from stalling a process that receives media.

It must not know what the process does. Reference counting frees most of what a session leaves
(`media.tap` sees to it); the collector only looks for cycles, and a look at all objects of a few
hundred sessions takes 0.1 to 0.2 s, in which nothing else happens.
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (5_000, 20, 10)
"""A look at the youngest 5,000 objects takes 3 ms; one at all follows a million, which is what
some thousand sessions leave."""


def settle() -> None:
    """Look at what is there now for the last time, and more seldom at what comes.

    Call it once, when everything is imported and warmed up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
