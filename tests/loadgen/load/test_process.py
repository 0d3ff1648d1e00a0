"""Whole processes against the stand-in: plain Locust, wrong usage, and every way to be stopped."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from exporter import stages
from loadgen.load.account import ACCOUNT
from tests.loadgen.standin import SESSION, running
from tests.processes import ROOT, wait_until

LOCUSTFILE = str(ROOT / "loadgen" / "locustfile.py")
PLAIN = [sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary"]
NOWHERE = "http://127.0.0.1:9"
SCENARIO = "scenarios: [{name: a, turns: 500, think: 0.2, inputs: [{say: Hello}]}]"


def environment(**more):
    # As from a shell: this process has set what keeps Locust from patching.
    ours = {k: v for k, v in os.environ.items() if k not in {"CI", "LOCUST_SKIP_MONKEY_PATCH"}}
    return ours | {"PYTHONPATH": str(ROOT)} | more


def ended(command, **more):
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**more),
        timeout=60,
        check=False,
    )


def test_plain_locust_finds_the_users():
    done = ended([sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--list"])
    assert "Viewer" in done.stdout


def test_the_process_starts_itself_again_with_threads_left_alone(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "from gevent import monkey\n"
        "from loadgen.locustfile import Viewer\n"
        "print([monkey.is_module_patched(m) for m in ('socket', 'threading', 'select')])\n"
    )
    done = ended([sys.executable, "-m", "locust", "-f", str(probe), "--list"])
    assert done.stdout.splitlines()[0] == "[True, False, False]"


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "problem"),
    [
        ([], {}, 64, "name the target"),
        (["--host", "http://x.example"], {"CI": "true"}, 64, "--allow-target x.example"),
        (["--host", NOWHERE, "--scenario", "none.yaml"], {}, 64, "none.yaml: no such file"),
        (["--host", NOWHERE, "--arrivals", "poisson:0"], {}, 64, "the rate is not a number"),
        (["--host", NOWHERE, "-u", "501"], {}, 64, "--users 501 is more than --max-sessions"),
        (["--host", NOWHERE, "--exporter-token-file", "none"], {}, 64, "cannot read none"),
        (["--host", NOWHERE], {}, 1, f"nothing answers at {NOWHERE}"),
    ],
)
def test_what_cannot_be_run_ends_at_once_and_says_why(arguments, variables, status, problem):
    done = ended([*PLAIN, *arguments], **variables)
    assert problem in done.stderr
    assert done.returncode == status


def test_a_model_that_the_target_does_not_have_is_wrong_usage():
    with running() as standin:
        done = ended([*PLAIN, "--host", standin.url, "--model", "gpt"])
    assert "unknown model 'gpt'" in done.stderr
    assert done.returncode == 64


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    return str(path)


def begun(command, standin, log):
    """A load test that is speaking."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment()
        )
    speak = f"POST /sessions/{SESSION}/speak"
    wait_until(lambda: speak in standin.requests or child.poll() is not None, "the first input", 60)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_plain_locust_that_is_stopped_leaves_no_session(tmp_path, scenario, number):
    records = tmp_path / "records"
    with running() as standin:
        command = [*PLAIN, "--host", standin.url, "--scenario", scenario]
        child = begun([*command, "--records", str(records)], standin, tmp_path / "log")
        child.send_signal(number)
        child.wait(60)
    log = (tmp_path / "log").read_text()
    assert standin.deleted == 1, log
    account = json.loads((records / ACCOUNT).read_text())
    assert (account["visits"], account["orphans"], account["losses"]) == (1, [], [])
    assert "verdict: " in log


def test_recorded_arrivals_are_lived_and_the_run_ends_by_itself(tmp_path):
    (tmp_path / "s.yaml").write_text("scenarios: [{name: a, inputs: [{say: Hello}]}]")
    # The second viewer comes when the first has left: the stand-in has one session.
    (tmp_path / "arrivals.txt").write_text("0\n3\n")
    records = tmp_path / "records"
    with running() as standin:
        command = [*PLAIN, "--host", standin.url, "--scenario", str(tmp_path / "s.yaml")]
        command += ["--arrivals", str(tmp_path / "arrivals.txt"), "--records", str(records)]
        done = ended(command)
    assert standin.deleted == 2, done.stderr
    lines = (records / "visits.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    # From the intended start, whatever the generator was doing then.
    assert first["waited_s"] >= first["late_s"] >= 0
    apart = (second["started_unix"] - second["waited_s"]) - (
        first["started_unix"] - first["waited_s"]
    )
    assert apart == pytest.approx(3.0, abs=0.1)
    account = json.loads((records / ACCOUNT).read_text())
    assert (account["visits"], account["turns"]) == (2, {"completed": 2})


def test_sessions_of_a_killed_generator_are_deleted_by_the_command_that_ran_it(tmp_path, scenario):
    with running() as standin:
        command = [sys.executable, "-m", "talkscope.cli", "load", "--target", standin.url]
        command += ["--scenario", scenario, "--out", str(tmp_path / "out")]
        child = begun(command, standin, tmp_path / "log")
        found = ["pgrep", "-P", str(child.pid), "-f", "loadgen.load"]
        generator = subprocess.run(found, capture_output=True, text=True, check=True)
        os.kill(int(generator.stdout), signal.SIGKILL)
        child.wait(60)
    log = (tmp_path / "log").read_text()
    assert standin.deleted == 1, log
    assert "deleted 1 session that was left" in log
    assert child.returncode == 1


def test_a_target_that_goes_away_leaves_its_session_named(tmp_path, scenario):
    records = tmp_path / "records"
    with running() as standin:
        command = [*PLAIN, "--host", standin.url, "--scenario", scenario, "--run-time", "5s"]
        child = begun([*command, "--records", str(records)], standin, tmp_path / "log")
    child.wait(60)
    log = (tmp_path / "log").read_text()
    orphans = json.loads((records / ACCOUNT).read_text())["orphans"]
    assert SESSION in {orphan["session"] for orphan in orphans}, log
    assert f"orphan: session {SESSION} may still be on the target" in log


def test_locusts_own_page_and_tables_have_a_row_for_every_stage(tmp_path, scenario):
    page, tables, records = tmp_path / "load.html", tmp_path / "load", tmp_path / "records"
    with running() as standin:
        command = [*PLAIN, "--host", standin.url, "--scenario", scenario, "--run-time", "5s"]
        command += ["--stop-timeout", "10", "--records", str(records)]
        done = ended([*command, "--html", str(page), "--csv", str(tables)])
    assert done.returncode in (0, 3), done.stderr
    turns = json.loads((records / ACCOUNT).read_text())["turns"]["completed"]
    with (tmp_path / "load_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert rows[stages.SESSION_CREATE.key]["Request Count"] == "1"
    shown = re.findall(
        r'"name": "([a-z_]+)", "num_failures": 0, "num_requests": (\d+)', page.read_text()
    )
    assert dict(shown) == {name: row["Request Count"] for name, row in rows.items() if row["Type"]}
    for stage in (stages.PERCEIVED_TTFA, stages.TURN_COMPLETION):
        assert rows[stage.key]["Type"] == "a"
        assert int(rows[stage.key]["Request Count"]) == turns >= 1
        assert rows[stage.key]["Failure Count"] == "0"
    written = {path.name for path in tmp_path.glob("load_*")}
    assert written == {
        f"load_{name}.csv" for name in ("stats", "stats_history", "failures", "exceptions")
    }
