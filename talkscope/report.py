"""`talkscope report`: the report of a run bundle, or of a window of Prometheus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkscope.arguments import http_url, instant, seconds
from talkscope.status import CommandError, Status

if TYPE_CHECKING:
    from report.extras import Extras
    from report.result import Result

DESCRIPTION = """\
Fills OpenTalking's result template from a run bundle (a folder, or the .tar.gz of one) or from a
window of a Prometheus that scrapes the exporter. The same bundle gives the same report, byte for
byte. A bundle's figures are exact; quantiles from Prometheus are read from histograms and say
within which bounds the exact ones lie.
"""

EPILOG = """\
examples:
  talkscope report run/bundle               print it
  talkscope report run/bundle --out report  and write report.md, report.html, result.json and .csv,
                                            and pack the bundle
  talkscope report run.tar.gz --reference "RTX 4090/quicktalk" --slo slo.yaml
  talkscope report --prometheus http://prometheus:9090 --model quicktalk \\
      --from 2026-05-20T10:00Z --to 2026-05-20T12:00Z

exit status:
  0 good   1 a turn failed or an objective is broken   2 not enough data   3 the run measured its
  load generator   64 wrong usage
How to read a report: docs/report.md.
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="make the report of a run bundle, or of a window of Prometheus",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", nargs="?", help="folder or .tar.gz of a run"
    )
    add_prometheus(parser)
    window = parser.add_argument_group("which window (with --prometheus)")
    window.add_argument(
        "--from", dest="begin", type=instant, metavar="TIME", help="2026-05-20T10:00Z"
    )
    window.add_argument("--to", dest="end", type=instant, metavar="TIME")
    beside = parser.add_argument_group("what else the report shows")
    beside.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="HARDWARE/MODEL",
        help="a row that OpenTalking's benchmark page publishes; may be repeated",
    )
    beside.add_argument(
        "--external",
        action="append",
        default=[],
        type=Path,
        metavar="JSON",
        help="a result of quicktalk_bench.py, omnirt bench, FlashTalk, FlashHead; may be repeated",
    )
    beside.add_argument(
        "--slo",
        type=Path,
        metavar="YAML",
        help="objectives to judge: pass, fail or not enough data",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write the files there")
    parser.add_argument(
        "--upstream-csv",
        action="store_true",
        help="write result.csv with the headings of OpenTalking's own script",
    )
    parser.set_defaults(run=run)


def add_prometheus(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose turns of a Prometheus."""
    group = parser.add_argument_group("from Prometheus instead of a bundle")
    group.add_argument("--prometheus", type=http_url, metavar="URL", help="its base URL")
    group.add_argument("--model", metavar="ID", help="only turns of this model")
    group.add_argument("--backend", metavar="NAME", help="only turns of this backend")
    group.add_argument(
        "--run", dest="label_run", metavar="NAME", help="only series with the label run=NAME"
    )
    group.add_argument(
        "--prometheus-timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="longest wait for one answer (%(default).0f)",
    )


def run(told: argparse.Namespace) -> Status:
    """Print the report; return the verdict's status."""
    if (told.bundle is None) == (told.prometheus is None):
        raise CommandError("give either a BUNDLE or --prometheus URL", Status.USAGE)
    if told.prometheus is None:
        if told.begin is not None or told.end is not None:
            raise CommandError("--from and --to go with --prometheus", Status.USAGE)
        return make(told.bundle, told.out, told)
    if told.begin is None or told.end is None:
        raise CommandError("--prometheus needs --from and --to", Status.USAGE)
    from report import ReportError

    try:
        result = window(told, told.begin, told.end)
    except ReportError as error:
        raise CommandError(str(error), Status.NOT_ENOUGH_DATA) from error
    return _show(result, told.out, None, told)


def window(told: argparse.Namespace, begin: float, end: float) -> Result:
    """The result of a window. Raises `report.ReportError`."""
    from report.prometheus import Prometheus
    from report.window import Selection, read

    client = Prometheus(told.prometheus, timeout=told.prometheus_timeout)
    return read(client, begin, end, Selection(told.model, told.backend, told.label_run))


def make(bundle: Path, out: Path | None, told: argparse.Namespace | None = None) -> Status:
    """Print a bundle's report and write its files into `out`, if any.

    `told` holds what stands beside it, if anything. Raises `CommandError`: not enough data when the
    bundle is not whole, failed when a file cannot be written.
    """
    from report import BundleError, build

    try:
        result = build(bundle)
    except BundleError as error:
        raise CommandError(str(error), Status.NOT_ENOUGH_DATA) from error
    return _show(result, out, bundle, told)


def _show(
    result: Result, out: Path | None, bundle: Path | None, told: argparse.Namespace | None
) -> Status:
    from report import BundleError, write
    from report.extras import NOTHING
    from report.markdown import render
    from report.slo import worst

    extras = NOTHING if told is None else _extras(result, told)
    print(render(result, extras))
    if out is not None:
        upstream = told is not None and told.upstream_csv
        try:
            paths = write(result, out, bundle, extras, upstream_csv=upstream)
        except BundleError as error:
            raise CommandError(str(error), Status.NOT_ENOUGH_DATA) from error
        except OSError as error:
            raise CommandError(f"cannot write the report: {error}") from error
        print(f"report:  {paths.report}")
        print(f"         {paths.html}")
        print(f"result:  {paths.result_json}")
        print(f"         {paths.result_csv}")
        if paths.archive is not None:
            print(f"bundle:  {paths.archive}")
    if result.invalid:
        return Status.INVALID
    statuses = {result.verdict.status.exit_status, worst(extras.checks).exit_status}
    return next((s for s in (Status.FAILED, Status.NOT_ENOUGH_DATA) if s in statuses), Status.GOOD)


def _extras(result: Result, told: argparse.Namespace) -> Extras:
    """What was asked to stand beside the report."""
    from report import ReportError, external, published, slo
    from report.extras import Extras

    try:
        return Extras(
            references=tuple(
                published.beside(result, published.find(words)) for words in told.reference
            ),
            externals=tuple(external.read(path) for path in told.external),
            checks=() if told.slo is None else tuple(slo.check(result, _objectives(told.slo))),
        )
    except ReportError as error:
        raise CommandError(str(error), Status.USAGE) from error
    except slo.SloError as error:
        raise CommandError(f"{told.slo}: {error}", Status.USAGE) from error


def _objectives(path: Path) -> Any:
    import yaml

    from report import slo

    try:
        return slo.read(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandError(f"{path}: cannot be read ({error.strerror})", Status.USAGE) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise CommandError(f"{path}: is not YAML ({told})", Status.USAGE) from error
