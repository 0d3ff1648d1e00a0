"""What a benchmark has to say, printed and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Measurement:
    """A value beside its peer's from the same run.

    `figures` are further rows for the reader: name → (ours, peer's, unit).
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    peer: str
    peer_value: float
    conditions: Mapping[str, Any]
    figures: Mapping[str, tuple[float, float, str]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times better than the peer."""
        if self.better == "higher":
            return self.value / self.peer_value
        return self.peer_value / self.value

    def write(self, folder: Path) -> Path:
        """Write `NAME.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        content = asdict(self) | {"ratio": self.ratio}
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def table(self) -> str:
        """The same for a person."""
        rows = [(self.name, self.value, self.peer_value, self.unit), *self._further()]
        width = max(len(name) for name, *_ in rows)
        lines = [f"{'':{width}}  {'ours':>10}  {'peer':>10}"]
        lines += [f"{n:{width}}  {v:10.3f}  {p:10.3f}  {u}" for n, v, p, u in rows]
        lines += [f"{self.ratio:.2f} times as good as the peer ({self.better} is better)"]
        lines += [f"peer: {self.peer}"]
        lines += [f"{name}: {value}" for name, value in self.conditions.items()]
        return "\n".join(lines)

    def _further(self) -> list[tuple[str, float, float, str]]:
        return [(name, ours, peer, unit) for name, (ours, peer, unit) in self.figures.items()]
