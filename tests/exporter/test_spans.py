import pytest

from exporter import stages
from exporter.spans import ProtocolError, Spans
from tests.exporter import example
from tests.otlp_receiver import OtlpReceiver


@pytest.fixture
def receiver():
    with OtlpReceiver() as server:
        yield server


@pytest.fixture(params=["grpc", "http/protobuf"])
def spans(request, receiver, monkeypatch):
    url = receiver.grpc_url if request.param == "grpc" else receiver.http_url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return Spans.from_environment()


LLM = stages.LLM_FIRST_TOKEN_LATENCY.key.removesuffix("_ms")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def attributes(span):
    return {a.key: a.value.string_value or a.value.double_value for a in span.attributes}


def test_a_turn_is_one_trace_with_its_stages_inside(spans, receiver):
    turn = example.turn()
    spans.turn(turn)
    spans.close()
    [root] = [s for s in receiver.spans if not s.parent_span_id]
    children = [s for s in receiver.spans if s.parent_span_id]
    assert root.trace_id.hex() == turn.trace_id
    assert {s.trace_id for s in receiver.spans} == {root.trace_id}
    assert {s.parent_span_id for s in children} == {root.span_id}
    for span in children:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.start_time_unix_nano >= root.start_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano


def test_children_are_the_elementary_stages_at_their_true_times(spans, receiver):
    spans.turn(example.turn())
    spans.close()
    children = {s.name: s for s in receiver.spans if s.parent_span_id}
    expected = {
        s.key.removesuffix("_ms")
        for s in stages.turn_intervals()
        if s.kind is stages.Kind.ELEMENTARY and {s.start, s.end} <= set(example.CHAIN)
    }
    assert set(children) == expected
    llm = children[stages.LLM_FIRST_TOKEN_LATENCY.key.removesuffix("_ms")]
    position = example.CHAIN.index(stages.LLM_REQUESTED)
    assert llm.start_time_unix_nano == round((example.START + position * example.STEP) * 1e9)
    length = llm.end_time_unix_nano - llm.start_time_unix_nano
    assert length == pytest.approx(125_000_000, abs=1000)  # a float of seconds resolves 240 ns


def test_a_failed_turn_has_an_error_status_and_event(spans, receiver):
    error = {"code": "SPEAK_FAILED", "message": "private words"}
    spans.turn(example.turn(outcome="failed", error=error))
    spans.close()
    [root] = [s for s in receiver.spans if not s.parent_span_id]
    assert root.status.code == 2
    assert [e.name for e in root.events] == ["error"]
    assert attributes(root)["error.type"] == "SPEAK_FAILED"
    assert "private words" not in str(root)


def test_the_turns_of_a_session_are_linked(spans, receiver):
    first, second, other = example.turn(), example.turn(turn=3), example.turn(session="sess_2")
    for turn in (first, second, other):
        spans.turn(turn)
    spans.close()
    roots = {s.trace_id.hex(): s for s in receiver.spans if not s.parent_span_id}
    assert [link.trace_id.hex() for link in roots[second.trace_id].links] == [first.trace_id]
    assert not roots[first.trace_id].links
    assert not roots[other.trace_id].links


def test_the_chunks_of_the_backend_are_spans_inside_the_turn(spans, receiver):
    chunks = [(example.START + 0.5, example.START + 0.6), (example.START + 0.7, example.START + 9)]
    spans.turn(example.turn(chunks=chunks))
    spans.close()
    [root] = [s for s in receiver.spans if not s.parent_span_id]
    rendered = [s for s in receiver.spans if s.name == "render_chunk"]
    assert [s.parent_span_id for s in rendered] == [root.span_id] * 2
    assert rendered[0].start_time_unix_nano == round((example.START + 0.5) * 1e9)
    assert all(s.end_time_unix_nano <= root.end_time_unix_nano for s in rendered)


def test_the_llm_stage_follows_the_conventions_for_generative_ai(spans, receiver):
    spans.turn(example.turn())
    spans.close()
    name = stages.LLM_FIRST_TOKEN_LATENCY.key.removesuffix("_ms")
    [llm] = [s for s in receiver.spans if s.name == name]
    assert attributes(llm)["gen_ai.operation.name"] == "chat"
    assert llm.kind == llm.SPAN_KIND_CLIENT


@pytest.mark.parametrize(
    ("provider", "told"), [("openai_compatible", "openai"), ("dashscope", "dashscope")]
)
def test_the_llm_stage_names_the_model_and_whose_interface_was_asked(
    spans, receiver, provider, told
):
    spans.turn(example.turn(llm_model="qwen-turbo", llm_provider=provider))
    spans.close()
    [llm] = [s for s in receiver.spans if s.name == LLM]
    assert attributes(llm)["gen_ai.provider.name"] == told
    assert attributes(llm)["gen_ai.request.model"] == "qwen-turbo"
    [root] = [s for s in receiver.spans if not s.parent_span_id]
    assert not [name for name in attributes(root) if name.startswith("gen_ai.")]


def test_a_language_model_that_nobody_names_is_absent(spans, receiver):
    spans.turn(example.turn())
    spans.close()
    [llm] = [s for s in receiver.spans if s.name == LLM]
    assert [n for n in attributes(llm) if n.startswith("gen_ai.")] == ["gen_ai.operation.name"]


def test_a_turn_joins_the_trace_of_the_request_that_asked_for_it(spans, receiver):
    turn = example.turn(traceparent=f"00-{TRACE}-{PARENT}-01")
    spans.turn(turn)
    spans.close()
    assert {s.trace_id.hex() for s in receiver.spans} == {TRACE}
    assert turn.trace_id == TRACE
    [root] = [s for s in receiver.spans if s.name == "turn"]
    assert root.parent_span_id.hex() == PARENT
    assert {s.parent_span_id for s in receiver.spans if s is not root} == {root.span_id}


def test_a_request_whose_trace_nobody_keeps_has_no_spans(spans, receiver):
    turn = example.turn(traceparent=f"00-{TRACE}-{PARENT}-00")
    spans.turn(turn)
    spans.close()
    assert receiver.spans == []
    assert turn.trace_id is None


def test_a_parents_flag_wins_over_a_ratio(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    spans = Spans.from_environment()
    spans.turn(example.turn())
    spans.turn(example.turn(traceparent=f"00-{TRACE}-{PARENT}-01"))
    spans.close()
    assert {s.trace_id.hex() for s in receiver.spans} == {TRACE}


def test_speech_recognition_has_a_span(spans, receiver):
    turn = example.turn()
    turn.marks |= {
        stages.STT_REQUESTED: example.START - 0.5,
        stages.STT_TRANSCRIBED: example.START - 0.2,
    }
    spans.turn(turn)
    spans.close()
    [stt] = [s for s in receiver.spans if s.name == stages.STT.key.removesuffix("_ms")]
    assert stt.start_time_unix_nano == round((example.START - 0.5) * 1e9)
    assert stt.kind == stt.SPAN_KIND_CLIENT


def test_a_turn_that_is_not_sampled_has_no_trace_id(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans = Spans.from_environment()
    turn = example.turn()
    spans.turn(turn)
    spans.close()
    assert turn.trace_id is None
    assert receiver.spans == []


def test_without_an_endpoint_nothing_is_traced(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    spans = Spans.from_environment()
    turn = example.turn()
    spans.turn(turn)
    spans.close()
    assert not spans.enabled
    assert turn.trace_id is None


def test_an_unknown_protocol_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(ProtocolError, match="use grpc or http/protobuf"):
        Spans.from_environment()
