from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from exporter import upstream
from tests.recordings import log_lines


def test_a_recorded_worker_log_yields_its_measuring_lines():
    lines = [upstream.parse_line(text) for text in log_lines("split_mock.worker.log")]
    timings = [line for line in lines if isinstance(line, upstream.PipelineTimingLine)]
    sentences = [line for line in lines if isinstance(line, upstream.SentenceLine)]
    started = [line for line in lines if isinstance(line, upstream.LlmStartedLine)]
    assert timings
    assert all(line.session.startswith("sess_") for line in timings)
    assert all(line.fields["llm_first_token_ms"] > 100 for line in timings)
    assert [line.first_pcm_ms for line in sentences[:4]] == [186.0, 190.0, 181.0, 210.0]
    assert len(started) >= len(timings)
    entered = [line.session for line in lines if isinstance(line, upstream.EnteredLine)]
    assert set(entered) >= {line.session for line in timings}


def test_what_never_happened_is_left_out():
    """`n/a` and −1 are upstream's "never"; neither may become a number."""
    [line] = [
        line
        for text in log_lines("err_llm_down.server.log")
        if isinstance(line := upstream.parse_line(text), upstream.PipelineTimingLine)
    ]
    assert "llm_first_token_ms" not in line.fields
    assert line.fields["llm_stream_ms"] == 71.0


def test_a_line_knows_its_own_time():
    stamped = "2026-11-22T16:12:02.340123Z INFO:opentalking:LLM streaming started for: Hi"
    assert (
        upstream.line_time(stamped)
        == datetime.fromisoformat("2026-11-22T16:12:02.340123+00:00").timestamp()
    )
    assert upstream.line_time("INFO:opentalking:LLM streaming started for: Hi") is None
    assert upstream.line_time("2026-99-22T16:12:02.340Z x") is None


def test_user_text_cannot_pose_as_a_measuring_line():
    spoken = "INFO:x:TTS input: sentence='a | first_pcm=1ms ' -> tts_text='b'"
    assert upstream.parse_line(spoken) is None
    preview = "TTS sentence done | x | text_preview='a | first_pcm=1ms ' | first_pcm=187ms total=1"
    assert upstream.parse_line(preview) == upstream.SentenceLine(187.0)


@given(st.text())
def test_no_line_breaks_the_parser(text):
    upstream.parse_line(text)
    upstream.parse_line("Speak pipeline timing: " + text)
    upstream.parse_line("TTS sentence done | " + text)
    upstream.line_time(text)
