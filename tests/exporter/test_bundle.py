import hashlib
import json

import pytest

from exporter import gauges
from exporter.bundle import Bundle, BundleExistsError
from exporter.observations import Reading, Readings, TargetEvent
from exporter.stages import Outcome, Source
from exporter.turn_record import SessionRecord
from tests.exporter import example


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder):
    bundle = Bundle(folder, now=1.0)
    bundle.turn(example.turn())
    bundle.session(SessionRecord("s", outcome=None))
    bundle.session(SessionRecord("s", outcome=Outcome.COMPLETED))
    said = {"session_id": "s", "text": "private words"}
    bundle.event(TargetEvent(2.0, Source.BUS, "s", "speech.started", said))
    reading = Reading(
        gauges.VRAM_USED.name, 5.0, {"device": "0", "scope": "device", "group": "all"}
    )
    bundle.readings(Readings(3.0, "nvidia", (reading,)))
    return bundle


def test_a_closed_bundle_is_complete_and_its_hashes_hold(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    write(tmp_path).close({"mode": "unified"}, now=9.0)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert set(manifest["files"]) == {
        "events.jsonl",
        "run.json",
        "samples.jsonl",
        "sessions.jsonl",
        "target.json",
        "turns.jsonl",
    }
    for name, told in manifest["files"].items():
        content = (tmp_path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"]
        assert len(content) == told["bytes"]


def test_a_bundle_that_was_cut_off_says_so(tmp_path):
    write(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"] is False


def test_a_turn_is_on_disk_as_soon_as_it_is_written(tmp_path):
    write(tmp_path)
    [turn] = lines(tmp_path / "turns.jsonl")
    assert turn["marks"] == example.turn().marks
    assert turn["startup"] == "steady"


def test_of_a_session_the_last_state_is_kept(tmp_path):
    write(tmp_path).close({}, now=9.0)
    assert [s["outcome"] for s in lines(tmp_path / "sessions.jsonl")] == ["completed"]


def test_what_a_person_said_is_not_kept(tmp_path):
    write(tmp_path).close({}, now=9.0)
    for path in tmp_path.iterdir():
        assert "private words" not in path.read_text()


def test_a_bundle_is_never_overwritten(tmp_path):
    write(tmp_path).close({}, now=9.0)
    with pytest.raises(BundleExistsError, match="another folder"):
        Bundle(tmp_path, now=2.0)
