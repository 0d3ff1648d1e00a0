"""`talkscope report`: makes the report of a run bundle again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from talkscope.status import CommandError, Status


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="make the report of a run bundle",
        description="Reads a run bundle, a folder or the .tar.gz of one, and fills OpenTalking's "
        "result template from it. The same bundle gives the same report, byte for byte.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder or .tar.gz")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write report.md, result.json, result.csv and the bundle's .tar.gz there",
    )
    parser.set_defaults(run=run)


def run(told: argparse.Namespace) -> Status:
    """Print the report; return the verdict's status."""
    return make(told.bundle, told.out)


def make(bundle: Path, out: Path | None) -> Status:
    """Print a bundle's report and write its files into `out`, if any.

    Raises `CommandError`: not enough data when the bundle is not whole, failed when a file
    cannot be written.
    """
    from report import BundleError, build, write
    from report.markdown import render

    try:
        result = build(bundle)
        print(render(result))
        if out is not None:
            paths = write(result, out, bundle)
            print(f"report:  {paths.report}")
            print(f"result:  {paths.result_json}")
            print(f"         {paths.result_csv}")
            print(f"bundle:  {paths.archive}")
    except BundleError as error:
        raise CommandError(str(error), Status.NOT_ENOUGH_DATA) from error
    except OSError as error:
        raise CommandError(f"cannot write the report: {error}") from error
    return Status(result.verdict.status.exit_status)
