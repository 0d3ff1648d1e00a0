import itertools
import math
import random
import re
import statistics
import subprocess
import sys
from bisect import bisect_left

import pytest

from exporter import stages

PAGE_TABLE = [
    "session_create_ms",
    "asr_partial_latency_ms",
    "llm_first_token_ms",
    "tts_first_pcm_ms",
    "avatar_first_frame_ms",
    "render_fps",
    "webrtc_first_frame_ms",
    "av_drift_ms",
    "queue_depth",
    "steady_chunk_ms",
]


def test_every_metric_of_the_page_is_in_the_catalogue():
    assert sorted(s.key for s in stages.page_metrics()) == sorted(PAGE_TABLE)


@pytest.mark.parametrize("stage", stages.STAGES.values(), ids=lambda s: s.key)
class TestEveryStage:
    def test_its_marks_exist(self, stage):
        assert (stage.start is None) == (stage.end is None)
        if stage.is_interval:
            assert stage.start in stages.MARKS
            assert stage.end in stages.MARKS

    def test_it_can_be_seen_or_says_why_not(self, stage):
        assert bool(stage.sights) != bool(stage.unseen)

    def test_its_family_is_in_base_units(self, stage):
        if stage.family is None:
            assert stage.instrument is stages.Instrument.REPORT_ONLY
            return
        assert re.fullmatch(r"opentalking_[a-z_]+", stage.family)
        if stage.unit is stages.Unit.SECONDS:
            assert stage.family.endswith("_seconds")

    def test_a_histogram_has_rising_buckets(self, stage):
        if stage.instrument is stages.Instrument.HISTOGRAM:
            assert list(stage.buckets) == sorted(set(stage.buckets))
            assert len(stage.buckets) > 10
            assert stage.buckets[0] > 0, "OpenMetrics has no sum for buckets below zero"

    def test_boundaries_and_meaning_are_in_words(self, stage):
        assert stage.meaning.endswith(".")
        assert stage.boundaries


def test_families_are_unique():
    families = [s.family for s in stages.STAGES.values() if s.family]
    assert len(families) == len(set(families))


def test_elementary_turn_stages_follow_one_another():
    """Each ends where the next begins, so they can be stacked into a waterfall."""
    chain = [
        s
        for s in stages.turn_intervals()
        if s.kind is stages.Kind.ELEMENTARY and s.end != stages.ASR_FIRST_PARTIAL
    ]
    spoken = [s for s in chain if s is not stages.ASR_FINAL_LATENCY]
    for earlier, later in itertools.pairwise(spoken):
        assert earlier.end == later.start, (earlier.key, later.key)


def test_values_are_in_the_unit_of_the_key():
    marks = {stages.LLM_REQUESTED: 100.0, stages.LLM_FIRST_TOKEN: 100.25}
    assert stages.value_between(stages.LLM_FIRST_TOKEN_LATENCY, marks) == pytest.approx(250.0)
    assert stages.LLM_FIRST_TOKEN_LATENCY.to_base(250.0) == 0.25
    marks = {stages.TARGET_STARTED: 1.0, stages.TARGET_READY: 5.5}
    assert stages.value_between(stages.COLD_START, marks) == pytest.approx(4.5)


def test_a_missing_mark_gives_no_value():
    assert stages.value_between(stages.TTFA, {stages.SPEAK_ENTERED: 1.0}) is None


def _prometheus_quantile(edges, values, q):
    """histogram_quantile: linear inside the bucket that holds the rank."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_left(edges, value)] += 1
    rank, seen = q * len(values), 0
    for index, count in enumerate(counts):
        if seen + count >= rank:
            if index == len(edges):
                return edges[-1]
            low = edges[index - 1] if index else 0.0
            return low + (edges[index] - low) * (rank - seen) / count
        seen += count
    return math.nan


@pytest.mark.parametrize("middle", [0.3, 0.45, 0.7, 1.0, 1.6, 2.5, 4.0, 5.8])
@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_quantiles_of_first_response_times_are_within_five_percent(middle, spread):
    rng = random.Random(f"{middle}/{spread}")
    values = [rng.lognormvariate(math.log(middle), spread) for _ in range(20_000)]
    exact = statistics.quantiles(values, n=100)
    for percent in (50, 90, 95):
        truth = exact[percent - 1]
        if 0.3 <= truth <= 6.0:
            estimate = _prometheus_quantile(stages.TIME_BUCKETS, values, percent / 100)
            assert abs(estimate / truth - 1) <= 0.05, (percent, truth, estimate)


def test_buckets_cover_the_range_the_design_names():
    assert stages.TIME_BUCKETS[0] <= 0.05
    assert stages.TIME_BUCKETS[-1] >= 20.0


def test_the_catalogue_needs_the_standard_library_only():
    """It is imported inside OpenTalking's process, which has none of our dependencies."""
    program = (
        "import sys; before = set(sys.modules); import exporter.stages; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(n for n in new - {'exporter'} if n not in sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
