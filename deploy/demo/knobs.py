"""The knobs of the two stand-ins: their names, meanings, defaults and limits, in one place.

What comes in: changes by name, from JSON, the environment or a command line. What goes out: a
frozen, valid set of values, or a KnobError that names the knob. It must not know of HTTP, nor of
what the values do; the provider, the synthetic runtime and the supervisor's command line are all
derived from it.

Standard library only: the supervisor imports it outside the target's environments.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar


class KnobError(ValueError):
    """A knob that does not exist or cannot take the value; `knob` is its name."""

    def __init__(self, knob: str, reason: str) -> None:
        super().__init__(f"{knob}: {reason}")
        self.knob = knob


def _real(default: float, meaning: str, minimum: float = 0, maximum: float = 60_000) -> float:
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "minimum": minimum, "maximum": maximum}
    )


def _whole(default: int, meaning: str, minimum: int, maximum: int) -> int:
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "minimum": minimum, "maximum": maximum}
    )


def _text(default: str, meaning: str) -> str:
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def _switch(meaning: str) -> bool:
    return dataclasses.field(default=False, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKnobs:
    """How the stand-in for the LLM, TTS and STT services behaves."""

    ENV_PREFIX: ClassVar[str] = "TALKSCOPE_PROVIDER_"

    llm_first_token_ms: float = _real(120.0, "LLM: request received to first token, ms")
    llm_token_ms: float = _real(15.0, "LLM: one token to the next, ms")
    llm_text: str = _text(
        "Hello, I am the demo assistant. This is the second sentence of the reply. "
        "And this is the third one, to finish.",
        "LLM: the answer to everything; one word is one token",
    )
    llm_fail: bool = _switch("LLM: answer HTTP 503")
    tts_first_pcm_ms: float = _real(80.0, "TTS: request received to first PCM, ms")
    tts_rtf: float = _real(0.2, "TTS: synthesis time / audio time, after the first PCM", 0, 100)
    tts_chars_per_second: float = _real(14.0, "TTS: speed of speech", 1, 1000)
    tts_fail: bool = _switch("TTS: answer HTTP 503")
    stt_ms: float = _real(150.0, "STT: upload received to transcript, ms")
    stt_text: str = _text("hello from the demo recogniser", "STT: the transcript of everything")
    stt_fail: bool = _switch("STT: answer HTTP 503")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeKnobs:
    """How the synthetic runtime inside the real OmniRT behaves."""

    ENV_PREFIX: ClassVar[str] = "TALKSCOPE_SYNTHETIC_"

    chunk_ms: float = _real(60.0, "time to render one chunk of video, ms")
    jitter_ms: float = _real(0.0, "chunk time varies evenly by up to this much either way, ms")
    jitter_seed: int = _whole(0, "seed of the jitter", 0, 2**32 - 1)
    fail_every: int = _whole(0, "every Nth chunk fails; 0 for never", 0, 1_000_000)
    slice_len: int = _whole(28, "frames in a chunk, for sessions that start later", 1, 250)


KnobSet = TypeVar("KnobSet", ProviderKnobs, RuntimeKnobs)


def changed(knobs: KnobSet, changes: Mapping[str, object]) -> KnobSet:
    """Return `knobs` with `changes` applied, all of them or none.

    Raises KnobError at the first change whose name is unknown or whose value does not fit.
    """
    fields = {field.name: field for field in dataclasses.fields(knobs)}
    for name, value in changes.items():
        if name not in fields:
            raise KnobError(name, f"no such knob; there are {', '.join(fields)}")
        _check(fields[name], value)
    return dataclasses.replace(knobs, **changes)  # type: ignore[arg-type]  # checked just above


def from_environment(kind: type[KnobSet], environment: Mapping[str, str]) -> KnobSet:
    """Return the knobs that the environment names (prefix and upper-case name), else defaults."""
    changes = {
        field.name: _parsed(field, environment[variable])
        for field, variable in _variables(kind)
        if variable in environment
    }
    return changed(kind(), changes)


def to_environment(knobs: ProviderKnobs | RuntimeKnobs) -> dict[str, str]:
    """Return the environment variables from which `from_environment` makes the same knobs."""
    return {variable: str(getattr(knobs, field.name)) for field, variable in _variables(knobs)}


def add_arguments(parser: argparse.ArgumentParser, kind: type[KnobSet]) -> None:
    """Add one option per knob, spelled like `--llm-first-token-ms`."""
    group = parser.add_argument_group(str(kind.__doc__).rstrip("."))
    for field in dataclasses.fields(kind):
        option = "--" + field.name.replace("_", "-")
        meaning = f"{field.metadata['meaning']} (default: {field.default})".replace("%", "%%")
        if isinstance(field.default, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=meaning)
        else:
            group.add_argument(option, metavar="VALUE", help=meaning)


def from_arguments(kind: type[KnobSet], arguments: argparse.Namespace) -> KnobSet:
    """Return the knobs given as options, else defaults."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        given = getattr(arguments, field.name)
        if given is not None:
            changes[field.name] = _parsed(field, given) if isinstance(given, str) else given
    return changed(kind(), changes)


def _variables(
    kind: type[KnobSet] | ProviderKnobs | RuntimeKnobs,
) -> Iterator[tuple[dataclasses.Field[object], str]]:
    for field in dataclasses.fields(kind):
        yield field, kind.ENV_PREFIX + field.name.upper()


def _parsed(field: dataclasses.Field[object], text: str) -> object:
    kind = type(field.default)
    if kind is bool:
        words = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in words:
            raise KnobError(field.name, f"must be true or false, not {text!r}")
        return words[text.lower()]
    if kind is str:
        return text
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise KnobError(field.name, f"must be {_NOUNS[kind]}, not {text!r}") from None


_NOUNS: Mapping[type, str] = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number",
}


def _check(field: dataclasses.Field[object], value: object) -> None:
    kind = type(field.default)
    # bool is a kind of int in Python, but true is no number of milliseconds.
    fits = type(value) in {int, float} if kind is float else type(value) is kind
    if not fits:
        raise KnobError(field.name, f"must be {_NOUNS[kind]}, not {value!r}")
    if isinstance(value, str) and not value.strip():
        raise KnobError(field.name, "must not be empty")
    if isinstance(value, (int, float)) and kind is not bool:
        low, high = field.metadata["minimum"], field.metadata["maximum"]
        if not (math.isfinite(value) and low <= value <= high):
            raise KnobError(field.name, f"must lie between {low:g} and {high:g}, not {value!r}")
