"""What a viewer does, from a YAML file: text in, checked `Scenario`s out.

A file is read once, where the load test is started, together with the audio files it names
(`Source`); every worker then parses the same bytes. It must not know sessions, Locust or time.

    scenarios:
      - name: chat
        weight: 3
        turns: 5
        think: {min: 1, max: 4}
        inputs:
          - say: Please introduce yourself.
          - speak: question.wav
          - say: Tell me a long story.
            interrupt_after: 1.5

docs/load.md lists every key.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import yaml

from loadgen import audio
from loadgen.turn import Input, TextInput, UploadInput

BUILT_IN: Final = """\
scenarios:
  - name: chat
    turns: 3
    think: {min: 1, max: 3}
    inputs:
      - say: Please introduce yourself.
      - say: What can you help me with?
      - say: Thank you. Please say that again in one sentence.
"""
"""What a viewer does when no file is given."""

MAX_SCENARIOS: Final = 32
"""Names become label values, which must stay few."""
_MAX_NAME = 40
_INPUT_KINDS: Final = ("say", "speak", "upload")

T = TypeVar("T")


class ScenarioError(ValueError):
    """The file cannot be used; the message names the key, what is wrong and what is wanted."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A time that a person takes, in seconds: even between `low` and `high`, or with `mean`."""

    low: float = 0.0
    high: float = 0.0
    mean: float | None = None
    """If set, exponentially distributed: pauses that nobody coordinates."""

    def draw(self, rng: random.Random) -> float:
        """One such time."""
        if self.mean is not None:
            return rng.expovariate(1.0 / self.mean)
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Said:
    """One input of a scenario."""

    input: Input
    interrupt_after: float | None = None
    """Seconds of the answer that are heard before it is interrupted."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of viewer."""

    name: str
    weight: float
    model: str | None
    """None: the target's default."""
    avatar: str | None
    """None: the target's first."""
    turns: tuple[int, int]
    """Fewest and most turns of a visit."""
    think: Pause
    """Between the end of an answer and the next input."""
    pause: Pause
    """Between two visits of the same user (closed model)."""
    inputs: tuple[Said, ...]

    def visit(self, rng: random.Random) -> Iterator[Said]:
        """The inputs of one visit, in the file's order, from the start again when they run out."""
        for number in range(rng.randint(*self.turns)):
            yield self.inputs[number % len(self.inputs)]


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario file and the audio files it names, as bytes that can be sent to a worker."""

    name: str
    text: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def built_in(cls) -> Self:
        """The scenario that is used when no file is given."""
        return cls("built-in scenario", BUILT_IN)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file and the audio beside it. Raises ScenarioError."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ScenarioError(f"{path}: no such file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"{path}: cannot be read: {error}") from error
        files: dict[str, bytes] = {}

        def fetch(key: str, name: str) -> bytes:
            try:
                return files.setdefault(name, (path.parent / name).read_bytes())
            except OSError as error:
                raise ScenarioError(f"{key}: {name}: {error.strerror}") from error

        _parse(str(path), text, fetch)
        return cls(path.name, text, files)

    def scenarios(self) -> tuple[Scenario, ...]:
        """The file's scenarios. Raises ScenarioError."""

        def fetch(key: str, name: str) -> bytes:
            if name not in self.files:
                raise ScenarioError(f"{key}: {name} was not sent with the scenario")
            return self.files[name]

        return _parse(self.name, self.text, fetch)


class WeightedCycle:
    """Deals scenarios in proportion to their weights, as evenly spread as can be.

    Smooth weighted round robin (nginx's): with weights 3 and 1 every fourth visit is of the
    second kind, which four random draws would miss in one run of three.
    """

    def __init__(self, scenarios: tuple[Scenario, ...], *, skip: int = 0) -> None:
        """`skip` deals are left out, so that several workers do not all begin alike."""
        self._scenarios = scenarios
        self._total = sum(s.weight for s in scenarios)
        self._credit = [0.0] * len(scenarios)
        for _ in range(skip % 1000):
            self.next()

    def next(self) -> Scenario:
        """The next visit's scenario."""
        for index, scenario in enumerate(self._scenarios):
            self._credit[index] += scenario.weight
        chosen = max(range(len(self._credit)), key=self._credit.__getitem__)
        self._credit[chosen] -= self._total
        return self._scenarios[chosen]


_Fetch = Callable[[str, str], bytes]
"""Key and file name → the file's content."""


def _parse(name: str, text: str, fetch: _Fetch) -> tuple[Scenario, ...]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    whole = _Node(name, "", content).mapping("scenarios")
    scenarios = tuple(
        _scenario(node, fetch) for node in whole.required("scenarios").items(MAX_SCENARIOS)
    )
    names = [scenario.name for scenario in scenarios]
    for index, scenario in enumerate(scenarios):
        if scenario.name in names[:index]:
            raise ScenarioError(
                f"{name}: scenarios[{index}].name: {scenario.name!r} is there twice; results are "
                "told apart by it"
            )
    return scenarios


