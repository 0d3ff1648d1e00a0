"""A histogram that observes and writes itself fast.

What comes in: values, with labels and perhaps an exemplar. What goes out: its part of an
exposition, byte for byte as prometheus-client writes it (tests/exporter/test_histogram.py), and
the same as prometheus-client's own `Metric`. It must not know stages.

prometheus-client looks through the buckets one by one when it observes, and formats every label
of every line anew when it is scraped. With some 3,000 lines that is most of what a busy exporter
does, so here each line but its number is written once. Not safe for threads.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

_number: Callable[[float], str] = floatToGoString
"""A number as Go writes it."""

_EXACT_BELOW: Final = 1_000_000
"""Go, and so the exposition, writes numbers from here on with an exponent."""


class Histogram(Collector):
    """One family. `buckets` are rising upper edges, without infinity."""

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], buckets: Iterable[float]
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = tuple(labels)
        self._edges = tuple(buckets)
        self._children: dict[tuple[str, ...], Child] = {}
        text = meaning.replace("\\", r"\\").replace("\n", r"\n")
        self._head = f"# HELP {name} {text}\n# TYPE {name} histogram\n"
        # OpenMetrics has quotes escaped as well.
        quoted = text.replace('"', r"\"")
        self._open_head = f"# HELP {name} {quoted}\n# TYPE {name} histogram\n"

    def child(self, *values: str) -> Child:
        """The histogram of these label values, in the order of the labels."""
        child = self._children.get(values)
        if child is None:
            labels = dict(zip(self._labels, values, strict=True))
            child = self._children[values] = Child(self._name, labels, self._edges)
        return child

    def write(self, *, open_metrics: bool) -> str:
        """The family's lines in OpenMetrics, or in the classic text format."""
        parts = [self._open_head if open_metrics else self._head]
        for child in self._children.values():
            parts += child.lines(exemplars=open_metrics)
        return "".join(parts)

    def collect(self) -> Iterator[Metric]:
        """The same for prometheus-client."""
        metric = Metric(self._name, self._meaning, "histogram")
        for child in self._children.values():
            child.add_to(metric)
        yield metric


class Child:
    """The values of one set of labels."""

    def __init__(self, name: str, labels: Mapping[str, str], edges: tuple[float, ...]) -> None:
        self._name = name
        self._labels = labels
        self._edges = edges
        self._bounds = [_number(edge) for edge in (*edges, math.inf)]
        self._counts = [0] * len(self._bounds)
        self._exemplars: list[tuple[Mapping[str, str], float, float] | None]
        self._exemplars = [None] * len(self._bounds)
        self._sum = 0.0
        self._starts = [
            f"{name}_bucket{_braced({**labels, 'le': bound})} " for bound in self._bounds
        ]
        self._ends = [f"{name}_count{_braced(labels)} ", f"{name}_sum{_braced(labels)} "]

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count a value; the exemplar's labels, of at most 128 characters, ride on its bucket."""
        place = bisect_left(self._edges, value)
        self._counts[place] += 1
        self._sum += value
        if exemplar is not None:
            self._exemplars[place] = (exemplar, value, time.time())

    def lines(self, *, exemplars: bool) -> list[str]:
        """Its lines, each with its end."""
        cumulated = list(accumulate(self._counts))
        values = [f"{n}.0" if n < _EXACT_BELOW else _number(n) for n in cumulated]
        lines = [f"{start}{value}\n" for start, value in zip(self._starts, values, strict=True)]
        if exemplars:
            for place, told in enumerate(self._exemplars):
                if told is not None:
                    labels, value, at = told
                    suffix = f" # {_braced(labels)} {_number(value)} {at}\n"
                    lines[place] = lines[place][:-1] + suffix
        count, total = self._ends
        lines.append(f"{count}{values[-1]}\n")
        lines.append(f"{total}{_number(self._sum)}\n")
        return lines

    def add_to(self, metric: Metric) -> None:
        """Its samples, as prometheus-client keeps them."""
        name, labels = self._name, dict(self._labels)
        cumulated = list(accumulate(self._counts))
        for bound, number, told in zip(self._bounds, cumulated, self._exemplars, strict=True):
            exemplar = None if told is None else Exemplar(dict(told[0]), *told[1:])
            metric.add_sample(f"{name}_bucket", labels | {"le": bound}, number, exemplar=exemplar)
        metric.add_sample(f"{name}_count", labels, cumulated[-1])
        metric.add_sample(f"{name}_sum", labels, self._sum)


def _braced(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
