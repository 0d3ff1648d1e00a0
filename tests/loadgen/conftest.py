"""The real target on loopback, for the tests marked e2e."""

from __future__ import annotations

import os

import pytest

from talkscope import children

READY_S = 300.0
SHORT_ANSWER = "Hello there, I am well."


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    """OpenTalking in unified mode with OmniRT's synthetic avatar; answers take some 2 s."""
    options = ["--mode", "unified", "--llm-text", SHORT_ANSWER]
    if venvs := os.environ.get("TALKSCOPE_TARGET_VENVS"):
        options += ["--venvs", venvs]
    folder = tmp_path_factory.mktemp("target")
    with children.demo_target(options, folder, READY_S) as running:
        yield running
