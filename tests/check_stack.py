"""`make check-stack`: every check of the stack that needs no container engine, a line each.

What comes in: nothing. What goes out: `ok` or `FAILED` with the seconds, why a test was skipped,
and the output of what failed. Exit status: 0 when all is well, else 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import ROOT

PYTEST = (sys.executable, "-m", "pytest", "-q", "--no-header", "-rs")
SCHEMA = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")


def _checks() -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is checked, and the command that does."""

    def files(pattern: str) -> tuple[str, ...]:
        return tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)))

    yield (
        "generated files are what `python -m grafana` writes",
        (sys.executable, "-m", "grafana", "--check"),
    )
    yield (
        "promtool: configuration",
        ("promtool", "check", "config", "deploy/prometheus/prometheus.yml"),
    )
    yield "promtool: rules", ("promtool", "check", "rules", *files("deploy/prometheus/rules/*.yml"))
    yield (
        "amtool: configuration",
        ("amtool", "check-config", "deploy/alertmanager/alertmanager.yml"),
    )
    yield "compose: schema", (*SCHEMA, "compose.yaml", *files("deploy/compose/*.yaml"))
    yield (
        "compose: merged with every profile and overlay",
        (*PYTEST, "tests/deploy/test_compose.py"),
    )
    yield "kubernetes: schemas", (*PYTEST, "tests/deploy/test_kubernetes.py")
    yield (
        "dashboards: lint",
        (*PYTEST, "tests/grafana/test_queries.py", "tests/grafana/test_generated.py"),
    )
    yield "alerts: fire and stay silent (promtool)", (*PYTEST, "tests/grafana/test_alerts.py")
    yield "alerts: a week of normal days", (*PYTEST, "tests/grafana/test_week.py")
    yield "every panel and alert on a real deployment", (*PYTEST, "tests/e2e/test_stack.py")
    yield "an alert reaches a webhook", (*PYTEST, "tests/e2e/test_alerting.py")


def main() -> int:
    """Run them all, one after the other."""
    failed = 0
    for what, command in _checks():
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            status, said = done.returncode, done.stdout + done.stderr
        except FileNotFoundError:
            status, said = 1, f"{Path(command[0]).name} is not installed: make tools\n"
        word = "FAILED" if status else "ok"
        print(f"{word:6} {what} ({time.monotonic() - began:.0f} s)", flush=True)
        if status:
            failed += 1
            print(said, flush=True)
        else:
            for line in said.splitlines():
                if line.startswith("SKIPPED"):
                    print(f"       {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
