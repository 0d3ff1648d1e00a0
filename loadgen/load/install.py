"""Puts the load test into a Locust environment: its init event in, nodes in their places out."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from typing import Any, Final, NoReturn

import gevent
import locust
from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC
from prometheus_client import make_wsgi_app

from loadgen.errors import TargetError
from loadgen.load import rounding
from loadgen.load.bridge import Bridge
from loadgen.load.master_node import MasterNode
from loadgen.load.settings import Local, SettingsError, add_arguments
from loadgen.load.shapes import OpenModel
from loadgen.load.users import Viewer
from loadgen.load.worker import Worker
from loadgen.load.worker_node import WorkerNode
from loadgen.media.tap import UnsupportedAiortcError
from loadgen.target import RunFailedError, UsageError

WRONG_USAGE: Final = 64
_PORTS_TRIED: Final = 100
_WRITING_S: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2)."""

_TALKATIVE: Final = ("httpx", "httpcore", "aioice", "aiortc", "websockets")
"""Libraries that log a line or more for each request or candidate, which is work in the very
loop whose lateness is measured."""

_log = logging.getLogger(__name__)


def install() -> None:
    """Register options and listeners. Call it once, in the locustfile."""
    rounding.install()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    locust.events.init_command_line_parser.add_listener(_add_options)
    locust.events.init.add_listener(_on_init)


def _add_options(parser: Any, **_: object) -> None:
    add_arguments(parser)


def _on_init(environment: Environment, runner: Runner, **_: object) -> None:
    options = environment.parsed_options
    if isinstance(runner, WorkerRunner) and options is not None and options.processes:
        _end_with_parent()
    local = _local(environment)
    bridge = Bridge()
    master = worker = None
    if not isinstance(runner, WorkerRunner):
        master = MasterNode(environment, runner, bridge)
        _prepare(master, environment)
    if not isinstance(runner, MasterRunner):
        worker = _worker(environment, runner, bridge, local)
    if master is not None:
        master.listen()

    def on_quitting(**_: object) -> None:
        # Ctrl-C and SIGTERM come here first; Locust itself would not wait for the workers.
        if worker is not None:
            worker.leave()
        if master is not None:
            runner.stop()

    environment.events.quitting.add_listener(on_quitting)
    if master is not None and options is not None and options.csv_prefix:
        environment.events.quit.add_listener(_await_tables)


def _await_tables(**_: object) -> None:
    """Let Locust write its tables once more: they would lack the answers that ended last."""
    gevent.sleep(CSV_STATS_INTERVAL_SEC + _WRITING_S)


def _end_with_parent() -> None:
    """Have this worker, forked by its master, told to stop when the master is killed.

    It would notice by itself after a minute, and its sessions would last as long.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prepare(master: MasterNode, environment: Environment) -> None:
    options = environment.parsed_options
    if options is None or not (options.headless or options.autostart or environment.host):
        # The web page will ask for the target.
        return
    try:
        master.prepare()
    except (SettingsError, UsageError) as error:
        _refuse(str(error), WRONG_USAGE)
    except (RunFailedError, TargetError) as error:
        _refuse(str(error), 1)
    if master.arrivals is not None:
        shape = OpenModel(master, options.run_time)
        shape.runner = environment.runner
        environment.shape_class = shape


def _local(environment: Environment) -> Local:
    try:
        return Local.of(environment.parsed_options)
    except SettingsError as error:
        _refuse(str(error), WRONG_USAGE)


def _worker(environment: Environment, runner: Runner, bridge: Bridge, local: Local) -> WorkerNode:
    def fire(scenario: str, name: str, milliseconds: float, error: Exception | None) -> None:
        environment.events.request.fire(
            request_type=scenario,
            name=name,
            response_time=milliseconds,
            response_length=0,
            exception=error,
            context={},
        )

    worker = Worker(bridge, local, fire)
    try:
        worker.warm()
    except UnsupportedAiortcError as error:
        _refuse(str(error), 1)
    node = WorkerNode(environment, runner, worker)
    Viewer.joined.set(node)
    if local.metrics_port:
        _serve_metrics(worker, local)
    gevent.spawn(node.say_hello)
    return node


def _serve_metrics(worker: Worker, local: Local) -> None:
    for port in range(local.metrics_port, local.metrics_port + _PORTS_TRIED):
        server = WSGIServer(
            (local.metrics_host, port), make_wsgi_app(worker.metrics.registry), log=None
        )
        try:
            server.start()
        except OSError:
            continue
        _log.info("metrics: http://%s:%d/metrics", local.metrics_host, port)
        return
    _refuse(f"--metrics-port {local.metrics_port}: no free port from there on", WRONG_USAGE)


def _refuse(problem: str, status: int) -> NoReturn:
    print(f"talkscope load: {problem}", file=sys.stderr, flush=True)
    sys.exit(status)
