"""Options that several commands have: each function adds some of them to a parser's group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from talkscope.arguments import http_url


def target(group: Any, start_help: str) -> None:
    """What is measured: a running deployment, or the demo target."""
    group.add_argument(
        "--target", type=http_url, metavar="URL", help="base URL of a running OpenTalking"
    )
    group.add_argument("--start", choices=("demo",), help=start_help)
    session(group)


def session(group: Any) -> None:
    """What its sessions ask for."""
    group.add_argument("--model", metavar="ID", help="default: the target's default model")
    group.add_argument("--avatar", metavar="ID", help="default: the target's first avatar")


def media(group: Any) -> None:
    """How media reach this machine."""
    group.add_argument(
        "--candidate-address",
        action="append",
        metavar="IP",
        help="address to offer for media, may be repeated (default: 127.0.0.1 for a loopback "
        "target, else every interface)",
    )
    group.add_argument("--stun", action="append", metavar="URL", help="STUN server (default: none)")


def sight(group: Any) -> None:
    """How the run's own exporter sees into the target."""
    group.add_argument("--redis", metavar="URL", help="the Redis of a split deployment")
    group.add_argument(
        "--log", type=Path, metavar="FILE", help="log of the process that runs the pipeline"
    )
    group.add_argument(
        "--exporter-listen",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where the run's own exporter serves, if an agent or workers on other machines must "
        "reach it",
    )
    group.add_argument(
        "--agent-exporter",
        type=http_url,
        metavar="URL",
        help="exporter that the agent inside OpenTalking reports to, if it is another than the "
        "run's: it tells with which RTP timestamps each answer begins",
    )
    token(group)


def token(group: Any) -> None:
    """How an exporter is told who sends."""
    group.add_argument(
        "--exporter-token-file",
        type=Path,
        metavar="FILE",
        help="file with the token that the exporter asks for (or TALKSCOPE_TOKEN_FILE, or "
        "TALKSCOPE_TOKEN with the token itself)",
    )


def demo(parser: Any) -> None:
    """How the demo target is started."""
    group = parser.add_argument_group("with --start demo")
    group.add_argument("--mode", choices=("unified", "split"), help="default: unified")
    agent(group)
    group.add_argument(
        "--demo-options",
        default="",
        metavar="'--chunk-ms 300 …'",
        help="knobs of the demo target, see deploy/demo/README.md",
    )


def agent(group: Any) -> None:
    """Whether the demo target has the agent."""
    group.add_argument(
        "--agent", action="store_true", help="run OpenTalking's processes under Talkscope's agent"
    )


def out(group: Any) -> None:
    """Where the results go."""
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder (default: talkscope-run-<time>)"
    )
