"""Sources → turns → sinks: the exporter's one loop.

What comes in: a `Config`. What goes out: metrics, spans and a bundle. It must not know HTTP
serving (`exporter.app`) nor the details of any source or sink.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from exporter.accelerators import host
from exporter.accelerators.nvidia import NvidiaSource
from exporter.bundle import Bundle
from exporter.config import Config
from exporter.live import LiveSessions
from exporter.metrics import Metrics
from exporter.observations import Observation, Readings, TargetEvent, TargetStarted
from exporter.sources import SourceTask
from exporter.sources.ingest import Ingest
from exporter.sources.log_lines import LogSource
from exporter.sources.opentalking_http import OpenTalkingHttpSource
from exporter.sources.redis_bus import RedisBusSource
from exporter.spans import Spans
from exporter.turn_record import Turn
from exporter.turns import TurnAssembler

log = logging.getLogger(__name__)

TICK_S = 0.25


class Exporter:
    """Everything between the sources and the sinks, on one event loop and without locks."""

    def __init__(self, config: Config) -> None:
        """Raises `exporter.bundle.BundleExistsError`, `exporter.spans.ProtocolError`, OSError."""
        self.http = OpenTalkingHttpSource(config.target, read_queue=config.redis is None)
        self.bus = RedisBusSource(config.redis) if config.redis else None
        self.ingest = Ingest()
        self._nvidia = NvidiaSource()
        sources: list[SourceTask | None] = [
            self.http,
            self.bus,
            LogSource(config.log) if config.log else None,
            self._nvidia,
        ]
        self._sources = [source for source in sources if source is not None]
        self._assembler = TurnAssembler(
            expect_log=config.log is not None, explain=config.bundle is not None
        )
        self.health = [*(source.health for source in self._sources), self.ingest.health]
        self._live = LiveSessions()
        self.metrics = Metrics(self.health, self._assembler, self._live)
        self._spans = Spans.from_environment()
        self._bundle = Bundle(config.bundle, now=time.time()) if config.bundle else None
        if config.target_just_started:
            self.emit(TargetStarted(time.time()))

    def emit(self, seen: Observation) -> None:
        """Take one observation. Never raises: a sink that fails is logged and the rest goes on."""
        try:
            if isinstance(seen, Readings):
                self.metrics.readings(seen)
                if self._bundle is not None:
                    self._bundle.readings(seen)
                return
            if isinstance(seen, TargetEvent) and self._bundle is not None:
                self._bundle.event(seen)
            self._live.feed(seen)
            self._publish(self._assembler.feed(seen))
        except Exception:
            log.exception("an observation of type %s was lost", type(seen).__name__)

    def take_marks(self, body: bytes) -> tuple[int, int]:
        """Take a batch of marks; see `exporter.sources.ingest.Ingest.take`."""
        bus_is_up = self.bus is not None and self.bus.health.up
        return self.ingest.take(body, self.emit, relayed_events=not bus_is_up)

    @property
    def open_turns(self) -> int:
        """Turns that are not finished."""
        return self._assembler.open_turns

    async def run(self) -> None:
        """Run every source until cancelled, then finish what is open and close the sinks."""
        tasks = [
            asyncio.create_task(source.run(self.emit), name=source.health.name)
            for source in self._sources
        ]
        try:
            while True:
                await asyncio.sleep(TICK_S)
                self._tick()
                for task in tasks:
                    if task.done():
                        # A source never ends by itself; if one does, that is our mistake and
                        # the operator must see it rather than a silent gap.
                        task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    def _tick(self) -> None:
        try:
            now = time.time()
            self._live.tick(now)
            self._publish(self._assembler.tick(now))
            for stage, value in self._assembler.take_values_of_nobody():
                self.metrics.value_of_nobody(stage, value)
        except Exception:
            log.exception("publishing failed")

    def _publish(self, turns: list[Turn]) -> None:
        for turn in turns:
            self._spans.turn(turn)
            self.metrics.turn(turn)
            if self._bundle is not None:
                self._bundle.turn(turn)
        for record, fresh in self._assembler.take_sessions():
            self.metrics.session_values(record, fresh)
            if self._bundle is not None:
                self._bundle.session(record)

    async def _close(self) -> None:
        self._publish(self._assembler.finish())
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._spans.close)
        if self._bundle is not None:
            self._bundle.close(self.describe(), now=time.time())

    def describe(self) -> dict[str, Any]:
        """What is known of the deployment: `target.json` of the bundle, without its schema."""
        return {
            "url": self.http.url,
            "mode": self.http.mode,
            "health": self.http.target_health,
            "models": self.http.models,
            "host": host.identity(),
            "accelerators": self._nvidia.devices,
            "accelerators_absent": None if self._nvidia.devices else self._nvidia.health.reason,
            "sources": {health.name: health.to_json() for health in self.health},
        }
