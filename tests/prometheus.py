"""A real Prometheus for tests and benchmarks: its store filled beforehand, or scraping."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from exporter import stages
from tests.processes import free_port, process, wait_until

Labels = Mapping[str, str]


MISSING = "prometheus is not installed: apt-get install prometheus"


def is_installed() -> bool:
    """Whether prometheus and promtool can be run."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


@contextlib.contextmanager
def prometheus(folder: Path, *targets: str, history: str = "") -> Iterator[str]:
    """Yields its URL. `targets` (HOST:PORT) are scraped every second; `history` is an OpenMetrics
    text whose samples are in its store when it starts."""
    store = folder / "store"
    if history:
        text = folder / "history.om"
        text.write_text(history)
        subprocess.run(
            [
                *("promtool", "tsdb", "create-blocks-from", "--max-block-duration=100000h"),
                *("openmetrics", str(text), str(store)),
            ],
            check=True,
            capture_output=True,
        )
    config = folder / "prometheus.yml"
    jobs = [{"job_name": "talkscope", "static_configs": [{"targets": list(targets)}]}]
    # YAML reads JSON.
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": jobs if targets else [],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    command = [
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={store}"),
        *(f"--web.listen-address={address}", "--storage.tsdb.retention.time=10y"),
    ]
    with process(command, log=folder / "prometheus.log"):

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://{address}/-/ready", timeout=1.0).status_code == 200
            return False

        wait_until(ready, "prometheus")
        yield f"http://{address}"


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
        seen = f"{stages.SESSIONS_SEEN.family}_total"
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
                f"{stages.TURNS.family}_total", {**place, **dict(named)}, times, born=times[0]
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
