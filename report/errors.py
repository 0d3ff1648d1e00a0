"""The errors of this package: a source that cannot be reported on.

What comes in: where, what and how to mend it. What goes out: one line for a terminal.
It must not know what a source is made of.
"""

from __future__ import annotations


class ReportError(ValueError):
    """A source that cannot be read, is not whole, or says something impossible.

    `place` is where, `problem` what is wrong there and `fix` what the reader can do about it.
    `str()` joins the three in one line.
    """

    def __init__(self, place: str, problem: str, fix: str) -> None:
        super().__init__(f"{place}: {problem}; {fix}")
        self.place = place
        self.problem = problem
        self.fix = fix


class BundleError(ReportError):
    """A bundle; `place` is `PATH`, `PATH/FILE` or `PATH/FILE:LINE` (lines from 1)."""


class PrometheusError(ReportError):
    """A Prometheus, or a window of one; `place` is its URL without credentials."""


class InputError(ReportError):
    """A file or a name that was given beside the source; `place` says which."""
