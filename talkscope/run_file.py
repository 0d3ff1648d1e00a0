"""`run.json` of a bundle (docs/bundle.md): what a command knows of its run in, the file out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

_SCHEMA: Final = 1

_KEYS: Final = (
    *("started_unix", "target", "mode", "model", "backend", "avatar", "tester", "gpu_index"),
    *("input", "prompt", "audio", "repeat", "opentalking_commit", "backend_commit", "weights"),
    *("technique", "notes", "stand_ins", "synthetic", "opentalking_version", "backend_version"),
    *("cold_start", "client", "invalid", "quantization", "caching"),
)

DEMO_STAND_INS: Final = (
    "the model: a synthetic runtime inside the real OmniRT server draws the frames",
    "the LLM, TTS and STT provider: a loopback server that answers after set delays",
)
DEMO_WEIGHTS: Final = "none, the model is synthetic"
DEMO_TECHNIQUE: Final = "synthetic"


def of_demo(facts: dict[str, Any] | None) -> dict[str, Any]:
    """What the demo target's `target.json` tells of versions and start, if there is one."""
    if facts is None:
        return {}
    return {
        "opentalking_version": facts["opentalking"]["version"],
        "backend_version": facts["omnirt"]["version"],
        "cold_start": {"seconds": facts["cold_start"]["seconds"]},
    }


def write(bundle: Path, kind: str, **known: Any) -> None:
    """Write the file; what is not `known` is null. Raises KeyError for a key it does not have."""
    for key in known.keys() - set(_KEYS):
        raise KeyError(key)
    content = {"schema": _SCHEMA, "kind": kind, "command": ["talkscope", *sys.argv[1:]]}
    content |= dict.fromkeys(_KEYS) | known
    (bundle / "run.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
