"""The synthetic viewer on the real target: it measures while it runs and leaves nothing behind."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from exporter import stages
from tests.e2e.conftest import session_state
from tests.processes import ROOT, exporter, free_port, process, wait_until
from tests.prometheus import remarks

pytestmark = pytest.mark.e2e

TOKEN = "s3cret"


def total(text: str, selector: str) -> float:
    """The sum of the samples whose name and labels match a regular expression."""
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(selector, line)
    )


def command(target: str, marks: str, port: int, *options: str) -> list[str]:
    ours = [sys.executable, "-m", "talkscope.cli", "probe", "--target", target, "--exporter", marks]
    return [*ours, "--listen", f"127.0.0.1:{port}", *options]


@pytest.fixture(scope="module")
def probed(unified, tmp_path_factory):
    """Its exposition after a renewed session, its exit status on SIGTERM, sessions and log."""
    folder = tmp_path_factory.mktemp("probe")
    port = free_port()
    arguments = ["--target", unified.url, "--bundle", str(folder / "bundle")]
    (folder / "token").write_text(TOKEN)
    with exporter(folder, *arguments, TALKSCOPE_INGEST_TOKEN=TOKEN) as (url, _):
        options = ["--every", "1", "--turns", "2", "--exporter-token-file", str(folder / "token")]
        with process(command(unified.url, url, port, *options), log=folder / "log") as child:

            def own() -> str:
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/metrics").text
                except httpx.TransportError:
                    return ""

            wait_until(
                lambda: total(own(), r"talkscope_probe_turns_total.*completed") >= 3,
                "three answers",
                90.0,
            )
            mine = own()
            wait_until(
                lambda: (
                    total(
                        httpx.get(f"{url}/metrics").text,
                        rf'{stages.PERCEIVED_TTFV.family}_count.*startup="steady"',
                    )
                    >= 1
                ),
                "a steady turn at the exporter",
                60.0,
            )
            child.send_signal(signal.SIGTERM)
            status = child.wait(20)
    events = (folder / "bundle" / "sessions.jsonl").read_text()
    sessions = set(re.findall(r'"session": ?"([^"]+)"', events))
    return mine, status, sessions, (folder / "log").read_text()


def test_it_counts_its_answers_and_renews_its_session(probed):
    mine, *_ = probed
    assert total(mine, r"talkscope_probe_sessions_total") >= 2
    assert total(mine, r"talkscope_probe_turns_total.*no_session") == 0
    assert time.time() - total(mine, "talkscope_probe_last_answer_timestamp_seconds") < 120
    assert remarks(mine.encode()) == b""


def test_it_leaves_no_session_behind_when_it_is_stopped(probed, unified):
    _, status, sessions, log = probed
    assert status == 130, log
    assert len(sessions) >= 2
    wait_until(
        lambda: {session_state(unified, session) for session in sessions} == {"closed"},
        "the end of every session",
        60.0,
    )


def test_a_target_that_is_down_is_counted_and_told_once(tmp_path: Path):
    port = free_port()
    nowhere = f"http://127.0.0.1:{free_port()}"
    with process(command(nowhere, nowhere, port, "--every", "1"), log=tmp_path / "log") as child:

        def due() -> float:
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            except httpx.TransportError:
                return 0.0
            assert "last_answer" not in text
            return total(text, r'talkscope_probe_turns_total\{outcome="no_session"')

        wait_until(lambda: due() >= 3, "three turns that were due", 60.0)
        assert child.poll() is None
    assert (tmp_path / "log").read_text().count("no answer (no_session)") == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--every", "0"], "--every"),
        (["--listen", "9110"], "--listen"),
        (["--turns", "x"], "--turns"),
        (["--exporter-token-file", "/nowhere"], "--exporter-token-file: cannot read /nowhere"),
    ],
)
def test_wrong_usage_names_the_option(options, problem):
    done = subprocess.run(
        [*command("http://127.0.0.1:1", "http://127.0.0.1:1", 1), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 64
    assert problem in done.stderr
