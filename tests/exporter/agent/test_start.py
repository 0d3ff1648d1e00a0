"""The two ways to start the agent, and what it may need for that."""

import ast
import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from exporter.agent import instrumentor, running
from exporter.agent.settings import EXPORTER
from exporter.stages import ProcessRole
from tests.processes import ROOT, free_port

SOURCES = sorted((ROOT / "exporter" / "agent").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(SOURCES[0].parent)))
def test_only_what_opentalkings_environment_has_is_imported(path):
    """What of OpenTalking or OpenTelemetry is there is found out while running."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            ours = name.startswith(("exporter.agent", "exporter.stages", "exporter.steady_clock"))
            assert ours or name.split(".")[0] in sys.stdlib_module_names, name


def run(*arguments):
    command = [sys.executable, "-m", "exporter.agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("arguments", [[], ["opentalking-doctor"]])
def test_only_known_scripts_are_run(arguments):
    done = run(*arguments)
    assert done.returncode == 64
    assert "opentalking-unified" in done.stderr


def test_a_script_that_is_not_installed_is_named():
    done = run("opentalking-unified")
    assert done.returncode == 69
    assert "opentalking-unified is not installed" in done.stderr


@pytest.fixture
def otel(monkeypatch):
    """The instrumentor as it is where opentelemetry-instrumentation is installed."""
    base = type("BaseInstrumentor", (), {})
    name = "opentelemetry.instrumentation.instrumentor"
    module = ModuleType(name)
    module.BaseInstrumentor = base
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, name, module)
        loaded = importlib.reload(instrumentor)
    yield loaded.TalkscopeInstrumentor, base
    importlib.reload(instrumentor)


def test_the_instrumentor_is_one_of_opentelemetrys(otel):
    made, base = otel
    assert issubclass(made, base)
    assert made().instrumentation_dependencies() == ["opentalking >= 0.1, < 0.2"]


def test_the_instrumentor_starts_and_stops_the_agent(otel, monkeypatch):
    made, _ = otel
    monkeypatch.setenv(EXPORTER, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python", "/venv/bin/opentalking-worker"])
    made()._instrument()
    agent = running._agent
    assert agent is not None
    assert agent.role is ProcessRole.WORKER
    made()._instrument()
    assert running._agent is agent, "one of a process"
    made()._uninstrument()
    assert running._agent is None


def test_without_settings_the_instrumentor_does_nothing(otel, monkeypatch, caplog):
    made, _ = otel
    monkeypatch.delenv(EXPORTER, raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["opentalking-unified"])
    made()._instrument()
    assert running._agent is None
    assert EXPORTER in caplog.text


def test_other_programs_of_the_environment_are_left_alone(otel, monkeypatch):
    made, _ = otel
    monkeypatch.setenv(EXPORTER, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python", "-m", "pip", "list"])
    made()._instrument()
    assert running._agent is None


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python", "/venv/bin/opentalking-unified", "--port", "8000"], ProcessRole.UNIFIED),
        (["python", "-m", "opentalking.runtime.main"], ProcessRole.WORKER),
        (["python", "/venv/bin/uvicorn", "apps.api.main:create_app", "--factory"], ProcessRole.API),
        (["python", "/venv/bin/opentalking-doctor"], None),
        ([], None),
    ],
)
def test_the_command_line_says_which_process_this_is(command, role):
    assert running.role_of(command) is role
