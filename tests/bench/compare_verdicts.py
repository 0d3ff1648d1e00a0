"""How often `talkscope compare` is right, on runs whose truth is known.

The peer is a plain two-sided Welch t-test on the same turns: a verdict without a least change,
without a corrected attribution and without a word on how many turns it takes.
"""

from __future__ import annotations

import math
import random
import statistics

from exporter import stages
from report.absence import Missing
from report.compare import Conclusion, compare
from tests.bench.measurement import Measurement
from tests.report.samples import MEDIANS_MS, TOTAL_MS, Result, plain, staged

NAME = "compare-verdicts"
TURNS = 100
COMPARISONS = 1000
_KEY = stages.PERCEIVED_TTFV.key


def run() -> Measurement:
    """1,000 comparisons of equals, 1,000 with a TTFV that is 15 % higher, and 1,000 with one stage
    slower by 15 % of the TTFV."""
    generator = random.Random(20260520)
    counts = []
    for factor in (1.0, 1.15):
        ours, welch = 0, 0
        for _ in range(COMPARISONS):
            before, after = plain(TURNS, generator), plain(TURNS, generator, factor)
            ours += compare(before, after).conclusion is Conclusion.REGRESSION
            welch += _welch(before, after)
        counts.append((ours, welch))
    (false, false_welch), (detected, detected_welch) = counts
    named = 0
    for number in range(COMPARISONS):
        slower = list(MEDIANS_MS)[number % len(MEDIANS_MS)]
        before = staged(TURNS, generator)
        after = staged(TURNS, generator, slower=slower, by_ms=0.15 * TOTAL_MS)
        found = compare(before, after)
        main = None if isinstance(found.attribution, Missing) else found.attribution.main
        named += main is not None and main.stage is slower
    percent = 100.0 / COMPARISONS
    return Measurement(
        name=NAME,
        value=detected * percent,
        unit="% of +15 % TTFV detected",
        better="higher",
        peer="Welch's t-test of the TTFV at 5 % two-sided, taken as the verdict",
        peer_value=detected_welch * percent,
        conditions={
            "comparisons": f"{COMPARISONS} of equals, {COMPARISONS} with a TTFV 15 % higher, "
            f"{COMPARISONS} with one of {len(MEDIANS_MS)} stages slower by as much",
            "turns a side": f"{TURNS}, TTFV or stages log-normal, σ = 0.2, seeded",
        },
        figures={
            "false alarms": (false * percent, false_welch * percent, "% of equals"),
            "right stage named": (named * percent, 100.0 / len(MEDIANS_MS), "% (peer: a guess)"),
        },
    )


def _welch(before: Result, after: Result) -> bool:
    """Whether the mean rose, by a normal approximation of Welch's t."""
    a, b = (list(result.turns[_KEY].values.sample(TURNS)) for result in (before, after))  # type: ignore[union-attr]
    variance = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return (statistics.fmean(b) - statistics.fmean(a)) / math.sqrt(variance) > 1.96
