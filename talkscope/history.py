"""`talkscope history`: a trend page and the results table of a folder of bundles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from talkscope.status import CommandError, Status

DESCRIPTION = """\
Reads every run bundle in a folder (RUN/, RUN/bundle/ and .tar.gz), prints OpenTalking's results
table with one row a run, and writes a page that shows TTFA, TTFV, frame rate and VRAM over time by
model and hardware. A bundle that cannot be read is listed with its reason.
"""

EPILOG = """\
example:
  talkscope history runs --out history.html > results.md

exit status: 0 all bundles were read   2 some could not be   64 wrong usage
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "history",
        help="show how the runs of a folder developed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of bundles")
    parser.add_argument("--out", type=Path, metavar="HTML", help="write the trend page there")
    parser.set_defaults(run=run)


def run(told: argparse.Namespace) -> Status:
    """Print the table and write the page."""
    from report import ReportError, history

    try:
        found = history.read(told.folder)
    except ReportError as error:
        raise CommandError(str(error), Status.USAGE) from error
    print(history.table(found), end="")
    if told.out is not None:
        try:
            told.out.write_text(history.page(found), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write the page: {error}") from error
    return Status.NOT_ENOUGH_DATA if found.unread else Status.GOOD
