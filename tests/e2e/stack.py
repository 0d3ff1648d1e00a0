"""A deployment as the stack watches it: the real target with the agent, the real exporter, and a
WebRTC client that speaks.

It must not know Prometheus. The one thing that is no real one is the accelerator: tests/nvml.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.stages import Outcome
from loadgen.marks import MarksClient
from loadgen.opentalking import OpenTalking
from loadgen.session import Session, SessionConfig
from loadgen.turn import Input
from talkscope import children
from tests import nvml
from tests.e2e.conftest import SHORT_ANSWER, running
from tests.processes import exporter, free_port

MODEL = "wav2lip"


@dataclass(frozen=True)
class Deployment:
    """What runs: the target, and the exporter that watches it."""

    target: children.DemoTarget
    exporter: str

    @property
    def address(self) -> str:
        """HOST:PORT of the exporter."""
        return self.exporter.removeprefix("http://")

    @contextlib.contextmanager
    def spoken(self, *sessions: Sequence[Input]) -> Iterator[None]:
        """Sessions one after the other, each with these inputs; the last one still lives inside.

        Every turn must complete, and every mark must reach the exporter.
        """
        loop = asyncio.new_event_loop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            stack = contextlib.AsyncExitStack()
            marks = runner.run(self._speak(sessions, stack))
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            try:
                yield
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                runner.run(stack.aclose())
        assert marks.delivery.lost == 0, marks.delivery

    async def _speak(
        self, sessions: Sequence[Sequence[Input]], stack: contextlib.AsyncExitStack
    ) -> MarksClient:
        config = SessionConfig(model=MODEL, avatar=str(self.target.facts["avatar"]))
        client = await stack.enter_async_context(OpenTalking(self.target.url))
        marks = await stack.enter_async_context(MarksClient(self.exporter))
        for number, inputs in enumerate(sessions, 1):
            async with contextlib.AsyncExitStack() as one:
                session = await one.enter_async_context(Session(client, config, marks))
                for given in inputs:
                    turn = await session.turn(given)
                    assert turn.outcome is Outcome.COMPLETED, turn
                if number == len(sessions):
                    # Closed last, with all that it needs.
                    stack.push_async_exit(one.pop_all())
        return marks


@contextlib.contextmanager
def deployment(
    folder: Path, *options: str, state: str | None = None, **environment: str
) -> Iterator[Deployment]:
    """Split mode with the agent.

    `options` are the target's, `environment` is the exporter's; `state`: what the accelerator says.
    """
    address = f"127.0.0.1:{free_port()}"
    if state is not None:
        dial = nvml.Dial(folder / "nvml")
        dial.turn(state)
        environment |= dial.environment(nvml.build(folder / "nvml"))
    told = ("--llm-text", SHORT_ANSWER, "--agent", f"http://{address}", *options)
    with running(folder / "target", "split", *told) as target:
        arguments = ["--listen", address, "--target", target.url, "--redis", str(target.redis)]
        arguments += ["--omnirt", target.facts["omnirt"]["url"], "--log", str(target.log)]
        with exporter(folder, *arguments, **environment) as (url, _):
            yield Deployment(target, url)
