"""What the exporter writes, the report reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from exporter import gauges, stages
from exporter.bundle import Bundle
from exporter.gauges import MemoryScope
from exporter.health import SourceHealth
from exporter.observations import Reading, Readings
from exporter.turn_record import SessionRecord
from report import BundleError, build
from report.summary import Statistics
from tests.exporter import example
from tests.report.recording import run

if TYPE_CHECKING:
    from pathlib import Path


def open_bundle(folder: Path) -> Bundle:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run(cold_start=None)), encoding="utf-8")
    bundle = Bundle(folder, now=example.START)
    bundle.turn(example.turn())
    bundle.session(
        SessionRecord("sess_1", values={stages.SESSION_CREATE.key: 31.0}, outcome="closed")
    )
    labels = {"device": "0", "scope": "device", "group": "all"}
    reading = Reading(gauges.VRAM_USED.name, 2.0**30, labels)
    depth = Reading(gauges.QUEUE_LEVEL.name, 2.0, {"queue": "task_queue"})
    bundle.readings(Readings(example.START + 0.5, "nvidia", (reading, depth)))
    return bundle


def test_a_bundle_of_the_exporter_has_a_result(tmp_path: Path) -> None:
    open_bundle(tmp_path / "run").close(
        {
            "url": "http://127.0.0.1:8000",
            "mode": "split",
            "health": {},
            "models": [],
            "host": {"os": "Linux x86_64 glibc2.36", "cpus": 2, "memory_bytes": 2**34},
            "accelerators": [
                {"index": 0, "name": "RTX 3090", "memory_bytes": 2**34, "driver": "driver 570.1"}
            ],
            "accelerators_absent": None,
            "sources": {"bus": SourceHealth("bus").to_json()},
        },
        now=example.START + 60.0,
    )
    result = build(tmp_path / "run")
    for stage in stages.turn_intervals():
        expected = stages.value_between(stage, example.turn().marks)
        found = result.turns[stage.key].statistics
        assert (found.median if isinstance(found, Statistics) else None) == expected
    assert result.sessions[stages.SESSION_CREATE.key].median == 31.0
    assert (result.memory.peak, result.memory.scope) == (2.0**30, MemoryScope.DEVICE)
    assert isinstance(result.queue_depth, tuple)
    assert result.facts.driver == "driver 570.1"


def test_a_bundle_that_the_exporter_did_not_close_was_cut_off(tmp_path: Path) -> None:
    open_bundle(tmp_path / "run")
    with pytest.raises(BundleError, match="complete is false: the run was cut off before its end"):
        build(tmp_path / "run")
