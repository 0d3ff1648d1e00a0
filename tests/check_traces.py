"""`make check-traces`: a turn's trace, found in a real OTLP backend by its exemplar in Prometheus.

What comes in: the path of Arize Phoenix. What goes out: the spans of one trace as Phoenix has
them; exit status 1 when an exemplar leads nowhere. Run by hand, as Phoenix is large.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from exporter import stages
from loadgen.turn import TextInput
from tests.e2e.stack import deployment
from tests.processes import free_port, process, wait_until
from tests.prometheus import prometheus

START_S = 180.0
TURNS = 2


def main() -> int:
    """Speak two turns and follow their exemplars."""
    if len(sys.argv) != 2:
        print("usage: python -m tests.check_traces PHOENIX", file=sys.stderr)
        return 64
    with (
        tempfile.TemporaryDirectory(prefix="talkscope-traces-") as name,
        _phoenix(Path(name)) as at,
    ):
        return _follow(Path(name), at)


@contextlib.contextmanager
def _phoenix(folder: Path) -> Any:
    port = free_port()
    environment = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/healthz").is_success
        return False

    with process([sys.argv[1], "serve"], log=folder / "phoenix.log", **environment):
        wait_until(answers, "Phoenix", START_S)
        yield url


def _spans(phoenix: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{phoenix}/v1/projects/default/spans", params={"limit": 1000})
    return list(answer.json()["data"]) if answer.is_success else []


def _follow(folder: Path, phoenix: str) -> int:
    began = time.time()
    with (
        deployment(
            folder, OTEL_EXPORTER_OTLP_ENDPOINT=phoenix, OTEL_BSP_SCHEDULE_DELAY="500"
        ) as running,
        prometheus(folder, running.address) as watching,
    ):
        with running.spoken([TextInput("Hello.")] * TURNS):
            selector = f"{stages.PERCEIVED_TTFV.family}_bucket"

            def exemplars() -> set[str]:
                found = watching.exemplars(selector, began, time.time() + 1.0)
                return {exemplar["labels"]["trace_id"] for exemplar in found}

            wait_until(lambda: len(exemplars()) == TURNS, "an exemplar of each turn")
        lost = 0
        for trace in sorted(exemplars()):

            def of_trace(trace: str = trace) -> list[dict[str, Any]]:
                return [s for s in _spans(phoenix) if s["context"]["trace_id"] == trace]

            with contextlib.suppress(TimeoutError):
                wait_until(of_trace, f"trace {trace}", pause=0.2)
            found = sorted(of_trace(), key=lambda span: str(span["start_time"]))
            lost += not found
            print(f"exemplar {trace}: {len(found)} spans in Phoenix")
            for span in found:
                print(f"  {span['start_time']}  {span['name']}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
