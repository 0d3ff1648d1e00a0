"""Where a run is started: settings in; setups for the workers, the account and the verdict out.

This is Locust's master, or the only process. It keeps the ledger of all sessions, so that what a
killed worker leaves is put away here.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, Runner

from loadgen.errors import TargetError
from loadgen.load import progress, protocol
from loadgen.load.account import LEDGER, Account
from loadgen.load.arrivals import Arrivals, parse
from loadgen.load.bridge import Bridge
from loadgen.load.deletion import put_away
from loadgen.load.ledger import Ledger
from loadgen.load.settings import Settings, Setup
from loadgen.opentalking import OpenTalking
from loadgen.target import BenchError, Target, UsageError, check

PROGRESS_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)


class MasterNode:
    """Starts, watches and closes runs; one at a time, any number in a row."""

    def __init__(self, environment: Environment, runner: Runner, bridge: Bridge) -> None:
        self._environment = environment
        self._runner = runner
        self._bridge = bridge
        self._settings: Settings | None = None
        self._setup: Setup | None = None
        self._hellos: dict[str, tuple[str, int]] = {}
        self._account: Account | None = None
        self._runs = 0
        self._target: Target | None = None
        self._watching: gevent.Greenlet | None = None
        self._begun = 0.0
        runner.register_message(protocol.HELLO, self._on_hello)
        runner.register_message(protocol.REPORT, self._on_report)
        runner.register_message(protocol.FINISHED, self._on_finished)

    def listen(self) -> None:
        """Follow Locust's events from here on; after the worker of the same process does."""
        events = self._environment.events
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_test_stopping)
        events.test_stop.add_listener(self._on_test_stop)

    # --- before a run ----------------------------------------------------------------------

    def prepare(self) -> None:
        """Check the options and the target. Raises SettingsError, BenchError or TargetError."""
        settings = Settings.of(self._environment.host, self._environment.parsed_options)
        scenarios = settings.source.scenarios()
        models: dict[str, str] = {}
        avatars: dict[str, str] = {}
        wanted = {(s.model or settings.model, s.avatar or settings.avatar) for s in scenarios}
        found = {choice: self._bridge.run(_look(settings.url, *choice)) for choice in wanted}
        for scenario in scenarios:
            choice = (scenario.model or settings.model, scenario.avatar or settings.avatar)
            models[scenario.name] = found[choice].model
            avatars[scenario.name] = found[choice].avatar
        self._settings = settings
        self._target = next(iter(found.values()))
        self._setup = Setup(
            url=settings.url,
            name=settings.source.name,
            text=settings.source.text,
            files=settings.source.files,
            models=models,
            avatars=avatars,
            max_sessions=settings.max_sessions,
            max_ramp=settings.max_ramp,
            decode_fraction=settings.decode_fraction,
            turn_timeout=settings.turn_timeout,
            exporter=settings.exporter,
            agent_exporter=settings.agent_exporter,
            open_model=settings.arrivals is not None,
            seed=settings.seed,
        )
        self._send_setups()

    @property
    def arrivals(self) -> Arrivals | None:
        """A new schedule of the open model, or None in the closed one."""
        if self._settings is None or self._settings.arrivals is None:
            return None
        return parse(self._settings.arrivals, random.Random(f"{self._settings.seed}/arrivals"))

    @property
    def max_sessions(self) -> int:
        """The run's limit, over all workers."""
        assert self._settings is not None
        return self._settings.max_sessions

    @property
    def workers(self) -> list[str]:
        """The workers that can be given work, in the order in which they came."""
        if not isinstance(self._runner, MasterRunner):
            return list(self._hellos)
        clients = self._runner.clients
        return [w for w in self._hellos if w in clients and clients[w].state != STATE_MISSING]

    @property
    def all_ready(self) -> bool:
        """Whether a run has begun and every connected worker is warm and told what to do."""
        if self._account is None:
            return False
        if isinstance(self._runner, MasterRunner):
            connected = [c for c in self._runner.clients.all if c.state != STATE_MISSING]
            return bool(connected) and len(self.workers) == len(connected)
        return bool(self._hellos)

    @property
    def sessions(self) -> int:
        """Sessions that the workers have, as last reported."""
        if self._account is None:
            return 0
        return sum(worker.sessions for worker in self._account.workers.values())

    def send_arrivals(self, worker: str, instants: list[float]) -> None:
        """Give a worker intended starts, on this process's monotonic clock."""
        self._send(protocol.ARRIVALS, {"sent": time.monotonic(), "instants": instants}, worker)

    def no_worker_for(self, arrivals: int) -> None:
        """So many viewers will not come, because no worker is left."""
        if self._account is not None:
            self._account.unplaced += arrivals

    def _send_setups(self) -> None:
        if self._setup is None:
            return
        workers = self.workers
        for index, worker in enumerate(workers):
            share, more = divmod(self._setup.max_sessions, len(workers))
            own = replace(
                self._setup,
                # Nobody gets none: a worker that may hold no session would wait for ever.
                max_sessions=max(1, share + (index < more)),
                max_ramp=self._setup.max_ramp / len(workers),
            )
            content = {"setup": own.to_message(), "index": list(self._hellos).index(worker)}
            self._send(protocol.SETUP, content, worker)

    # --- messages --------------------------------------------------------------------------

    def _on_hello(self, *, msg: Any, **_: object) -> None:
        self._hellos[msg.node_id] = (msg.data["host"], msg.data["pid"])
        if self._account is not None:
            self._account.hello(msg.node_id, *self._hellos[msg.node_id])
        self._send_setups()

    def _on_report(self, *, msg: Any, **_: object) -> None:
        if self._account is not None and msg.node_id in self._account.workers:
            self._account.report(msg.data | {"worker": msg.node_id})

    def _on_finished(self, *, msg: Any, **_: object) -> None:
        if self._account is not None and msg.node_id in self._account.workers:
            self._account.finished(msg.data | {"worker": msg.node_id})

    def _send(self, message: str, content: dict[str, Any], worker: str) -> None:
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(message, content, client_id=worker)
        else:
            self._runner.send_message(message, content)

    # --- a run -----------------------------------------------------------------------------

    def _on_test_start(self, **_: object) -> None:
        if self._settings is None or self._settings.url != self._environment.host:
            try:
                self.prepare()
            except (ValueError, BenchError, TargetError) as error:
                # Started from the web page: there is no command line to give the error back to.
                _log.error("the run cannot start: %s", error)
                gevent.spawn(self._runner.stop)
                return
        assert self._settings is not None
        self._runs += 1
        self._begun = time.monotonic()
        folder = _folder(self._settings.records, self._runs)
        self._account = Account(folder, Ledger(folder / LEDGER if folder else None))
        for worker in self.workers:
            self._account.hello(worker, *self._hellos[worker])
        self._watching = gevent.spawn(self._watch)

    def _watch(self) -> None:
        assert self._account is not None
        options = self._environment.parsed_options
        shows = options is not None and options.headless
        shown = time.monotonic()
        while True:
            gevent.sleep(1.0)
            self._note_lost()
            now = time.monotonic()
            if shows and now - shown >= PROGRESS_EVERY_S:
                shown = now
                print(progress.live(self._account, now - self._begun), file=sys.stderr, flush=True)

    def _note_lost(self) -> None:
        assert self._account is not None
        assert self._settings is not None
        if not isinstance(self._runner, MasterRunner):
            return
        now = time.time()
        for name, worker in self._account.workers.items():
            if worker.finished or worker.lost or name in self.workers:
                continue
            if now - worker.last_heard_unix > protocol.LOST_AFTER_S:
                self._lose(name)

    def _lose(self, name: str) -> None:
        assert self._account is not None
        assert self._settings is not None
        worker = self._account.workers[name]
        ledger = self._account.ledger
        left = len(ledger.left_by(name))
        heard = time.strftime("%H:%M:%S", time.gmtime(worker.last_heard_unix))
        speaking = worker.speaking
        why = f"was lost; last heard of at {heard} UTC with {left} sessions, {speaking} speaking"
        self._account.lost(name, f"{why}; turns that it had not reported are missing")
        _log.error("worker %s %s", name, why)
        put = put_away(self._settings.url, ledger, [name], f"worker {name} was lost")
        deleted = self._bridge.run(put)
        _log.info("deleted %d of %d sessions that worker %s left", deleted, left, name)

    def _on_test_stopping(self, **_: object) -> None:
        if isinstance(self._runner, MasterRunner) and self._account is not None:
            # When the master quits, Locust tells its workers to quit and waits half a second.
            for worker in self.workers:
                self._send(protocol.LEAVE, {}, worker)

    def _on_test_stop(self, **_: object) -> None:
        account, settings = self._account, self._settings
        if account is None or settings is None:
            return
        patience = (self._environment.stop_timeout or 0.0) + protocol.LAST_WORDS_S
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if all(w.finished or w.lost for w in account.workers.values()):
                break
            gevent.sleep(0.05)
            self._note_lost()
        for name, worker in account.workers.items():
            if not worker.finished and not worker.lost:
                self._lose(name)
        if self._watching is not None:
            self._watching.kill()
        # Whoever still has something open was not heard to the end.
        left = account.ledger.workers()
        self._bridge.run(
            put_away(settings.url, account.ledger, left, "its worker ended without a word")
        )
        self._account = None
        content = account.write(self._about(settings))
        for line in progress.closing(account, content):
            print(line, file=sys.stderr, flush=True)
        self._environment.process_exit_code = int(account.end)

    def _about(self, settings: Settings) -> dict[str, Any]:
        assert self._target is not None
        return {
            "target": settings.url,
            "model": self._target.model,
            "backend": self._target.backend,
            "avatar": self._target.avatar,
            "load": settings.arrivals or "closed",
            "scenario": settings.source.name,
            "scenario_text": settings.source.text,
            "seed": settings.seed,
            "max_sessions": settings.max_sessions,
            "max_ramp": settings.max_ramp,
            "decode_fraction": settings.decode_fraction,
        }


async def _look(url: str, model: str | None, avatar: str | None) -> Target:
    try:
        client = OpenTalking(url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    async with client:
        return await check(client, model=model, avatar=avatar)


def _folder(records: Path | None, run: int) -> Path | None:
    """The folder of a run; one after the first, started from the web page, gets its own."""
    if records is None or run == 1:
        return records
    folder = records / f"run-{run}"
    folder.mkdir(exist_ok=True)
    return folder
