"""The report: a run bundle or a window of Prometheus in, the page's template and a verdict out.

`build` reads a bundle and computes its `Result`, `window.read` does the same for Prometheus;
`write` lays down the files; `compare` sets two results against one another. Standard
library, msgspec and NumPy only.

    bundle.py      files → verified records     (archive.py, lines.py, decode.py, records.py,
                                                 turn_lines.py, turn_table.py, samples.py)
    result.py      records → Result             (summary.py, values.py, memory.py, absence.py)
    window.py      Prometheus → Result          (prometheus.py, counters.py)
    row.py         Result → a row of the page   (page.py, figures.py)
    files.py       Result → files               (markdown.py, tables.py, html.py, svg.py, web.py,
                                                 document.py)
    compare.py     two Results → a verdict      (statistics.py, compare_text.py)
    slo.py         Result → pass or fail
    published.py, external.py   what may stand beside a Result (extras.py)
    history.py     many Results → a trend page
"""

from report.errors import BundleError, ReportError
from report.files import Paths, build, write
from report.result import Result

__all__ = ["BundleError", "Paths", "ReportError", "Result", "build", "write"]
