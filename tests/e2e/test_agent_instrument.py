"""The agent under `opentelemetry-instrument`: one folder on the path of the real OpenTalking."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporter.agent.receiver import receiver
from tests.processes import ROOT, free_port

pytestmark = pytest.mark.e2e

TARGET = ROOT / "build" / "target" / "opentalking" / "bin"
OPENTELEMETRY = ("opentelemetry-distro", "opentelemetry-instrumentation", "wrapt", "packaging")
# The console script opentelemetry-instrument, without the path of its own interpreter.
INSTRUMENT = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"


def _copy(distribution: str, folder: Path) -> None:
    for file in importlib.metadata.distribution(distribution).files or ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and "__pycache__" not in file.parts and source.exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / file)


@pytest.fixture
def opentelemetry(tmp_path):
    """A folder with opentelemetry-instrument and what OpenTalking's environment lacks of it."""
    try:
        for name in OPENTELEMETRY:
            _copy(name, tmp_path / "opentelemetry")
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"needs opentelemetry-distro: {error.name} is not installed")
    return tmp_path / "opentelemetry"


@pytest.fixture
def mounted(tmp_path):
    """Talkscope as a container gets it: a folder with the packages and their dist-info."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--no-index", "--target", str(tmp_path / "mounted"), "."]
    subprocess.run(install, cwd=ROOT, check=True, timeout=120)
    return tmp_path / "mounted"


def test_opentelemetry_instrument_starts_the_agent(opentelemetry, mounted, tmp_path):
    with receiver() as received:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (mounted, opentelemetry))),
            "TALKSCOPE_EXPORTER": received.url,
            **{f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")},
        }
        command = [TARGET / "python", "-c", INSTRUMENT, TARGET / "opentalking-unified"]
        command += ["--host=127.0.0.1", f"--port={free_port()}"]
        log = tmp_path / "log.txt"
        with (
            log.open("w") as output,
            subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=output) as child,
        ):
            try:
                [reading, *_] = received.wait_for("process", 1, timeout=60.0)
                child.send_signal(signal.SIGTERM)
                status = child.wait(30)
            finally:
                child.kill()
    assert reading["role"] == "unified"
    assert status == -signal.SIGTERM
    assert "missing from now on" not in log.read_text()
