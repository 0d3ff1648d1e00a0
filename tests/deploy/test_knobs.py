import argparse

import knobs
import pytest
from knobs import KnobError, ProviderKnobs, RuntimeKnobs


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("llm_first_token_ms", -1, "between 0 and 60000"),
        ("llm_first_token_ms", float("nan"), "between 0 and 60000"),
        ("llm_first_token_ms", "fast", "must be a number"),
        ("llm_first_token_ms", True, "must be a number"),
        ("llm_first_token_ms", None, "must be a number"),
        ("tts_chars_per_second", 0, "between 1 and 1000"),
        ("llm_text", "  ", "must not be empty"),
        ("llm_text", 5, "must be text"),
        ("llm_fail", 1, "must be true or false"),
        ("llm_first_tokens_ms", 5, "no such knob; there are llm_first_token_ms"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, value, reason):
    with pytest.raises(KnobError, match=reason) as refusal:
        knobs.changed(ProviderKnobs(), {name: value})
    assert refusal.value.knob == name
    assert str(refusal.value).startswith(f"{name}: ")


def test_a_whole_number_knob_takes_no_fraction():
    with pytest.raises(KnobError, match="slice_len: must be a whole number"):
        knobs.changed(RuntimeKnobs(), {"slice_len": 2.5})


def test_a_change_keeps_the_other_knobs():
    before = knobs.changed(ProviderKnobs(), {"stt_ms": 1})
    after = knobs.changed(before, {"llm_token_ms": 2.5, "tts_fail": True})
    assert (after.stt_ms, after.llm_token_ms, after.tts_fail) == (1, 2.5, True)


def test_the_environment_carries_every_knob():
    before = ProviderKnobs(llm_first_token_ms=7.5, llm_text="One two.", stt_fail=True)
    assert knobs.from_environment(ProviderKnobs, knobs.to_environment(before)) == before
    assert knobs.to_environment(before)["TALKSCOPE_PROVIDER_LLM_FIRST_TOKEN_MS"] == "7.5"


def test_what_the_environment_does_not_name_keeps_its_default():
    environment = {"TALKSCOPE_SYNTHETIC_CHUNK_MS": "90", "CHUNK_MS": "1"}
    assert knobs.from_environment(RuntimeKnobs, environment) == RuntimeKnobs(chunk_ms=90)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("TALKSCOPE_PROVIDER_LLM_FAIL", "maybe", "llm_fail: must be true or false"),
        ("TALKSCOPE_PROVIDER_STT_MS", "soon", "stt_ms: must be a number"),
    ],
)
def test_a_bad_variable_is_refused_by_the_name_of_its_knob(variable, value, reason):
    with pytest.raises(KnobError, match=reason):
        knobs.from_environment(ProviderKnobs, {variable: value})


def parsed(*words):
    parser = argparse.ArgumentParser()
    knobs.add_arguments(parser, ProviderKnobs)
    knobs.add_arguments(parser, RuntimeKnobs)
    return parser.parse_args(words)


def test_every_knob_is_an_option():
    options = parsed("--llm-first-token-ms=80", "--llm-fail", "--fail-every", "3")
    assert knobs.from_arguments(ProviderKnobs, options) == ProviderKnobs(
        llm_first_token_ms=80, llm_fail=True
    )
    assert knobs.from_arguments(RuntimeKnobs, options) == RuntimeKnobs(fail_every=3)


def test_a_bad_option_is_refused_by_name():
    with pytest.raises(KnobError, match="chunk_ms: must lie between 0 and 60000"):
        knobs.from_arguments(RuntimeKnobs, parsed("--chunk-ms=-5"))
