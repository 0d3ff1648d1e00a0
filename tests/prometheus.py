"""A real Prometheus for tests and benchmarks: its store filled beforehand, or scraping.

And promtool's opinion of an exposition.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from exporter import gauges, stages
from tests.processes import free_port, process, program, wait_until

INTERVAL = "1s"
"""Of scrapes, and of groups of rules that name none."""

BLOCK_S = 7200
"""Of Prometheus' store: what promtool makes begins at a multiple of it."""

Labels = Mapping[str, str]


def configuration(
    targets: Sequence[str],
    rules: Sequence[Path],
    alertmanager: str | None,
    remote_write: str | None,
    interval: str = INTERVAL,
) -> dict[str, Any]:
    """What Prometheus is told; addresses are HOST:PORT, `remote_write` is a URL."""
    alerting = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
    scraped = [{"job_name": "talkscope", "static_configs": [{"targets": list(targets)}]}]
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in rules],
        "alerting": {"alertmanagers": alerting},
        "scrape_configs": scraped if targets else [],
        "remote_write": [{"url": remote_write}] if remote_write else [],
    }


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of one Prometheus."""

    url: str

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

    def range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """A range query between two Unix times: the matrix as Prometheus gives it."""
        parameters: dict[str, str | float] = {"query": expression, "start": start, "end": end}
        parameters["step"] = step
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        return list(answer["data"]["result"])

    def exemplars(self, selector: str, start: float, end: float) -> list[dict[str, Any]]:
        """The exemplars of these series between two Unix times."""
        parameters: dict[str, str | float] = {"query": selector, "start": start, "end": end}
        answer = httpx.get(f"{self.url}/api/v1/query_exemplars", params=parameters)
        found = answer.raise_for_status().json()["data"]
        return [exemplar for series in found for exemplar in series["exemplars"]]


@contextlib.contextmanager
def prometheus(
    folder: Path,
    *targets: str,
    history: str = "",
    rules: Sequence[Path] = (),
    alertmanager: str | None = None,
    remote_write: str | None = None,
    interval: str = INTERVAL,
) -> Iterator[Prometheus]:
    """A real Prometheus. `targets` (HOST:PORT) are scraped every `interval`, exemplars included.

    What `folder / "tsdb"` holds already is its past, and so are the samples of `history`, an
    OpenMetrics text.
    """
    store = folder / "tsdb"
    if history:
        backfill(history, folder)
    file = folder / "prometheus.yml"
    # YAML reads JSON.
    file.write_text(json.dumps(configuration(targets, rules, alertmanager, remote_write, interval)))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus", "prometheus"), f"--config.file={file}"]
    command += [f"--storage.tsdb.path={store}", f"--web.listen-address={address}"]
    command += ["--storage.tsdb.retention.time=10y", "--enable-feature=exemplar-storage"]
    with process(command, log=folder / "prometheus.log"):

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://{address}/-/ready", timeout=1.0).is_success
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
    # promtool writes nothing at all when it would begin in the last minute of a block.
    start -= start % BLOCK_S
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


@dataclass
class Life:
    """One life of an exporter: what it counted, and when it was scraped."""

    scrapes: list[float]
    """Seconds since the epoch, ascending."""
    instance: str = "exporter:9109"
    turns: list[tuple[float, Labels, Mapping[str, float]]] = field(default_factory=list)
    """When a turn ended, its model, backend and startup, and its values by catalogue key."""
    levels: list[tuple[str, Labels, list[float]]] = field(default_factory=list)
    """Family, labels and a value for each scrape; NaN may be among them."""

    def lines(self) -> Iterator[str]:
        """OpenMetrics samples, series by series, as the exporter would have been scraped."""
        place = {"job": "talkscope", "instance": self.instance}
        ordered = sorted(self.turns, key=lambda turn: turn[0])
        seen = f"{gauges.SESSIONS_SEEN.family}_total"
        yield from self._counter(seen, place, [at for at, _, _ in ordered], born=-math.inf)
        by: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
        outcomes: dict[tuple[tuple[str, str], ...], list[float]] = {}
        for at, labels, values in ordered:
            model = {name: labels[name] for name in ("model", "backend")}
            outcomes.setdefault(
                tuple(sorted({**model, "outcome": "completed"}.items())), []
            ).append(at)
            for key, value in values.items():
                stage = stages.STAGES[key]
                base = stage.to_base(value)
                own = dict(labels)
                if stage.is_signed:
                    own["leads"] = "sound" if base > 0 else "picture"
                by.setdefault((key, tuple(sorted(own.items()))), []).append((at, abs(base)))
        for named, times in outcomes.items():
            yield from self._counter(
                f"{gauges.TURNS.family}_total", {**place, **dict(named)}, times, born=times[0]
            )
        for (key, named), values in by.items():
            stage, labels = stages.STAGES[key], {**place, **dict(named)}
            for edge in (*stage.buckets, math.inf):
                times = [at for at, value in values if value <= edge]
                text = "+Inf" if math.isinf(edge) else f"{edge}"
                name, le = f"{stage.family}_bucket", {**labels, "le": text}
                yield from self._counter(name, le, times, born=values[0][0])
            yield from self._sum(f"{stage.family}_sum", labels, values)
        for name, labels, readings in self.levels:
            for at, value in zip(self.scrapes, readings, strict=True):
                yield f"{name}{_text({**place, **labels})} {value} {at}"

    def _counter(
        self, name: str, labels: Labels, times: list[float], *, born: float
    ) -> Iterator[str]:
        text, count = _text(labels), 0
        for at in self.scrapes:
            while count < len(times) and times[count] <= at:
                count += 1
            if at >= born:
                yield f"{name}{text} {count} {at}"

    def _sum(self, name: str, labels: Labels, values: list[tuple[float, float]]) -> Iterator[str]:
        text, count, total = _text(labels), 0, 0.0
        for at in self.scrapes:
            while count < len(values) and values[count][0] <= at:
                total += values[count][1]
                count += 1
            if count:
                yield f"{name}{text} {total} {at}"


def openmetrics(lives: Iterable[Life]) -> str:
    """A text for `prometheus(history=…)`."""
    return "\n".join([*(line for life in lives for line in life.lines()), "# EOF", ""])


def _text(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
