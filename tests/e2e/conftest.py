from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from talkscope import children
from tests.processes import ROOT

READY_S = 180.0

# One short sentence: a turn takes some three seconds instead of nine.
SHORT_ANSWER = "Hello there, I am well."


@dataclass(frozen=True)
class Bench:
    """A finished `talkscope bench`."""

    status: int
    stdout: str
    stderr: str
    out: Path

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.out / "result.json").read_text())

    @property
    def turns(self) -> list[dict[str, Any]]:
        lines = (self.out / "bundle" / "turns.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def measured(self) -> list[dict[str, Any]]:
        return [turn for turn in self.turns if turn["phase"] == "measured"]


def bench(out: Path, *arguments: str, timeout: float = 300.0, **environment: str) -> Bench:
    """Run `talkscope bench` as a user does, to its end."""
    command = [sys.executable, "-m", "talkscope.cli", "bench", "--out", str(out), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        env=os.environ | environment,
        check=False,
    )
    return Bench(done.returncode, done.stdout, done.stderr, out)


def attach(target: children.DemoTarget) -> list[str]:
    """Options that attach a bench to a target that is already running."""
    arguments = ["--target", target.url, "--model", "wav2lip", "--log", str(target.log)]
    return [*arguments, "--redis", target.redis] if target.redis else arguments


@contextlib.contextmanager
def running(folder: Path, mode: str, *options: str) -> Iterator[children.DemoTarget]:
    folder.mkdir(parents=True, exist_ok=True)
    with children.demo_target(["--mode", mode, *options], folder, READY_S) as target:
        yield target


@pytest.fixture(scope="session")
def unified(tmp_path_factory) -> Iterator[children.DemoTarget]:
    """The real target in unified mode, shared by the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("unified")
    with running(folder, "unified", "--llm-text", SHORT_ANSWER) as target:
        yield target


@pytest.fixture(scope="session")
def split(tmp_path_factory) -> Iterator[children.DemoTarget]:
    """The real target in split mode on a real Redis, shared likewise."""
    folder = tmp_path_factory.mktemp("split")
    with running(folder, "split", "--llm-text", SHORT_ANSWER) as target:
        yield target


def counters(target: children.DemoTarget) -> dict[str, float]:
    """What the provider and OmniRT themselves say they have served."""
    provider = httpx.get(f"{target.facts['provider']['url']}/counters").json()
    omnirt = httpx.get(f"{target.facts['omnirt']['url']}/synthetic/counters").json()
    return {**{f"provider {k}": v for k, v in provider.items()}, **omnirt}


def session_state(target: children.DemoTarget, session: str) -> str:
    """OpenTalking's own word on a session."""
    return str(httpx.get(f"{target.url}/sessions/{session}").json()["state"])
