"""A run that looks like a real one: 120 turns with every stage, for pages and screenshots."""

from __future__ import annotations

import random

from exporter import stages
from tests.report.recording import START, Recording, queue, turn, vram, warmup
from tests.report.samples import MEDIANS_MS, UNCOVERED_MS, draw

TURNS = 120


def good_run(*, seed: int = 1, slower_ms: float = 0.0) -> Recording:
    """Stages log-normal around set medians; the avatar's by `slower_ms` higher."""
    generator = random.Random(seed)
    turns = [warmup()]
    for number in range(1, TURNS + 1):
        medians = dict(MEDIANS_MS)
        medians[stages.AVATAR_FIRST_FRAME_LATENCY] += slower_ms
        drawn = {stage: draw(median, generator) for stage, median in medians.items()}
        begin = START + 10.0 * number
        marks = {stages.INPUT: begin, stages.INPUT_ENQUEUED: begin + UNCOVERED_MS / 1000.0}
        for stage, value in drawn.items():
            assert stage.start is not None
            assert stage.end is not None
            marks[stage.end] = marks[stage.start] + value / 1000.0
        marks[stages.CLIENT_FIRST_AUDIO] = marks[stages.MEDIA_QUEUED] + 0.09
        values = {
            stage.key: between
            for stage in stages.turn_intervals()
            if (between := stages.value_between(stage, marks)) is not None
        }
        values |= {
            stages.RENDER_FPS.key: generator.gauss(29.3, 0.8),
            stages.PLAYBACK_FPS.key: generator.gauss(24.9, 0.2),
            stages.AV_DRIFT.key: generator.gauss(-12.0, 18.0),
            stages.RTF.key: generator.gauss(0.84, 0.03),
        }
        startup = "steady" if number > 1 else "warm"
        turns.append(turn(number + 1, startup=startup, marks=marks, values=values))
    levels = [
        reading
        for second in range(0, 10 * TURNS, 10)
        for reading in (
            vram(START + second, 1.62 + 0.04 * generator.random()),
            queue(START + second, float(generator.choice((0, 0, 0, 1, 2)))),
        )
    ]
    return Recording(turns=turns, samples=[vram(START - 20.0, 1.6), *levels])
