"""`talkscope doctor`: what can be seen of a deployment, and what it takes to see the rest."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter import stages
from exporter.stages import Sight, Source, Stage
from talkscope.arguments import http_url
from talkscope.status import CommandError, Status


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say what can be seen of a deployment, and what not and why",
        description="Looks at a running OpenTalking as the exporter would and lists every metric "
        "of the catalogue: seen in production by the exporter alone, seen in a bench run, or "
        "not, with the switch that would show it. Changes nothing in the deployment.",
    )
    parser.add_argument(
        "--target", type=http_url, required=True, metavar="URL", help="OpenTalking's base URL"
    )
    parser.add_argument("--redis", metavar="URL", help="the Redis of a split deployment")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="log of the process that runs the pipeline"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one stage. `production` and `bench`: yes, with a switch, or no."""

    metric: str
    production: str
    bench: str
    source: str
    needs: str


YES = "yes"
SWITCH = "if switched on"
NO = "no"

# What a run of `talkscope bench` brings along by itself.
BENCH_SOURCES = frozenset({Source.CLIENT, Source.SSE})


def run(told: argparse.Namespace) -> Status:
    """Print the findings."""
    facts = asyncio.run(look(told.target, told.redis))
    production = _sources(facts, told.log)
    findings = [find(stage, production) for stage in stages.STAGES.values()]
    if told.json:
        print(json.dumps(facts | {"metrics": [asdict(f) for f in findings]}, indent=2))
    else:
        _print(facts, findings, told)
    return Status.GOOD


async def look(url: str, redis: str | None) -> dict[str, Any]:
    """Poll every source once, the way the exporter does.

    Raises `CommandError` when the target cannot be read.
    """
    import httpx

    from exporter.accelerators.groups import Grouping
    from exporter.accelerators.procfs import Procfs
    from exporter.accelerators.source import AcceleratorSource, absent
    from exporter.accelerators.vendors import libraries
    from exporter.sources.opentalking_http import OpenTalkingHttpSource

    def ignore(_: object) -> None:
        return None

    http = OpenTalkingHttpSource(url, read_queue=True)
    async with httpx.AsyncClient(base_url=http.url, timeout=10) as client:
        await http.poll(client, ignore)
    if not http.health.up:
        raise CommandError(
            f"{http.health.reason}; start it, or name the URL where its /health answers"
        )
    accelerators = [AcceleratorSource(library, Grouping({}, Procfs())) for library in libraries()]
    for source in accelerators:
        source.read()
        source.close()
    return {
        "target": url,
        "mode": http.mode,
        "health": http.target_health,
        "models": http.models,
        "redis": await _redis_problem(redis) if redis else None,
        "redis_given": redis is not None,
        "accelerators": [d.to_json() for source in accelerators for d in source.devices],
        "accelerators_absent": absent(accelerators),
    }


async def _redis_problem(url: str) -> str | None:
    """Why Redis cannot be read, or None when it can."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from exporter.sources.redis_bus import answer, without_password

    try:
        async with Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as redis:
            await answer(redis.ping())
    except ValueError as error:
        raise CommandError(f"--redis {url!r}: {error}", Status.USAGE) from error
    except (RedisError, OSError) as error:
        return f"Redis at {without_password(url)}: {error}"
    return None


def _sources(facts: dict[str, Any], log: Path | None) -> set[Source]:
    """Which ways of seeing the exporter would have in production."""
    sources = {Source.HTTP}
    if facts["redis_given"] and facts["redis"] is None:
        sources.add(Source.BUS)
    if log is not None:
        if not log.is_file():
            raise CommandError(f"--log {log} is not a file that can be read", Status.USAGE)
        sources.add(Source.LOG)
    if facts["accelerators"]:
        sources.add(Source.ACCELERATOR)
    return sources


def find(stage: Stage, production: set[Source]) -> Finding:
    """Say of one stage whether it will be seen in production and in a bench run."""
    if stage.unseen:
        return Finding(stage.key, NO, NO, "", stage.unseen)
    alone = _best(stage, production)
    bench = _best(stage, production | BENCH_SOURCES)
    shown = alone or bench or stage.sights[0]
    needs = "" if _seen(alone) == YES else shown.needs
    if bench is None:
        needs = shown.needs
    return Finding(stage.key, _seen(alone), _seen(bench), shown.where, needs)


def _best(stage: Stage, sources: set[Source] | frozenset[Source]) -> Sight | None:
    return next((sight for sight in stage.sights if sight.source in sources), None)


def _seen(sight: Sight | None) -> str:
    if sight is None:
        return NO
    # The attached log and the bench's own client are there; whether OpenTalking was told to
    # publish its timings only a turn can show.
    needs_target = sight.source in {Source.BUS, Source.SSE} and sight.needs
    return SWITCH if needs_target else YES


def _print(facts: dict[str, Any], findings: list[Finding], told: argparse.Namespace) -> None:
    print(f"OpenTalking at {facts['target']}: {facts['mode'] or 'unknown'} mode, healthy")
    for model in facts["models"]:
        state = "connected" if model.get("connected") else f"not connected ({model.get('reason')})"
        print(f"  model {model.get('id')}: {state}, backend {model.get('backend')}")
    if not any(model.get("connected") for model in facts["models"]):
        print("  no model is connected: sessions will be refused until a backend answers")
    if facts["redis"]:
        print(f"  {facts['redis']}")
    for device in facts["accelerators"]:
        print(f"  accelerator {device['index']}: {device['name']}, {device['driver']}")
    if facts["accelerators_absent"]:
        print(f"  {facts['accelerators_absent']}")
    for advice in _advice(facts, told):
        print(f"  hint: {advice}")
    print()
    widths = [max(len(f.metric) for f in findings), len(SWITCH), len(SWITCH)]
    header = ("metric", "production", "bench", "where; what it needs")
    print("  ".join(text.ljust(width) for text, width in zip(header, [*widths, 0], strict=True)))
    for f in findings:
        where = "; ".join(part for part in (f.source, f.needs) if part)
        row = (f.metric, f.production, f.bench, where)
        print("  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)))


def _advice(facts: dict[str, Any], told: argparse.Namespace) -> list[str]:
    advice = []
    if facts["mode"] == "split" and not told.redis:
        advice.append("split mode: give --redis to see every event of every session")
    if facts["mode"] == "unified" and not told.log:
        advice.append("unified mode keeps its events to itself: give --log for LLM and TTS stages")
    return advice
