"""`talkscope load` against the real OpenTalking and OmniRT, in one process and in several.

A busy machine makes the generator late, and then it says so: a run that ended with status 3 for
no doing of the test's is repeated.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter import stages
from exporter.stages import InputKind, Outcome
from loadgen.load.account import ACCOUNT, LEDGER
from report import bundle as bundles
from tests import namespaces
from tests.e2e.conftest import SHORT_ANSWER, running, session_state
from tests.processes import ROOT, free_port, hogs, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

MODEL = "wav2lip"
GOOD, FAILED, INVALID = 0, 1, 3
TRIES = 3
CORE = "0"
PAGE, TABLES = "load.html", "load"

SCENARIOS = """
scenarios:
  - name: chat
    weight: 2
    turns: 2
    think: 0.3
    pause: 0.3
    inputs:
      - say: Hello
      - say: A long story, please
        interrupt_after: 0.5
  - name: voice
    turns: 1
    pause: 0.3
    inputs:
      - speak: question.wav
"""


@dataclass(frozen=True)
class Running:
    """A load test and what it has left so far."""

    out: Path
    log: Path

    @property
    def stderr(self) -> str:
        return self.log.read_text()

    @property
    def ended(self) -> bool:
        return (self.out / "generator" / ACCOUNT).exists()

    @property
    def account(self) -> dict[str, Any]:
        return json.loads((self.out / "generator" / ACCOUNT).read_text())

    @property
    def turns(self) -> list[dict[str, Any]]:
        return lines(self.out / "generator" / "viewer_turns.jsonl")

    @property
    def sessions(self) -> set[str]:
        """Every session that the target ever gave out."""
        entries = lines(self.out / "generator" / LEDGER)
        return {entry["session"] for entry in entries if entry["session"]}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def scenario(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenario")
    with wave.open(str(folder / "question.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x10\x02" * 16_000)
    (folder / "scenario.yaml").write_text(SCENARIOS)
    return folder / "scenario.yaml"


def command(target, scenario, out, *options):
    program = ["taskset", "-c", CORE, sys.executable, "-m", "talkscope.cli", "load"]
    program += ["--target", target.url, "--model", MODEL, "--scenario", str(scenario)]
    return [*program, "--log", str(target.log), "--out", str(out), *options]


def left_on(target, sessions):
    """Sessions that the target still has.

    It closes them one after the other, and each takes it a second or two while it speaks.
    """
    deadline = time.monotonic() + 60
    while left := {s for s in sessions if session_state(target, s) != "closed"}:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return set()


RUN = ("--users", "3", "--ramp", "3", "--duration", "8", "--stop-timeout", "10", "--seed", "1")


@contextlib.contextmanager
def started(target, scenario, folder, *options):
    """A run that has a session by now; yields its process and what it leaves."""
    run = Running(folder / "run", folder / "stderr")
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            command(target, scenario, run.out, *options),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=ROOT,
        )
    try:
        wait_until(lambda: run.sessions or child.poll() is not None, "a session", 90)
        yield child, run
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


@pytest.fixture(scope="module")
def good(unified, scenario, tmp_path_factory) -> Running:
    """A run of three viewers that the generator kept up with, its exporter closed to others."""
    for _ in range(TRIES):
        folder = tmp_path_factory.mktemp("good")
        (folder / "token").write_text("s3cret")
        token = ("--exporter-token-file", str(folder / "token"))
        own = ("--", "--html", str(folder / PAGE), "--csv", str(folder / TABLES))
        with started(unified, scenario, folder, *RUN, *token, *own) as (child, run):
            child.wait(120)
        if child.returncode != INVALID:
            break
    assert child.returncode == GOOD, run.stderr
    return run


def test_a_run_that_kept_up_is_good_and_leaves_nothing(unified, good):
    account = good.account
    assert not account["verdict"]["saturated"]
    assert (account["losses"], account["orphans"], account["failures"]) == ([], [], {})
    assert len(good.sessions) == account["sessions_opened"] >= 3
    assert left_on(unified, good.sessions) == set()


def test_viewers_did_what_the_scenarios_say(good):
    by_scenario = Counter(turn["scenario"] for turn in good.turns)
    assert by_scenario["chat"] > by_scenario["voice"] >= 1
    for turn in good.turns:
        said = InputKind.SPEECH if turn["scenario"] == "voice" else InputKind.TEXT
        assert turn["input"] == said
        interrupted = turn["scenario"] == "chat" and int(turn["turn"]) % 2 == 0
        assert turn["outcome"] == (Outcome.INTERRUPTED if interrupted else Outcome.COMPLETED)
        assert (stages.INTERRUPT_LATENCY.key in turn["values"]) == interrupted
        assert turn["values"][stages.PERCEIVED_TTFA.key] > 0


def test_the_bundle_holds_every_turn_of_every_viewer_and_can_be_read_again(good):
    # Reading it checks every file's hash.
    bundles.read(good.out / "bundle")
    in_bundle = {
        (turn["session"], int(turn["client_turn"]))
        for turn in lines(good.out / "bundle" / "turns.jsonl")
    }
    assert in_bundle == {(turn["session"], int(turn["turn"])) for turn in good.turns}
    assert json.loads((good.out / "bundle" / ACCOUNT).read_text()) == good.account
    again = [sys.executable, "-m", "talkscope.cli", "report", str(good.out / "bundle")]
    told = subprocess.run(again, capture_output=True, text=True, cwd=ROOT, check=False)
    assert told.returncode == 0, told.stderr
    completed = sum(turn["outcome"] == Outcome.COMPLETED for turn in good.turns)
    assert f"({completed} completed" in told.stdout


def test_a_generator_that_lost_its_core_voids_its_run_and_says_what_it_needs(
    unified, scenario, tmp_path, good
):
    with started(unified, scenario, tmp_path, *RUN) as (child, run):
        with hogs(CORE, 4):
            wait_until(lambda: run.ended or child.poll() is not None, "the end of the run", 90)
        child.wait(60)
    assert child.returncode == INVALID, run.stderr
    verdict = run.account["verdict"]
    assert verdict["text"] == "invalid: generator saturated"
    assert verdict["workers_to_add"] >= 1
    assert f"advice: {verdict['advice']}" in run.stderr
    assert "**Invalid: generator saturated: " in (run.out / "report.md").read_text()
    assert left_on(unified, run.sessions) == set()
    # The same command, with the core to itself.
    assert not good.account["verdict"]["saturated"]


def test_ctrl_c_in_the_middle_leaves_no_session_and_an_account(unified, scenario, tmp_path):
    options = ("--users", "3", "--ramp", "3", "--stop-timeout", "0")
    with started(unified, scenario, tmp_path, *options) as (child, run):
        wait_until(lambda: len(run.sessions) >= 3, "three sessions", 90)
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        child.wait(60)
    assert run.account["turns_cut_off"] >= 1, run.stderr
    assert run.account["orphans"] == []
    assert left_on(unified, run.sessions) == set()


def test_locusts_own_page_and_tables_count_what_the_account_counts(good):
    folder = good.log.parent
    with (folder / f"{TABLES}_stats.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["Type"]]
    counted: Counter[str] = Counter()
    for row in rows:
        counted[row["Name"]] += int(row["Request Count"])
        assert row["Failure Count"] == "0"
    told = good.account["stages"]
    stages_of_turns = (stages.PERCEIVED_TTFA, stages.PERCEIVED_TTFV, stages.TURN_COMPLETION)
    for stage in (stages.SESSION_CREATE, *stages_of_turns):
        assert counted[stage.key] == told[stage.key]["n"]
    assert {row["Type"] for row in rows} == {"chat", "voice"}
    assert stages.PERCEIVED_TTFV.key in (folder / PAGE).read_text()


@contextlib.contextmanager
def nodes(folder: Path, commands: dict[str, list[str]]) -> Iterator[dict[str, subprocess.Popen]]:
    """Locust processes by name, each with a log of its own; none outlives this."""
    running = {}
    # The namespaces' addresses are no loopback: a proxy of the environment would be asked.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*", "no_proxy": "*"}
    try:
        for name, told in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    told, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
                )
        yield running
    finally:
        for child in running.values():
            if child.poll() is None:
                child.kill()
            child.wait()


@contextlib.contextmanager
def distributed(unified, folder):
    """A target and how to reach it from two machines: (target, its URL, host, machines).

    The machines are network namespaces; where there can be none, both are this one.
    """
    with namespaces.machines(2) as machines:
        if not machines:
            yield unified, unified.url, "127.0.0.1", []
            return
        options = ("--llm-text", SHORT_ANSWER, "--media-address", namespaces.HOST)
        with running(folder / "target", "unified", *options) as target:
            inside = int(target.url.rpartition(":")[2])
            with namespaces.forwarded(namespaces.HOST, inside) as port:
                yield target, f"http://{namespaces.HOST}:{port}", namespaces.HOST, machines


def test_a_killed_worker_costs_its_share_and_nothing_else(
    unified, scenario, tmp_path, record_property
):
    records = tmp_path / "records"
    turns = records / "viewer_turns.jsonl"
    generator = [sys.executable, "-m", "loadgen.load"]
    with distributed(unified, tmp_path) as (target, url, host, machines):
        record_property("machines", [machine.name for machine in machines] or "loopback")
        port = str(free_port())
        master = [*generator, "--master", "--master-bind-host", host, "--master-bind-port", port]
        master += ["--expect-workers", "2", "--headless", "--only-summary", "--host", url]
        master += ["--allow-target", host, "--model", MODEL, "--scenario", str(scenario)]
        master += ["--records", str(records), "--users", "4", "--spawn-rate", "4"]
        master += ["--run-time", "12s", "--stop-timeout", "10"]
        worker = [*generator, "--worker", "--master-host", host, "--master-port", port]
        workers = [worker, worker]
        if machines:
            workers = [
                machine.command(*worker, "--candidate-address", machine.address)
                for machine in machines
            ]
        commands = {"master": master, "one": workers[0], "two": workers[1]}
        with nodes(tmp_path, commands) as processes:
            wait_until(
                lambda: len({entry["worker"] for entry in lines(turns)}) == 2,
                "turns of both workers",
                60,
            )
            before = len(lines(turns))
            processes["two"].kill()
            status = processes["master"].wait(90)
        told = (tmp_path / "master.log").read_text()
        account = json.loads((records / ACCOUNT).read_text())
        lost = [worker for worker in account["workers"].values() if worker["lost"]]
        survivors = [worker for worker in account["workers"].values() if worker["finished"]]
        assert (len(lost), len(survivors)) == (1, 1), told
        # It went on, says what it lacks, and is not called good.
        assert sum(account["turns"].values()) > before
        assert len(account["losses"]) == 1
        assert "was lost" in account["losses"][0]
        assert status in (FAILED, INVALID)
        assert account["orphans"] == []
        entries = lines(records / LEDGER)
        assert left_on(target, {e["session"] for e in entries if e["session"]}) == set()
