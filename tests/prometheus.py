"""A real Prometheus for tests, and promtool's opinion of an exposition."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.processes import free_port, process, program, wait_until

INTERVAL = "1s"
"""Of scrapes, and of groups of rules that name none."""


def configuration(
    target: str, rules: Sequence[Path], alertmanager: str | None, remote_write: str | None
) -> dict[str, Any]:
    """What Prometheus is told; addresses are HOST:PORT, `remote_write` is a URL."""
    alerting = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(path) for path in rules],
        "alerting": {"alertmanagers": alerting},
        "scrape_configs": [
            {"job_name": "talkscope", "static_configs": [{"targets": [target]}]},
        ],
        "remote_write": [{"url": remote_write}] if remote_write else [],
    }


class Prometheus:
    """The HTTP API of one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """An instant query: label values, sorted by label, without the name → value."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        found = {}
        for series in answer["data"]["result"]:
            labels = sorted((k, v) for k, v in series["metric"].items() if k != "__name__")
            found[tuple(v for _, v in labels)] = float(series["value"][1])
        return found

    def exemplars(self, selector: str, start: float, end: float) -> list[dict[str, Any]]:
        """The exemplars of these series between two Unix times."""
        parameters: dict[str, str | float] = {"query": selector, "start": start, "end": end}
        answer = httpx.get(f"{self.url}/api/v1/query_exemplars", params=parameters)
        found = answer.raise_for_status().json()["data"]
        return [exemplar for series in found for exemplar in series["exemplars"]]


@contextlib.contextmanager
def prometheus(
    folder: Path,
    target: str,
    *,
    rules: Sequence[Path] = (),
    alertmanager: str | None = None,
    remote_write: str | None = None,
) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes `target` (HOST:PORT) every second, exemplars included.

    What `folder / "tsdb"` holds already is its past.
    """
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration(target, rules, alertmanager, remote_write)))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus", "prometheus"), f"--config.file={file}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    command += ["--enable-feature=exemplar-storage"]
    with process(command, log=folder / "prometheus.log"):

        def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://{address}/-/ready").is_success
            return False

        wait_until(ready, "Prometheus")
        yield Prometheus(f"http://{address}")


def backfill(openmetrics: str, folder: Path) -> None:
    """Make a past in `folder / "tsdb"` of an OpenMetrics text with timestamps."""
    text = folder / "history.txt"
    text.write_text(openmetrics)
    _promtool("openmetrics", str(text), str(folder / "tsdb"))


def backfill_rules(
    url: str, recordings: Sequence[Mapping[str, Any]], start: int, end: int, folder: Path
) -> None:
    """Add to that past what these rules make of it, minute by minute; Unix times.

    The Prometheus at `url` holds it; another one, started later, sees what was added.
    """
    file = folder / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "past", "rules": list(recordings)}]}))
    span = ["--eval-interval=1m", f"--start={start}", f"--end={end}", f"--url={url}"]
    _promtool("rules", *span, f"--output-dir={folder / 'tsdb'}", str(file))


def _promtool(kind: str, *arguments: str) -> None:
    command = [program("promtool", "prometheus"), "tsdb", "create-blocks-from", kind]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def remarks(exposition: bytes) -> bytes:
    """What `promtool check metrics` says of an exposition: nothing when all is well."""
    command = [program("promtool", "prometheus"), "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, check=False)
    said = done.stdout + done.stderr
    return said if done.returncode == 0 else said or b"promtool failed without a word"