def _scenario(node: _Node, fetch: _Fetch) -> Scenario:
    node = node.mapping("name", "weight", "model", "avatar", "turns", "think", "pause", "inputs")
    inputs = tuple(_said(item, fetch) for item in node.required("inputs").items())
    return Scenario(
        name=node.required("name").text(_MAX_NAME),
        weight=node.read("weight", lambda n: n.number(above=0), 1.0),
        model=node.read("model", lambda n: n.text(), None),
        avatar=node.read("avatar", lambda n: n.text(), None),
        turns=node.read("turns", _turns, (len(inputs), len(inputs))),
        think=node.read("think", _pause, Pause(1.0, 3.0)),
        pause=node.read("pause", _pause, Pause(1.0, 1.0)),
        inputs=inputs,
    )


def _said(node: _Node, fetch: _Fetch) -> Said:
    node = node.mapping(*_INPUT_KINDS, "interrupt_after")
    kinds = [kind for kind in _INPUT_KINDS if kind in node]
    if len(kinds) != 1:
        raise node.wrong(f"give one of {', '.join(_INPUT_KINDS)}")
    said = node.required(kinds[0])
    given: Input
    match kinds[0]:
        case "say":
            given = TextInput(said.text())
        case "upload":
            given = UploadInput(fetch(said.key, said.text()), Path(said.text()).name)
        case _:
            try:
                given = audio.decode(fetch(said.key, said.text()), said.text())
            except audio.AudioFileError as error:
                raise ScenarioError(f"{said.key}: {error}") from error
    return Said(given, node.read("interrupt_after", lambda n: n.number(above=0), None))


def _turns(node: _Node) -> tuple[int, int]:
    if not node.is_mapping:
        count = node.whole(1)
        return count, count
    node = node.mapping("min", "max")
    least, most = node.required("min").whole(1), node.required("max").whole(1)
    if least > most:
        raise node.wrong("min is above max")
    return least, most


def _pause(node: _Node) -> Pause:
    if not node.is_mapping:
        seconds = node.number()
        return Pause(seconds, seconds)
    node = node.mapping("min", "max", "mean")
    if "mean" in node:
        if "min" in node or "max" in node:
            raise node.wrong("give either mean, or min and max")
        return Pause(mean=node.required("mean").number(above=0))
    low, high = node.required("min").number(), node.required("max").number()
    if low > high:
        raise node.wrong("min is above max")
    return Pause(low, high)


class _Node:
    """A value of the file and the key it stands under."""

    def __init__(self, file: str, path: str, value: Any) -> None:
        self._file = file
        self._path = path
        self._value = value

    @property
    def key(self) -> str:
        return f"{self._file}: {self._path}" if self._path else self._file

    def __contains__(self, name: str) -> bool:
        return name in self._value

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._value, dict)

    def wrong(self, what: str) -> ScenarioError:
        return ScenarioError(f"{self.key}: {what}")

    def mapping(self, *known: str) -> Self:
        if not isinstance(self._value, dict):
            raise self.wrong(f"must be a mapping with the keys {', '.join(known)}")
        for name in self._value:
            if name not in known:
                raise self.wrong(f"unknown key {name!r}; known are {', '.join(known)}")
        return self

    def required(self, name: str) -> _Node:
        if name not in self._value:
            raise self.wrong(f"{name} is missing")
        return self._child(name)

    def read(self, name: str, reader: Callable[[_Node], T], default: T) -> T:
        return reader(self._child(name)) if name in self._value else default

    def _child(self, name: str) -> _Node:
        path = f"{self._path}.{name}" if self._path else name
        return _Node(self._file, path, self._value[name])

    def items(self, most: int | None = None) -> list[_Node]:
        if not isinstance(self._value, list) or not self._value:
            raise self.wrong("must be a list with at least one entry")
        if most is not None and len(self._value) > most:
            raise self.wrong(f"{len(self._value)} entries; at most {most}")
        path = self._path
        return [_Node(self._file, f"{path}[{i}]", v) for i, v in enumerate(self._value)]

    def text(self, most: int | None = None) -> str:
        if not isinstance(self._value, str) or not self._value.strip():
            raise self.wrong(f"{self._value!r} is not a text; put it in quotes")
        if most is not None and len(self._value) > most:
            raise self.wrong(f"{len(self._value)} characters long; at most {most}")
        return self._value.strip()

    def number(self, *, above: int | None = None) -> float:
        value = self._value
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or value < 0 or value == above:
            raise self.wrong(f"{value!r} is not a number {'from' if above is None else 'above'} 0")
        return float(value)

    def whole(self, least: int) -> int:
        if not isinstance(self._value, int) or isinstance(self._value, bool) or self._value < least:
            raise self.wrong(f"{self._value!r} is not a whole number from {least}")
        return self._value
