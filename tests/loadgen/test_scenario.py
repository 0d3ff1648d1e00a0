"""Scenario files: what they give, and what is said of a wrong one."""

from __future__ import annotations

import io
import random
import wave
from collections import Counter

import pytest

from loadgen.scenario import Pause, ScenarioError, Source, WeightedCycle
from loadgen.turn import SpeechInput, TextInput, UploadInput


def wav(seconds=0.5):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x01\x02" * int(16_000 * seconds))
    return buffer.getvalue()


def parse(text):
    return Source("s.yaml", text).scenarios()


WHOLE = """
scenarios:
  - name: chat
    weight: 3
    model: wav2lip
    avatar: demo
    turns: {min: 2, max: 4}
    think: {min: 1, max: 2}
    pause: 5
    inputs:
      - say: Hello
      - say: A long story, please
        interrupt_after: 1.5
  - name: voice
    turns: 1
    think: {mean: 3}
    inputs:
      - speak: a.wav
      - upload: b.bin
"""


def test_a_file_gives_what_it_says(tmp_path):
    (tmp_path / "s.yaml").write_text(WHOLE)
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "b.bin").write_bytes(b"abc")
    source = Source.read(tmp_path / "s.yaml")
    # As a worker gets it: without the folder.
    chat, voice = Source(source.name, source.text, source.files).scenarios()
    assert (chat.name, chat.weight, chat.model, chat.avatar) == ("chat", 3.0, "wav2lip", "demo")
    assert (chat.turns, chat.think, chat.pause) == ((2, 4), Pause(1, 2), Pause(5, 5))
    assert [said.input for said in chat.inputs] == [
        TextInput("Hello"),
        TextInput("A long story, please"),
    ]
    assert [said.interrupt_after for said in chat.inputs] == [None, 1.5]
    assert voice.think.mean == 3
    assert [said.input for said in voice.inputs] == [
        SpeechInput(b"\x01\x02" * 8_000),
        UploadInput(b"abc", "b.bin"),
    ]


def test_what_is_left_out_has_a_default():
    (only,) = parse("scenarios: [{name: a, inputs: [{say: x}, {say: y}]}]")
    assert (only.weight, only.model, only.avatar, only.turns) == (1.0, None, None, (2, 2))


def test_the_built_in_scenario_is_a_valid_one():
    (chat,) = Source.built_in().scenarios()
    assert len(list(chat.visit(random.Random(1)))) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "s.yaml: not YAML"),
        ("5", "s.yaml: must be a mapping with the keys scenarios"),
        ("{}", "s.yaml: scenarios is missing"),
        ("scenarios: []", "s.yaml: scenarios: must be a list with at least one entry"),
        ("scenarios: [{inputs: [{say: x}]}]", "s.yaml: scenarios[0]: name is missing"),
        ("scenarios: [{name: a}]", "scenarios[0]: inputs is missing"),
        ("scenarios: [{name: a, inputs: [{say: x}], turn: 1}]", "unknown key 'turn'; known are"),
        ("scenarios: [{name: a, weight: 0, inputs: [{say: x}]}]", "scenarios[0].weight: 0 is not"),
        ("scenarios: [{name: a, turns: 0, inputs: [{say: x}]}]", "scenarios[0].turns: 0 is not"),
        ("scenarios: [{name: a, turns: {min: 3, max: 2}, inputs: [{say: x}]}]", "min is above max"),
        ("scenarios: [{name: a, think: soon, inputs: [{say: x}]}]", "scenarios[0].think: 'soon'"),
        ("scenarios: [{name: a, think: {min: 2, max: 1}, inputs: [{say: x}]}]", "min is above max"),
        ("scenarios: [{name: a, think: {mean: 2, max: 1}, inputs: [{say: x}]}]", "either mean, or"),
        ("scenarios: [{name: a, think: .nan, inputs: [{say: x}]}]", "think: nan is not a number"),
        ("scenarios: [{name: a, inputs: [{say: 5}]}]", "scenarios[0].inputs[0].say: 5 is not a"),
        ("scenarios: [{name: a, inputs: [{say: x, speak: y}]}]", "inputs[0]: give one of say,"),
        ("scenarios: [{name: a, inputs: [{}]}]", "inputs[0]: give one of say, speak, upload"),
        (
            "scenarios: [{name: a, inputs: [{say: x, interrupt_after: -1}]}]",
            "inputs[0].interrupt_after: -1 is not a number above 0",
        ),
        (
            "scenarios: [{name: a, inputs: [{say: x}]}, {name: a, inputs: [{say: x}]}]",
            "scenarios[1].name: 'a' is there twice",
        ),
        (f"scenarios: [{{name: {'a' * 41}, inputs: [{{say: x}}]}}]", "41 characters long"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(text, problem):
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    assert problem in str(caught.value)


def test_missing_and_unusable_audio_is_named(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("scenarios: [{name: a, inputs: [{speak: a.wav}]}]")
    with pytest.raises(ScenarioError, match=r"inputs\[0\].speak: a.wav: No such file"):
        Source.read(path)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ScenarioError, match=r"inputs\[0\].speak: a.wav: not a WAV file"):
        Source.read(path)
    with pytest.raises(ScenarioError, match="no such file"):
        Source.read(tmp_path / "none.yaml")


def test_a_visit_repeats_its_inputs_when_it_has_more_turns():
    (chat,) = parse("scenarios: [{name: a, turns: 5, inputs: [{say: x}, {say: y}]}]")
    said = [item.input.text for item in chat.visit(random.Random(1))]
    assert said == ["x", "y", "x", "y", "x"]


def test_turn_counts_and_pauses_stay_within_their_bounds():
    rng = random.Random(7)
    (chat,) = parse("scenarios: [{name: a, turns: {min: 2, max: 4}, inputs: [{say: x}]}]")
    assert {len(list(chat.visit(rng))) for _ in range(200)} == {2, 3, 4}
    drawn = [Pause(1, 3).draw(rng) for _ in range(500)]
    assert 1 <= min(drawn) < 1.1
    assert 2.9 < max(drawn) <= 3
    mean = sum(Pause(mean=2.0).draw(rng) for _ in range(20_000)) / 20_000
    assert mean == pytest.approx(2.0, rel=0.05)


def test_scenarios_are_dealt_in_proportion_from_the_first_visits_on():
    scenarios = parse(
        "scenarios: [{name: a, weight: 3, inputs: [{say: x}]}, {name: b, inputs: [{say: x}]}]"
    )
    cycle = WeightedCycle(scenarios)
    dealt = [cycle.next().name for _ in range(8)]
    assert Counter(dealt[:4]) == Counter(dealt[4:]) == {"a": 3, "b": 1}
    # A second worker does not begin where the first does.
    later = WeightedCycle(scenarios, skip=1)
    assert [later.next().name for _ in range(4)] == dealt[1:5]
