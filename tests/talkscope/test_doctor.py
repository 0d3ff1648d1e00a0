import pytest

from exporter import stages
from exporter.stages import Source
from talkscope import doctor
from talkscope.doctor import NO, SWITCH, YES


def findings(*sources):
    return {s.key: doctor.find(s, {Source.HTTP, *sources}) for s in stages.STAGES.values()}


def test_every_metric_of_the_catalogue_has_a_finding():
    found = findings()
    assert list(found) == list(stages.STAGES)
    for finding in found.values():
        if NO in (finding.production, finding.bench):
            assert finding.needs or finding.production == YES


def test_what_nobody_can_see_says_why():
    finding = findings(*Source)[stages.ASR_PARTIAL.key]
    assert (finding.production, finding.bench) == (NO, NO)
    assert "no partial transcript" in finding.needs


@pytest.mark.parametrize("stage", [stages.TTFA, stages.TTFV, stages.RENDER_FPS])
def test_timings_need_the_bus_and_a_switch_in_production(stage):
    assert findings()[stage.key].production == NO
    assert findings()[stage.key].bench == SWITCH
    with_bus = findings(Source.BUS)[stage.key]
    assert with_bus.production == SWITCH
    assert "OPENTALKING_BENCHMARK_TIMING=1" in with_bus.needs


def test_the_log_shows_the_llm_and_tts_stages():
    for stage in (stages.LLM_FIRST_TOKEN_LATENCY, stages.TTS_FIRST_PCM_LATENCY):
        assert findings()[stage.key].production == NO
        assert "log" in findings()[stage.key].needs
        assert findings(Source.LOG)[stage.key].production == YES


def test_what_a_viewer_sees_needs_a_client():
    finding = findings()[stages.PERCEIVED_TTFV.key]
    assert (finding.production, finding.bench) == (NO, YES)


def test_memory_needs_an_accelerator():
    assert findings()[stages.PEAK_VRAM.key].bench == NO
    assert findings(Source.ACCELERATOR)[stages.PEAK_VRAM.key].production == YES
