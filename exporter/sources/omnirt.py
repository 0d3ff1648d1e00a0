"""OmniRT, the synthesis backend → its own metrics, model states and readiness.

What comes in: an OmniRT's base URL, polled. What goes out: what it serves on `/metrics`, under
its own names with the label `backend_instance`, for as long as it answers. It must not know
turns, nor take OmniRT's figures for ours: `omnirt_queue_depth` counts jobs, and the realtime
avatar stream that OpenTalking uses moves none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import exposition
from exporter.health import SourceHealth
from exporter.sources import Emit

POLL_S: Final = 2.0
TIMEOUT_S: Final = 5.0

INSTANCE: Final = "backend_instance"
OWN_PREFIX: Final = "omnirt_"
"""Families of other names are left out: they might be ours, and a name served twice breaks the
scrape."""


class OmniRtSource:
    """Polls `/readyz`, `/metrics` and `/v1/audio2video/models`. `poll_s` may change meanwhile."""

    def __init__(self, url: str, *, api_key: str | None = None, poll_s: float = POLL_S) -> None:
        self.instance = urlsplit(url).netloc.rpartition("@")[2]
        self.health = SourceHealth(f"omnirt:{self.instance}")
        self.poll_s = poll_s
        self.families: tuple[Metric, ...] = ()
        self.connected: Mapping[str, bool] = {}
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def run(self, emit: Emit) -> None:
        """Poll until cancelled. It has metrics to serve and no observation to emit."""
        del emit
        async with httpx.AsyncClient(
            base_url=self._url, timeout=TIMEOUT_S, headers=self._headers
        ) as client:
            while True:
                await self.poll(client)
                await asyncio.sleep(self.poll_s)

    async def poll(self, client: httpx.AsyncClient) -> None:
        """Read every endpoint once; on any failure nothing is served of it."""
        started = time.monotonic()
        try:
            await _get(client, "/readyz")
            families = parse(await _get(client, "/metrics"), self.instance)
            answer = (await client.get("/v1/audio2video/models")).raise_for_status().json()
            connected = _connected(answer)
        except (httpx.HTTPError, ValueError) as error:
            self.families, self.connected = (), {}
            self.health.failed(f"OmniRT at {self.instance}: {str(error) or type(error).__name__}")
            return
        self.families, self.connected = families, connected
        self.health.succeeded(time.time(), events=1, duration=time.monotonic() - started)

    def describe(self) -> dict[str, Any]:
        """What is known of it, for the description of the deployment."""
        return {
            "instance": self.instance,
            "ready": self.health.up,
            "models": [{"id": m, "connected": c} for m, c in self.connected.items()],
        }


class OmniRtMetrics(Collector):
    """The metrics of several OmniRTs as one exposition: each family once, with all instances."""

    def __init__(self, sources: Sequence[OmniRtSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Families in the order in which the instances serve them."""
        merged: dict[str, Metric] = {}
        for family in (f for source in self._sources for f in source.families):
            held = merged.get(family.name)
            if held is None:
                held = merged[family.name] = Metric(
                    family.name, family.documentation, family.type, family.unit
                )
            # Two versions may disagree on a type; an exposition can state only one.
            if held.type == family.type:
                held.samples.extend(family.samples)
        yield from merged.values()
        models = GaugeMetricFamily(
            "talkscope_omnirt_model_connected",
            "Whether an OmniRT lists the model as connected (1) or not (0).",
            labels=(INSTANCE, "model"),
        )
        for source in self._sources:
            for model, connected in source.connected.items():
                models.add_metric([source.instance, model], float(connected))
        yield models


def parse(text: str, instance: str) -> tuple[Metric, ...]:
    """OmniRT's families that have samples, each sample with its instance.

    Raises ValueError for a text that is no exposition.
    """
    families: list[Metric] = []
    for told in exposition.parse(text):
        if not told.samples or not told.name.startswith(OWN_PREFIX):
            continue
        # OmniRT writes no HELP lines, and a family without one fails promtool's check.
        meaning = told.documentation or f"OmniRT's own {told.name}, as the instance serves it."
        family = Metric(told.name, meaning, told.type)
        for sample in told.samples:
            family.add_sample(sample.name, {**sample.labels, INSTANCE: instance}, sample.value)
        families.append(family)
    return tuple(families)


async def _get(client: httpx.AsyncClient, path: str) -> str:
    return (await client.get(path)).raise_for_status().text


def _connected(answer: object) -> dict[str, bool]:
    statuses = answer.get("statuses") if isinstance(answer, dict) else None
    if not isinstance(statuses, list):
        raise ValueError("/v1/audio2video/models did not answer with a list of statuses")
    return {
        str(status["id"]): status.get("connected") is True
        for status in statuses
        if isinstance(status, dict) and "id" in status
    }
