"""`talkscope demo`: keeps the demo target and an exporter running until Ctrl-C."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from talkscope import children, options
from talkscope.arguments import seconds
from talkscope.status import Status


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="run the real target on loopback, with an exporter, until Ctrl-C",
        description="Starts the real OpenTalking and OmniRT on loopback, with a stand-in for the "
        "LLM, TTS and STT provider and a synthetic model, and an exporter beside them. For a "
        "look around; `talkscope bench --start demo` measures it.",
    )
    parser.add_argument("--mode", choices=("unified", "split"), default="unified")
    options.agent(parser)
    parser.add_argument(
        "--timeout", type=seconds, default=180.0, help="seconds to get ready (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(told: argparse.Namespace) -> Status:
    """Run until interrupted."""
    with tempfile.TemporaryDirectory(prefix="talkscope-demo-") as name:
        folder = Path(name)
        listen = children.with_port("127.0.0.1:0")
        arguments = ["--mode", told.mode]
        arguments += ["--agent", f"http://{listen}"] if told.agent else []
        with (
            children.demo_target(arguments, folder, told.timeout) as target,
            children.exporter(exporter_arguments(target), folder, listen=listen) as exporter,
        ):
            print(f"OpenTalking:  {target.url}  ({told.mode})")
            print(f"OmniRT:       {target.facts['omnirt']['url']}")
            if target.redis:
                print(f"Redis:        {target.redis}")
            print(f"exporter:     {exporter.url}/metrics")
            print(f"logs:         {folder / 'logs'}")
            print(f"measure it:   talkscope bench --target {target.url}")
            print("Ctrl-C ends it.", flush=True)
            while True:
                time.sleep(3600)


def exporter_arguments(target: children.DemoTarget) -> list[str]:
    """How an exporter is attached to the demo target."""
    arguments = ["--target", target.url, "--log", str(target.log), "--target-just-started"]
    if target.redis:
        arguments += ["--redis", target.redis]
    return arguments
