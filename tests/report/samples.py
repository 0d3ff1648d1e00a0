"""Synthetic runs of known distributions, in memory, for tests and benchmarks of verdicts.

A turn's elementary stages are log-normal (σ = 0.2) around set medians and independent; its
perceived TTFV is their sum and a constant 20 ms that no stage covers.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import TYPE_CHECKING

from exporter import stages
from exporter.stages import Outcome, Phase, Startup
from report.bundle import Bundle
from report.decode import decode
from report.records import Manifest, Run, Target, Turn
from report.result import Result, summarise_bundle
from report.samples import Samples
from report.turn_table import TurnTable
from tests.report.recording import START, run, target

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGMA = 0.2
UNCOVERED_MS = 20.0

MEDIANS_MS = {
    stages.QUEUE_WAIT: 2.0,
    stages.TURN_PREPARE: 30.0,
    stages.LLM_FIRST_TOKEN_LATENCY: 350.0,
    stages.SENTENCE_READY: 250.0,
    stages.TTS_FIRST_PCM_LATENCY: 400.0,
    stages.AUDIO_CHUNK_FILL: 150.0,
    stages.AVATAR_FIRST_FRAME_LATENCY: 900.0,
    stages.MEDIA_QUEUE: 80.0,
    stages.MEDIA_DELIVERY: 120.0,
}
"""In the order of the pipeline."""

TOTAL_MS = sum(MEDIANS_MS.values()) + UNCOVERED_MS


def draw(median: float, generator: random.Random) -> float:
    """A log-normal number."""
    return median * math.exp(generator.gauss(0.0, SIGMA))


def turn(number: int, values: Mapping[str, float], outcome: Outcome = Outcome.COMPLETED) -> Turn:
    """A measured turn with these values and nothing else."""
    return Turn(
        session="s",
        turn=number,
        outcome=outcome,
        marks={stages.INPUT: START + 10.0 * number},
        values=dict(values),
        phase=Phase.MEASURED,
        startup=Startup.STEADY,
        input=None,
        model="quicktalk",
        backend="omnirt",
        avatar=None,
        trace_id=None,
        error=None,
        drift=None,
        timing=None,
        clock=None,
    )


def result_of(turns: list[Turn], **setup: object) -> Result:
    """The result of a run of these turns."""
    table = TurnTable()
    for one in turns:
        table.add(one)
    table.finish()
    return summarise_bundle(
        Bundle(
            manifest=Manifest("r", True, {}, None, None),
            run=decode(Run, run(**setup)),
            target=decode(Target, target()),
            turns=table,
            sessions=(),
            samples=Samples(),
            sha256="",
        )
    )


def staged(
    turns: int, generator: random.Random, *, slower: stages.Stage | None = None, by_ms: float = 0.0
) -> Result:
    """A run whose turns have every stage; the median of `slower` is `by_ms` higher."""
    medians = {s: m + (by_ms if s is slower else 0.0) for s, m in MEDIANS_MS.items()}
    records = []
    for number in range(turns):
        values = {stage.key: draw(median, generator) for stage, median in medians.items()}
        values[stages.PERCEIVED_TTFV.key] = sum(values.values()) + UNCOVERED_MS
        records.append(turn(number, values))
    return result_of(records)


def plain(turns: int, generator: random.Random, factor: float = 1.0, **setup: object) -> Result:
    """A run whose turns have only a log-normal TTFV of median 1800 ms times `factor`."""
    key = stages.PERCEIVED_TTFV.key
    return result_of(
        [turn(n, {key: draw(1800.0 * factor, generator)}) for n in range(turns)], **setup
    )


def is_chain() -> bool:
    """Whether the stages above follow one another, as the sum assumes."""
    return all(a.end == b.start for a, b in pairwise(MEDIANS_MS))
