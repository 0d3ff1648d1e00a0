"""The agent's record as the exporter takes it."""

import json

import pytest

from exporter import stages
from exporter.observations import PipelineReported
from exporter.sources.ingest import BadBatchError, Ingest

PIPELINE = {
    "kind": "pipeline",
    "sequence": 1,
    "session": "s",
    "started_unix": 1000.0,
    "marks": {stages.SPEAK_ENTERED: 0.0, stages.INPUT_ENQUEUED: -0.25},
    "chunks": [[0.5, 1.0]],
    "media": {"first_video_timestamp": 0xFFFFFFFF, "first_audio_timestamp": None},
    "outcome": "failed",
    "error": {"code": "TTS_FAILED", "message": "refused"},
}


def take(record):
    seen = []
    clock = {"offset_seconds": 0.5, "uncertainty_seconds": 0.001}
    batch = {"version": 1, "origin": "agent-1", "clock": clock, "records": [record]}
    Ingest().take(json.dumps(batch).encode(), seen.append)
    return seen


def test_it_lands_on_the_exporters_clock():
    [seen] = take(PIPELINE)
    assert isinstance(seen, PipelineReported)
    assert (seen.session, seen.entered) == ("s", 1000.5)
    assert seen.marks == {stages.SPEAK_ENTERED: 1000.5, stages.INPUT_ENQUEUED: 1000.25}
    assert seen.chunks == ((1001.0, 1001.5),)
    assert (seen.first_video, seen.first_audio) == (0xFFFFFFFF, None)
    assert seen.outcome is stages.Outcome.FAILED
    assert seen.error == {"code": "TTS_FAILED", "message": "refused"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"marks": {"llm.first_tokn": 1.0}}, "records[0].marks"),
        ({"chunks": [[0.0, 1.0], [1.0, 0.5]]}, "records[0].chunks"),
        ({"chunks": [[0.0]]}, "records[0].chunks[0][1]"),
        ({"media": {"first_video_timestamp": 1 << 32}}, "records[0].media.first_video_timestamp"),
        ({"media": {"first_audio_timestamp": -1}}, "records[0].media.first_audio_timestamp"),
        ({"outcome": "vanished"}, "records[0].outcome"),
        ({"error": {"code": "X"}}, "records[0].error.message"),
        ({"started_unix": 0}, "records[0].started_unix"),
        ({"surprise": 1}, "records[0].surprise"),
    ],
)
def test_a_malformed_record_is_refused_by_its_fields_name(change, field):
    with pytest.raises(BadBatchError) as refused:
        take(PIPELINE | change)
    assert refused.value.field == field
