"""Sources → turns → sinks: the exporter's one loop.

What comes in: a `Config`. What goes out: metrics, spans and a bundle. It must not know HTTP
serving (`exporter.app`) nor the details of any source or sink.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from typing import Any, Final

from exporter import steady_clock
from exporter.accelerators import host
from exporter.accelerators.groups import Grouping, Selector, usual_selectors
from exporter.accelerators.host import HostSource
from exporter.accelerators.procfs import Procfs
from exporter.accelerators.source import AcceleratorSource, absent
from exporter.accelerators.vendors import libraries
from exporter.arbiter import EventArbiter
from exporter.backends import BackendMetrics, Instance
from exporter.bundle import Bundle
from exporter.config import Config, changed
from exporter.delivery import CountedSpans
from exporter.forecast import MemoryForecast
from exporter.gauges import MemoryGroup
from exporter.live import LiveSessions
from exporter.metrics import Metrics
from exporter.observations import (
    BusGap,
    BusLost,
    Observation,
    ProcessReported,
    Readings,
    TargetEvent,
    TargetStarted,
)
from exporter.processes import Processes
from exporter.sources import SourceTask
from exporter.sources.ingest import Ingest
from exporter.sources.log_lines import LogCommandSource, LogSource
from exporter.sources.omnirt import OmniRtMetrics, OmniRtSource
from exporter.sources.opentalking_http import OpenTalkingHttpSource
from exporter.sources.redis_bus import RedisBusSource
from exporter.speeches import LatestSpeeches
from exporter.turn_record import Turn
from exporter.turns import TurnAssembler

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
RESTART_S: Final = 5.0
FLUSH_S: Final = 5.0
"""The longest a stop may wait for spans to be sent."""


class Exporter:
    """Everything between the sources and the sinks, on one event loop and without locks."""

    def __init__(self, config: Config) -> None:
        """Raises `exporter.bundle.BundleExistsError`, `exporter.spans.ProtocolError`, OSError."""
        self.config = config
        self.http = OpenTalkingHttpSource(config.target, read_queue=config.redis is None)
        self.bus = RedisBusSource(config.redis) if config.redis else None
        self.omnirt = [OmniRtSource(url, api_key=config.omnirt_api_key) for url in config.omnirt]
        self.ingest = Ingest()
        self._accelerators = [
            AcceleratorSource(
                library,
                Grouping(_selectors(config), Procfs(), trust_ids=config.trust_accelerator_pids),
                baseline=config.accelerator_baseline,
            )
            for library in libraries(config.npu_exporter)
        ]
        self._said_no_accelerator = False
        sources: list[SourceTask | None] = [
            self.http,
            self.bus,
            LogSource(config.log) if config.log else None,
            LogCommandSource(config.log_command) if config.log_command else None,
            *self.omnirt,
            *self._accelerators,
            HostSource(),
        ]
        self._sources = [source for source in sources if source is not None]
        self._assembler = TurnAssembler(
            expect_log=config.follows_log, explain=config.bundle is not None
        )
        self._spans = CountedSpans.from_environment()
        self.health = [*(source.health for source in self._sources), self.ingest.health]
        if self._spans.enabled:
            self.health.append(self._spans.health)
        self._live = LiveSessions()
        self._forecast = MemoryForecast()
        self._arbiter = EventArbiter()
        self._processes = Processes()
        self.metrics = Metrics(
            self.health, self._assembler, self._live, self._arbiter, self._processes
        )
        self.speeches = LatestSpeeches()
        if self.omnirt:
            self.metrics.registry.register(OmniRtMetrics(self.omnirt))
            self.metrics.registry.register(BackendMetrics(self._instances, self._backends))
        self._bundle = Bundle(config.bundle, now=steady_clock.now()) if config.bundle else None
        self._apply(config)
        if config.target_just_started:
            self.emit(TargetStarted(steady_clock.now()))

    def reconfigure(self, config: Config) -> None:
        """Take over what a running exporter can; say in one line what, and what needs a restart."""
        live, fixed = changed(self.config, config)
        # What runs keeps its settings, and a later reload compares with them.
        kept = {key: getattr(self.config, key) for key in fixed}
        self._apply(dataclasses.replace(config, **kept))
        parts = [
            f"now in force: {', '.join(live)}" if live else "",
            f"a restart is needed for: {', '.join(fixed)}" if fixed else "",
        ]
        log.info("configuration read; %s", "; ".join(p for p in parts if p) or "nothing changed")

    def _apply(self, config: Config) -> None:
        self.config = config
        self.http.poll_s = config.poll_interval
        for omnirt in self.omnirt:
            omnirt.poll_s = config.poll_interval
        if self.bus is not None:
            self.bus.poll_s = config.queue_poll_interval
        self._assembler.turn_limit_s = config.turn_timeout
        for accelerator in self._accelerators:
            accelerator.interval = config.accelerator_interval
        self.ingest.token = config.ingest_token
        self.ingest.limit(config.ingest_rate, config.ingest_burst)

    def emit(self, seen: Observation) -> None:
        """Take one observation. Never raises: a sink that fails is logged and the rest goes on."""
        try:
            match seen:
                case TargetEvent():
                    if self._arbiter.take(seen):
                        self._event(seen)
                case Readings():
                    self._readings(seen)
                    forecast = self._forecast.feed(seen, self._live.open)
                    if forecast is not None:
                        self._readings(forecast)
                case ProcessReported():
                    self._readings(self._processes.feed(seen))
                case BusLost(since=since):
                    for event in self._arbiter.bus_lost(since):
                        self._event(event)
                case BusGap(began=began, ended=ended):
                    self._arbiter.bus_returned(began, ended)
                    self._publish(self._assembler.feed(seen))
                case _:
                    self._live.feed(seen)
                    self.speeches.feed(seen)
                    self._publish(self._assembler.feed(seen))
        except Exception:
            log.exception("an observation of type %s was lost", type(seen).__name__)

    def _event(self, event: TargetEvent) -> None:
        if self._bundle is not None:
            self._bundle.event(event)
        self._live.feed(event)
        self._publish(self._assembler.feed(event))

    def _readings(self, readings: Readings) -> None:
        self.metrics.readings(readings)
        if self._bundle is not None:
            self._bundle.readings(readings)

    def _instances(self) -> list[Instance]:
        return [Instance(omnirt.instance, omnirt.families) for omnirt in self.omnirt]

    def _backends(self) -> dict[str, str]:
        listed = self.http.models if self.http.health.up else []
        return {str(m.get("id")): str(m.get("backend")) for m in listed}

    def take_marks(self, body: bytes) -> tuple[int, int]:
        """Take a batch of marks; see `exporter.sources.ingest.Ingest.take`."""
        return self.ingest.take(body, self.emit)

    @property
    def open_turns(self) -> int:
        """Turns that are not finished."""
        return self._assembler.open_turns

    async def run(self) -> None:
        """Run every source until cancelled, then finish what is open and close the sinks."""
        tasks = [
            asyncio.create_task(self._keep_running(source), name=source.health.name)
            for source in self._sources
        ]
        try:
            while True:
                await asyncio.sleep(TICK_S)
                self._tick()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _keep_running(self, source: SourceTask) -> None:
        """Run a source; one that breaks by a mistake of ours says so and starts again."""
        while True:
            try:
                await source.run(self.emit)
            except Exception as error:
                log.exception("the source %s broke; it starts again", source.health.name)
                source.health.failed(f"broke with {type(error).__name__}: {error}")
                self.emit(Readings(steady_clock.now(), source.health.name))
            await asyncio.sleep(RESTART_S)

    def _tick(self) -> None:
        try:
            now = steady_clock.now()
            self._live.tick(now)
            if (processes := self._processes.tick(now)) is not None:
                self._readings(processes)
            self._say_no_accelerator()
            self._publish(self._assembler.tick(now))
            for stage, value in self._assembler.take_values_of_nobody():
                self.metrics.value_of_nobody(stage, value)
        except Exception:
            log.exception("publishing failed")

    def _say_no_accelerator(self) -> None:
        """Once in the log; the sources' health says it as long as it holds."""
        if not self._said_no_accelerator and all(s.nothing_there for s in self._accelerators):
            self._said_no_accelerator = True
            log.info("%s; host figures are served without", absent(self._accelerators))

    def _publish(self, turns: list[Turn]) -> None:
        for turn in turns:
            self._trace(turn)
            self.metrics.turn(turn)
            self._live.finished(turn)
            if self._bundle is not None:
                self._bundle.turn(turn)
        for record, fresh in self._assembler.take_sessions():
            self.metrics.session_values(record, fresh)
            if self._bundle is not None:
                self._bundle.session(record)

    def _trace(self, turn: Turn) -> None:
        """Emit the spans by the wall clock, which those go by that they will stand beside."""
        shown = turn.moved(steady_clock.stepped())
        self._spans.turn(shown)
        turn.trace_id = shown.trace_id

    async def _close(self) -> None:
        self._publish(self._assembler.finish())
        # First the spans, so that the bundle says what became of them.
        await self._flush_spans()
        if self._bundle is not None:
            self._bundle.close(self.describe(), now=steady_clock.now())

    async def _flush_spans(self) -> None:
        # The SDK's force_flush does not keep to its timeout, and an executor's thread would be
        # waited for at exit; a daemon thread can be left behind.
        done = threading.Event()

        def close() -> None:
            try:
                self._spans.close(FLUSH_S)
            except Exception:
                log.exception("closing the span exporter failed")
            done.set()

        threading.Thread(target=close, name="flush-spans", daemon=True).start()
        deadline = time.monotonic() + FLUSH_S
        while not done.is_set():
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.02)
        if left := self._spans.give_up():
            log.warning("the OTLP endpoint did not take %d spans in %.0f s", left, FLUSH_S)

    def describe(self) -> dict[str, Any]:
        """What is known of the deployment: `target.json` of the bundle, without its schema."""
        return {
            "url": self.http.url,
            "mode": self.http.mode,
            "health": self.http.target_health,
            "models": self.http.models,
            "omnirt": [omnirt.describe() for omnirt in self.omnirt],
            "host": host.identity(),
            "accelerators": [d.to_json() for source in self._accelerators for d in source.devices],
            "accelerators_absent": absent(self._accelerators),
            **self._forecast.describe(),
            "sources": {health.name: health.to_json() for health in self.health},
        }


def _selectors(config: Config) -> dict[MemoryGroup, tuple[Selector, ...]]:
    return {
        MemoryGroup.OPENTALKING: config.opentalking_processes
        or usual_selectors("opentalking", [config.target]),
        MemoryGroup.OMNIRT: config.omnirt_processes or usual_selectors("omnirt", config.omnirt),
    }
