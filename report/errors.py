"""The one error of this package: a bundle that cannot be reported on.

What comes in: where, what and how to mend it. What goes out: one line for a terminal.
It must not know what a bundle is made of.
"""

from __future__ import annotations


class BundleError(ValueError):
    """A bundle that cannot be read, is not whole, or says something impossible.

    `place` is `PATH`, `PATH/FILE` or `PATH/FILE:LINE` (lines from 1), `problem` what is wrong
    there and `fix` what the reader can do about it. `str()` joins the three in one line.
    """

    def __init__(self, place: str, problem: str, fix: str) -> None:
        super().__init__(f"{place}: {problem}; {fix}")
        self.place = place
        self.problem = problem
        self.fix = fix
