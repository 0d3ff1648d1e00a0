"""`talkscope compare`: is the second run worse than the first, and which stage moved."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import stages
from talkscope import report
from talkscope.arguments import instant, min_change
from talkscope.status import CommandError, Status

if TYPE_CHECKING:
    from report.result import Result

DESCRIPTION = """\
Compares B with A, two run bundles or two windows of a Prometheus, stage by stage. The verdict rests
on one metric, the time to first video, and on how often turns fail; the other stages say where a
change comes from. A verdict is only given where the turns prove it, and else how many it takes.
"""

EPILOG = """\
examples:
  talkscope compare before/bundle after/bundle
  talkscope compare before.tar.gz after.tar.gz --min-change 50ms --metric first_turn_total_ms
  talkscope compare A B --github-summary >> "$GITHUB_STEP_SUMMARY"
  talkscope compare --prometheus http://prometheus:9090 --model quicktalk \\
      2026-05-19T10:00Z/2026-05-19T12:00Z 2026-05-20T10:00Z/2026-05-20T12:00Z

exit status:
  0 better or no regression   1 regression   2 not enough data   3 invalid: a run measured its load
  generator, or a made-up run is compared with a real one   64 wrong usage
The method is stated below each comparison and explained in docs/report.md.
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "compare",
        help="say whether a run is worse than another, and which stage moved",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    side = "folder or .tar.gz; with --prometheus a window FROM/TO"
    parser.add_argument("before", metavar="A", help=side)
    parser.add_argument("after", metavar="B", help=side)
    parser.add_argument(
        "--metric",
        metavar="KEY",
        help="what the verdict rests on (default: the first that both sides have of "
        f"{stages.PERCEIVED_TTFV.key}, {stages.FIRST_TURN_TOTAL.key}, {stages.TTFV.key})",
    )
    parser.add_argument(
        "--min-change",
        type=min_change,
        default=None,
        metavar="CHANGE",
        help="least change that matters: a share of A's median such as 5%%, or 50ms (default: 5%%)",
    )
    parser.add_argument(
        "--github-summary", action="store_true", help="print Markdown for a step summary"
    )
    report.add_prometheus(parser)
    parser.set_defaults(run=run)


def run(told: argparse.Namespace) -> Status:
    """Print the comparison; return its status."""
    from report import ReportError
    from report.compare import MIN_CHANGE, MinChange, compare
    from report.compare_text import render

    metric = None
    if told.metric is not None:
        metric = stages.STAGES.get(told.metric)
        if metric is None or metric.scope is stages.Scope.RUN:
            known = ", ".join(
                key for key, stage in stages.STAGES.items() if stage.scope is not stages.Scope.RUN
            )
            raise CommandError(f"--metric {told.metric!r} is none of: {known}", Status.USAGE)
    least = MinChange(MIN_CHANGE)
    if told.min_change is not None:
        amount, relative = told.min_change
        least = MinChange(amount, relative)
    try:
        before, after = (_side(told, name) for name in (told.before, told.after))
    except ReportError as error:
        raise CommandError(str(error), Status.NOT_ENOUGH_DATA) from error
    found = compare(before, after, names=(told.before, told.after), metric=metric, least=least)
    print(render(found, github=told.github_summary), end="")
    return Status(found.conclusion.exit_status)


def _side(told: argparse.Namespace, name: str) -> Result:
    """The result that an argument means. Raises `report.ReportError`."""
    from report import build

    if told.prometheus is None:
        return build(Path(name))
    begin, slash, end = name.partition("/")
    if not slash:
        raise CommandError(f"{name!r} is no window FROM/TO", Status.USAGE)
    try:
        return report.window(told, instant(begin), instant(end))
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"{name!r}: {error}", Status.USAGE) from error
