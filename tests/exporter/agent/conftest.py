from __future__ import annotations

import pytest

from tests.exporter.agent import standin
from tests.exporter.agent.observed import Observed


@pytest.fixture
def observed(monkeypatch):
    """The stand-in of OpenTalking's unified mode under all hooks."""
    standin.install(monkeypatch)
    made = Observed()
    yield made
    made.hooks.remove()
