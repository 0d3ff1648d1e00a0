"""The demo target under test: its modules, its environments, and a supervisor to run it with.

What comes in: TALKSCOPE_TARGET_VENVS, or the environments that deploy/demo/install.py makes by
default. What goes out: a started supervisor, and a way to see that it left nothing running.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "deploy" / "demo"

# The scripts there import one another as top-level modules, as they do when they are run.
sys.path.insert(0, str(DEMO))

# Start-up takes two seconds; the rest is for a machine that is busy with something else.
PATIENCE = 120


class Supervised:
    """A running supervisor: what it says, and what it has started."""

    def __init__(self, directory, *options, environment=None):
        self.directory = directory
        self.stderr = []
        self._lines = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, str(DEMO / "supervisor.py"), f"--dir={directory}", *options],
            # The folder is how leftovers() knows this run's processes.
            env={**os.environ, "TALKSCOPE_TEST_RUN": str(directory), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            if stream is self.process.stderr:
                self.stderr.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def until_says(self, words):
        """Return the line, of stdout or stderr, that has these words."""
        ends = 0
        while ends < 2:
            line = self._lines.get(timeout=PATIENCE)
            if line is None:
                ends += 1
            elif words in line:
                return line
        pytest.fail(f"the supervisor ended without saying {words!r}:\n{''.join(self.stderr)}")

    def until_ready(self):
        """Return what target.json holds once the target is ready."""
        self.until_says("ready: http://")
        return json.loads((self.directory / "target.json").read_text())

    def stop(self):
        """Stop in good order; return the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def leftovers(self):
        """Return the command lines of this run's processes that still live."""
        living = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                works_in = (folder / "cwd").readlink()
            except OSError:
                continue
            # Redis writes its title over its environment, but works in the run's folder.
            if str(self.directory).encode() in environment or works_in == self.directory:
                living.append(command)
        return living

    def until_nothing_is_left(self):
        """Wait until all of this run's processes are gone; fail if some stay."""
        deadline = time.monotonic() + PATIENCE
        while (living := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert living == []


@pytest.fixture(scope="session")
def venvs():
    """Where the target's environments are."""
    root = Path(os.environ.get("TALKSCOPE_TARGET_VENVS", ROOT / "build" / "target"))
    for name in ("opentalking", "omnirt"):
        if not (root / name / "bin" / "python").exists():
            pytest.fail(
                f"{root / name} is no environment of the target; make it with "
                "`python deploy/demo/install.py`, or name another root in TALKSCOPE_TARGET_VENVS"
            )
    return root


@pytest.fixture(scope="module")
def supervise(venvs, tmp_path_factory):
    """Start supervisors; whatever is left of them at the end is stopped."""
    started = []

    def start(*options, environment=None):
        directory = tmp_path_factory.mktemp("run")
        one = Supervised(directory, f"--venvs={venvs}", *options, environment=environment)
        started.append(one)
        return one

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture(scope="session")
def http_json():
    """Ask a loopback server for JSON."""

    def ask(url, changes=None):
        request = urllib.request.Request(url)
        if changes is not None:
            request = urllib.request.Request(url, json.dumps(changes).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    return ask


@pytest.fixture(scope="session")
def in_venv(venvs):
    """Run a script inside one of the target's environments; return the JSON that it prints."""

    def run(name, *arguments, environment=None):
        done = subprocess.run(
            [str(venvs / name / "bin" / "python"), *arguments],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
