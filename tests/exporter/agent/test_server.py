"""The agent in a process that a real uvicorn serves: the end of the process loses nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.exporter.agent.receiver import receiver
from tests.processes import ROOT, free_port, wait_until

# Takes its last item when the application shuts down, as OpenTalking's interrupted speeches do.
PROGRAM = """
import sys, time, uvicorn
from exporter.agent import process, running
from exporter.agent.events import PublishedEvent
from exporter.agent.settings import Settings
from exporter.stages import ProcessRole

process.REPORT_S = 0.2
url, port = sys.argv[1:]
agent = running.start(Settings(url), ProcessRole.API) if url else None

async def application(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if agent:
        agent.courier.take(PublishedEvent("s", time.time(), '{"event": "last", "data": {}}'))
    await send({"type": "lifespan.shutdown.complete"})

uvicorn.run(application, port=int(port))
"""


@contextlib.contextmanager
def serving(url):
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, url, str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        try:
            for line in child.stderr:
                if "Uvicorn running" in line:
                    break
            yield child
        finally:
            child.kill()


def stopped_by(child, number):
    os.kill(child.pid, number)
    return child.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_last_word_arrives_and_the_exit_status_is_uvicorns_own(number):
    with serving("") as plain:
        status = stopped_by(plain, number)
    with receiver() as received, serving(received.url) as child:
        wait_until(lambda: received.of_kind("process"), "the first record")
        assert stopped_by(child, number) == status
        assert [r["event"] for r in received.of_kind("event")] == ["last"]


def test_an_exporter_that_is_away_holds_the_end_up_for_a_moment_only():
    with serving(f"http://127.0.0.1:{free_port()}") as child:
        begun = time.monotonic()
        assert stopped_by(child, signal.SIGTERM) == -signal.SIGTERM
        # Two seconds of patience (running.FLUSH_S), and a machine that is busy.
        assert time.monotonic() - begun < 10.0


def test_the_process_reports_itself_while_it_serves():
    with receiver() as received, serving(received.url) as child:
        records = received.wait_for("process", 2)
        stopped_by(child, signal.SIGTERM)
    assert {r["role"] for r in records} == {"api"}
    assert all(r["rss_bytes"] > 0 and r["event_loop_lag_seconds"]["max"] >= 0 for r in records)
    assert all("media_queue" not in r and "realtime_backlog" not in r for r in records)
