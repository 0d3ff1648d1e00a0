"""The files of a report.

What comes in: a bundle's path, and the result made from it. What goes out: `report.md`,
`report.html`, `result.json`, `result.csv` and the bundle as one `.tar.gz`. But for the page with
plots, the names are those that the benchmark page tells its readers to look for. It must not know
what a result says.

The same bundle, folder or archive, gives the same bytes: nothing here asks for the time. Each
file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from report import bundle as bundles
from report import html
from report.absence import Missing
from report.archive import pack
from report.document import document
from report.errors import BundleError
from report.extras import NOTHING, Extras
from report.markdown import render
from report.result import Result, summarise_bundle
from report.row import row, upstream_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """What `write` has written."""

    report: Path
    """`report.md`, for people."""
    html: Path
    """`report.html`: the same with plots, in one file that needs no network."""
    result_json: Path
    """`result.json`; `report.document` has its schema."""
    result_csv: Path
    """`result.csv`: the page's twenty headings and one row; RFC 4180, UTF-8."""
    archive: Path | None
    """The bundle as `RUN_ID.tar.gz`; None without one."""


def build(bundle_path: Path) -> Result:
    """The result of the bundle at `bundle_path`, a folder or a `.tar.gz`.

    Raises `BundleError` when the bundle cannot be reported on.
    """
    return summarise_bundle(bundles.read(bundle_path))


def write(
    result: Result,
    out_dir: Path,
    bundle_path: Path | None,
    extras: Extras = NOTHING,
    *,
    upstream_csv: bool = False,
) -> Paths:
    """Write the report of `result` and pack its bundle into `out_dir`, which is made if needed.

    Without a bundle, of a window of Prometheus, there is no archive. With `upstream_csv` the CSV
    file has the headings of OpenTalking's own script instead of the page's.

    `out_dir` may be the bundle itself: its manifest does not name the report's files, so they
    do not become part of it. Raises `BundleError` when the bundle cannot be read or is not the
    one that `result` was made from, and `OSError` when a file cannot be written.
    """
    name = file_name(result.run_id)
    paths = Paths(
        report=out_dir / "report.md",
        html=out_dir / "report.html",
        result_json=out_dir / "result.json",
        result_csv=out_dir / "result.csv",
        archive=out_dir / f"{name}.tar.gz" if bundle_path else None,
    )
    if bundle_path and paths.archive:
        _pack(result, bundle_path, name, paths.archive)
    out_dir.mkdir(parents=True, exist_ok=True)
    _replace(paths.result_json, json_text(result, extras).encode())
    _replace(paths.result_csv, csv_text(result, upstream=upstream_csv).encode())
    _replace(paths.html, html.render(result, extras).encode())
    _replace(paths.report, render(result, extras).encode())
    return paths


def _pack(result: Result, bundle_path: Path, name: str, archive: Path) -> None:
    # The store is held: the files of an archive are gone with it.
    _store, sha256, files = bundles.verified_files(bundle_path)
    if sha256 != result.manifest_sha256:
        raise BundleError(
            str(bundle_path),
            f"is not the bundle of this result (run {result.run_id})",
            "give the one it was built from",
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with _replaced(archive) as stream:
        pack(name, files, stream)


def json_text(result: Result, extras: Extras = NOTHING) -> str:
    """`result.json` as text."""
    text = json.dumps(document(result, extras), ensure_ascii=False, allow_nan=False, indent=2)
    return text + "\n"


def csv_text(result: Result, *, upstream: bool = False) -> str:
    """`result.csv` as text, with the page's headings or upstream's; a cell that was not measured
    is empty."""
    found = upstream_row(result) if upstream else row(result)
    cells: dict[str, str | Missing] = {str(column): cell for column, cell in found.items()}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(cells)
    writer.writerow("" if isinstance(cell, Missing) else cell for cell in cells.values())
    return text.getvalue()


def file_name(run_id: str) -> str:
    """A run id as a plain file name of at most 64 characters."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", run_id).lstrip(".-")[:64] or "bundle"


def _replace(path: Path, data: bytes) -> None:
    with _replaced(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes take the place of a file when they are all written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
