"""A crew of small processes; the target itself is in test_supervisor.py."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Child, ChildError, Crew, LogFile

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
PATIENCE = 60


def python(code):
    return [sys.executable, "-u", "-c", code]


def start(crew, code, name="child"):
    return crew.start(name, python(code), dict(os.environ), Path.cwd())


def alive(pid):
    """Whether a process runs; one that is dead but not yet buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until_dead(pid):
    deadline = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


async def never():
    return "it never is"


async def at_once():
    return None


async def said(child: Child, word):
    """Wait until the child's log has a line with this word; return the rest of the line."""
    while True:
        if found := re.search(rf"{word} (\d+)\n", child.log.path.read_text()):
            return int(found[1])
        await asyncio.sleep(0.02)


def test_every_line_of_a_log_has_the_time_of_its_arrival(tmp_path):
    log = LogFile(tmp_path / "child.log")
    log.feed(b"one\ntw", 1795363922.340123)
    log.feed(b"o\n\xff\n", 1795363923.0)
    log.feed(b"unfinished", 1795363923.5)
    log.close(1795363924.0)
    assert (tmp_path / "child.log").read_bytes() == (
        b"2026-11-22T16:12:02.340123Z one\n"
        b"2026-11-22T16:12:03.000000Z two\n"
        b"2026-11-22T16:12:03.000000Z \xff\n"
        b"2026-11-22T16:12:04.000000Z unfinished\n"
    )


def test_a_line_is_in_the_file_as_soon_as_it_is_whole(tmp_path):
    log = LogFile(tmp_path / "child.log")
    log.feed(b"one\ntwo", 0.0)
    assert (tmp_path / "child.log").read_text() == "1970-01-01T00:00:00.000000Z one\n"


def test_a_child_that_ends_too_soon_is_reported_with_its_last_words(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            await start(crew, "print('no licence'); raise SystemExit(3)")
            return await crew.until_one_ends()

    error = str(asyncio.run(scenario()))
    assert error.startswith("child exited with status 3 before it was ready; the last lines of ")
    assert str(tmp_path / "child.log") in error
    assert error.endswith("Z no licence")


def test_a_child_that_dies_after_it_was_ready_is_reported_as_that(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            child = await start(crew, "import time; time.sleep(1000)")
            await crew.until_ready(child, at_once, timeout=1)
            child.process.kill()
            return await crew.until_one_ends()

    error = str(asyncio.run(scenario()))
    assert error == "child was ended by SIGKILL while the target was running; it wrote nothing"


def test_a_child_in_the_place_of_one_that_ended_goes_on_with_its_log(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            await start(crew, "print('first')")
            ended = await crew.until_one_ends()
            await crew.dismiss(ended.child)
            command = python("print('second')")
            again = await crew.start("child", command, os.environ, Path.cwd(), again=True)
            await crew.until_one_ends()
            return again.log.path.read_text()

    lines = asyncio.run(scenario()).splitlines()
    assert [line.split()[1] for line in lines] == ["first", "second"]


def test_a_child_that_is_not_ready_in_time_is_reported_with_what_is_missing(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            child = await start(crew, "import time; time.sleep(1000)")
            try:
                await crew.until_ready(child, never, timeout=0.1)
            finally:
                assert alive(child.pid)
        return child

    with pytest.raises(ChildError, match=r"child was not ready after 0\.1 s \(it never is\)"):
        asyncio.run(scenario())


def test_the_end_of_the_block_ends_children_and_what_they_started(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            child = await start(
                crew,
                "import subprocess as s, time; print('mine', s.Popen(['sleep', '1000']).pid)\n"
                "time.sleep(1000)",
            )
            grandchild = await asyncio.wait_for(said(child, "mine"), PATIENCE)
        return child.pid, grandchild

    child, grandchild = asyncio.run(scenario())
    assert not alive(child)
    until_dead(grandchild)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("processes.STOP_SECONDS", 0.2)

    async def scenario():
        async with Crew(tmp_path) as crew:
            child = await start(
                crew,
                "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                "print('deaf', os.getpid()); time.sleep(1000)",
            )
            await asyncio.wait_for(said(child, "deaf"), PATIENCE)
        return child

    assert asyncio.run(scenario()).process.returncode == -signal.SIGKILL


def test_those_that_others_lean_on_are_stopped_last(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit('gone')))\n"
        "print('up', os.getpid()); time.sleep(1000)"
    )

    async def scenario():
        async with Crew(tmp_path) as crew:
            for name, last in (("bus", True), ("server", False)):
                command = python(code)
                child = await crew.start(name, command, os.environ, Path.cwd(), stop_last=last)
                await asyncio.wait_for(said(child, "up"), PATIENCE)

    asyncio.run(scenario())
    gone = {name: (tmp_path / f"{name}.log").read_text().split()[-2] for name in ("bus", "server")}
    assert gone["server"] < gone["bus"]


def test_the_last_output_of_a_child_is_kept_when_it_is_stopped(tmp_path):
    async def scenario():
        async with Crew(tmp_path) as crew:
            child = await start(
                crew,
                "import os, signal, sys, time\n"
                "signal.signal(signal.SIGTERM, lambda *_: sys.exit('gone in good order'))\n"
                "print('up', os.getpid()); time.sleep(1000)",
            )
            await asyncio.wait_for(said(child, "up"), PATIENCE)

    asyncio.run(scenario())
    assert (tmp_path / "child.log").read_text().endswith("Z gone in good order\n")


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from processes import Crew

CHILD = '''
import os, subprocess, time
print("pids", os.getpid(), subprocess.Popen(["sleep", "1000"]).pid, flush=True)
time.sleep(1000)
'''

async def main():
    async with Crew(Path(sys.argv[2])) as crew:
        child = await crew.start("child", [sys.executable, "-c", CHILD], os.environ, Path.cwd())
        while "pids" not in child.log.path.read_text():
            await asyncio.sleep(0.02)
        print(child.log.path.read_text().split("pids ")[1], flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_nothing_survives_a_supervisor_that_is_killed(tmp_path):
    with subprocess.Popen(
        [*python(SUPERVISOR), str(DEMO), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        child, grandchild = map(int, supervisor.stdout.readline().split())
        assert alive(child)
        assert alive(grandchild)
        supervisor.kill()
    until_dead(child)
    until_dead(grandchild)
