"""Compose files as Compose reads them: anchors, merge of overlays, variables, profiles.

What comes in: files and an environment. What goes out: one dictionary, in Compose's own shape.
The merge follows the rules of the Compose specification (13-merge.md): mappings merge, sequences
are appended, `command`, `entrypoint` and a health check's `test` are replaced, and mounts and
published ports are unique by what they lead to. Only the forms that our files use are understood.
"""

import re
from pathlib import Path

import yaml

REPLACED = ("command", "entrypoint", "test")
_VARIABLE = re.compile(
    r"\$(?:\$|\{(?P<name>\w+)(?:(?P<kind>:?[-?])(?P<word>[^}]*))?\}|(?P<bare>\w+))"
)


class UnsetError(Exception):
    """A variable has neither a value nor a default."""


def variables(text):
    """Name, operator (`:-`, `:?`, … or None) and word of every variable in a file's text."""
    found = [match.groupdict() for match in _VARIABLE.finditer(text) if match[0] != "$$"]
    return [(v["name"] or v["bare"], v["kind"], v["word"]) for v in found]


def load(*paths, environment=None):
    """Merge these files; raises UnsetError for a required variable that the environment lacks."""
    merged = {}
    for path in paths:
        content = yaml.safe_load(Path(path).read_text())
        merged = _merge(merged, _filled(content, environment or {}))
    return merged


def services(config, *profiles):
    """The services that start with these profiles."""
    return {
        name: service
        for name, service in config["services"].items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }


def _merge(low, high, key=None):
    if isinstance(low, dict) and isinstance(high, dict):
        return {
            name: _merge(low[name], high[name], name)
            if name in low and name in high
            else high.get(name, low.get(name))
            for name in [*low, *(name for name in high if name not in low)]
        }
    if isinstance(low, list) and isinstance(high, list) and key not in REPLACED:
        place = _PLACES.get(key, lambda item: str(item))
        replaced = {place(item) for item in high}
        return [item for item in low if place(item) not in replaced] + high
    if low is None or high is None:
        return low if high is None else high
    # `depends_on: [a]` and `{a: …}` are one thing; our files and OpenTalking's mix them nowhere.
    assert type(low) is type(high) or key in REPLACED, f"{key}: {low!r} and {high!r}"
    return high


_PLACES = {"volumes": lambda mount: mount.split(":")[1], "ports": lambda port: port}


def _filled(value, environment):
    if isinstance(value, dict):
        return {key: _filled(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match):
        if match[0] == "$$":
            return "$"
        name, kind = match["name"] or match["bare"], match["kind"] or ""
        told = environment.get(name)
        if told or (told == "" and not kind.startswith(":")):
            return told
        if kind.endswith("-"):
            return match["word"]
        raise UnsetError(f"{name}: {match['word'] or 'has no default'}")

    return _VARIABLE.sub(fill, value)
