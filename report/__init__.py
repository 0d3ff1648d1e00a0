"""The report of a benchmark run: a run bundle in, the benchmark page's template filled out.

`build` reads and verifies a bundle and computes its `Result`; `write` lays down `report.md`,
`result.json`, `result.csv` and the packed bundle. Standard library only.

    bundle.py   files → verified records      (archive.py, decode.py, records.py)
    result.py   records → Result              (summary.py, memory.py, absence.py)
    row.py      Result → a row of the page    (page.py, figures.py)
    files.py    Result → files                (markdown.py, tables.py, document.py)
"""

from report.errors import BundleError
from report.files import Paths, build, write
from report.result import Result

__all__ = ["BundleError", "Paths", "Result", "build", "write"]
