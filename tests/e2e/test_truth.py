"""Known changes of the target's latencies must read back: the right stages move, by the amount."""

import contextlib
from statistics import median

import httpx
import pytest

from exporter import stages
from exporter.stages import Kind, Scope
from tests.e2e.conftest import attach, bench

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

TURNS = 10
TOLERANCE_MS = 15.0

LLM_MS = (200.0, 600.0)
CHUNK_MS = (60.0, 300.0)

# What was set on the stand-ins, and what must therefore move by how much.
INJECTED = {
    stages.LLM_FIRST_TOKEN_LATENCY: LLM_MS[1] - LLM_MS[0],
    stages.AVATAR_FIRST_FRAME_LATENCY: CHUNK_MS[1] - CHUNK_MS[0],
}

ELEMENTARY = [
    stage
    for stage in stages.STAGES.values()
    if stage.kind is Kind.ELEMENTARY and stage.scope is Scope.TURN and not stage.unseen
]


@contextlib.contextmanager
def knobs(target, llm_ms, chunk_ms):
    provider = f"{target.facts['provider']['url']}/knobs"
    synthetic = f"{target.facts['omnirt']['url']}/synthetic/knobs"
    before = httpx.get(provider).json(), httpx.get(synthetic).json()
    httpx.put(provider, json={"llm_first_token_ms": llm_ms}).raise_for_status()
    httpx.put(synthetic, json={"chunk_ms": chunk_ms}).raise_for_status()
    try:
        yield
    finally:
        httpx.put(provider, json=before[0]).raise_for_status()
        httpx.put(synthetic, json=before[1]).raise_for_status()


@pytest.fixture(scope="module")
def medians(unified, tmp_path_factory):
    """Per setting: catalogue key → median over its measured turns."""
    found = []
    for llm_ms, chunk_ms in zip(LLM_MS, CHUNK_MS, strict=True):
        with knobs(unified, llm_ms, chunk_ms):
            out = tmp_path_factory.mktemp("truth") / "out"
            done = bench(out, *attach(unified), "--repeat", str(TURNS))
        assert done.status == 0, done.stderr
        assert len(done.measured) == TURNS
        keys = set.intersection(*(set(turn["values"]) for turn in done.measured))
        found.append({k: median(turn["values"][k] for turn in done.measured) for k in keys})
    return found


@pytest.fixture(scope="module")
def moved(medians):
    before, after = medians
    return {key: after[key] - before[key] for key in before.keys() & after.keys()}


@pytest.mark.parametrize("stage", INJECTED, ids=lambda s: s.key)
def test_an_injected_delay_reads_back(moved, stage):
    assert moved[stage.key] == pytest.approx(INJECTED[stage], abs=TOLERANCE_MS)


@pytest.mark.parametrize("stage", [s for s in ELEMENTARY if s not in INJECTED], ids=lambda s: s.key)
def test_no_other_elementary_stage_moves(moved, stage):
    if stage is stages.ASR_FINAL_LATENCY:
        assert stage.key not in moved, "typed input has no transcript"
        return
    assert abs(moved[stage.key]) <= TOLERANCE_MS


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        (stages.STEADY_CHUNK, [stages.AVATAR_FIRST_FRAME_LATENCY]),
        (stages.TTFA, [stages.LLM_FIRST_TOKEN_LATENCY]),
        (stages.TTFV, [stages.AVATAR_FIRST_FRAME_LATENCY]),
        (stages.FIRST_TURN_TOTAL, list(INJECTED)),
        (stages.PERCEIVED_TTFA, list(INJECTED)),
        (stages.PERCEIVED_TTFV, list(INJECTED)),
        (stages.TURN_COMPLETION, list(INJECTED)),
    ],
    ids=lambda value: getattr(value, "key", ""),
)
def test_composites_move_by_what_follows(moved, stage, parts):
    """Audio and frames leave together, so a viewer's first sound waits for the avatar as well."""
    expected = sum(INJECTED[part] for part in parts)
    assert moved[stage.key] == pytest.approx(expected, abs=2 * TOLERANCE_MS)


def test_rates_follow_from_the_chunk_time(medians):
    """28 frames, 1.12 s of audio a chunk; the chunk as OpenTalking times it, transfer included."""
    for values in medians:
        chunk_ms = values[stages.STEADY_CHUNK.key]
        assert values[stages.RTF.key] == pytest.approx(chunk_ms / 1120.0, rel=0.1)
        assert values[stages.RENDER_FPS.key] == pytest.approx(28_000.0 / chunk_ms, rel=0.1)
        assert values[stages.STEADY_FPS.key] == pytest.approx(25_000.0 / chunk_ms, rel=0.1)


def test_what_the_viewer_sees_does_not_change(medians, moved):
    """Faster than real time in both settings: playback and drift stay."""
    for values in medians:
        assert values[stages.PLAYBACK_FPS.key] == pytest.approx(25.0, abs=0.5)
    assert abs(moved[stages.AV_DRIFT.key]) <= TOLERANCE_MS


def test_stages_are_near_what_was_set(medians):
    """Beside the change also the level: a first token costs what was set, plus the HTTP request."""
    for values, llm_ms, chunk_ms in zip(medians, LLM_MS, CHUNK_MS, strict=True):
        assert llm_ms <= values[stages.LLM_FIRST_TOKEN_LATENCY.key] <= llm_ms + 100
        assert chunk_ms <= values[stages.AVATAR_FIRST_FRAME_LATENCY.key] <= chunk_ms + 100
