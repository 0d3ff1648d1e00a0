"""`make screenshots`: run the real target under load, and write what the dashboards show then."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from grafana.__main__ import ROOT
from tests.processes import program
from tests.screenshots import pictures, recorded, run

BUILD = ROOT / "build" / "screenshots"
NEEDED = {
    "node": "nodejs",
    "npm": "npm",
    "chromium": "chromium",
    "prometheus": "prometheus",
    "redis-server": "redis-server",
}
"""Programs, and the packages that they come in."""


def main() -> int:
    """Record, draw, and name the files; exit status 1 with the cause when that was not possible."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots", metavar="DIR")
    parser.add_argument(
        "--again", action="store_true", help="draw what was recorded the last time, without a run"
    )
    told = parser.parse_args()
    record = BUILD / "boards.json"
    try:
        for name, package in NEEDED.items():
            program(name, package)
        page = pictures.bundle(BUILD)
        if not told.again:
            with (
                tempfile.TemporaryDirectory(prefix="talkscope-screenshots-") as folder,
                run.watched(Path(folder)) as (prometheus, start, end),
            ):
                record.write_text(json.dumps(recorded.boards(prometheus, start, end)))
        if not record.exists():
            raise RuntimeError(f"{record} is not there; run without --again")
        told.out.mkdir(parents=True, exist_ok=True)
        for path in pictures.take(page, json.loads(record.read_text()), told.out):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    except (RuntimeError, TimeoutError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
