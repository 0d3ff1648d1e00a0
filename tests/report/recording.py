"""Synthetic run bundles with known numbers, for the tests of `report`.

A `Recording` holds what the files of a bundle will say, as plain JSON values that a test may
change at will; `write` lays them down with a manifest that matches.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter import gauges, stages

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]

START = 1779271200.0
"""2026-05-20 10:00:00 UTC."""
GIB = 2**30


def timing(**changes: object) -> Json:
    """`speech.timing` of a run at 540×900 and 25 frames/s with 28-frame chunks."""
    return {
        "model": "quicktalk",
        "output_width": 540,
        "output_height": 900,
        "output_fps": 25.0,
        "chunk_samples": 17920,
        "sample_rate": 16000,
        "chunk_latency_ms": [950.0, 940.0],
        **changes,
    }


def turn(number: int, **changes: object) -> Json:
    """A completed measured turn; the `number`-th begins 10·`number` seconds into the run."""
    begin = START + 10.0 * number
    return {
        "session": "sess_a1",
        "turn": number,
        "client_turn": str(number),
        "trace_id": f"{number:032x}",
        "model": "quicktalk",
        "backend": "omnirt",
        "avatar": "demo",
        "input": "text",
        "phase": "measured",
        "startup": "steady",
        "outcome": "completed",
        "error": None,
        "marks": {
            stages.INPUT: begin,
            stages.SPEAK_ENTERED: begin + 0.002,
            stages.MEDIA_QUEUED: begin + 3.0,
            stages.SPEECH_TIMED: begin + 5.0,
            stages.CLIENT_SPEECH_ENDED: begin + 8.0,
        },
        "mark_sources": {stages.INPUT: "client", stages.MEDIA_QUEUED: "estimated"},
        "values": {},
        "value_sources": {},
        "absent": {},
        "bases": {},
        "drift": None,
        "timing": timing(),
        "clock": {
            "basis": "exporter",
            "client_offset_seconds": 0.0001,
            "client_uncertainty_seconds": 0.0003,
        },
        **changes,
    }


def warmup(**changes: object) -> Json:
    """The warmup turn, 17.856 s from input to `speech.timing`, long before the measured ones."""
    begin = START - 100.0
    marks = {stages.INPUT: begin, stages.SPEECH_TIMED: begin + 17.856}
    return turn(1, **{"phase": "warmup", "startup": "cold", "marks": marks, **changes})


def vanished(number: int, **changes: object) -> Json:
    """A measured turn that was accepted and never heard of again."""
    begin = START + 10.0 * number
    return turn(
        number,
        **{
            "outcome": "vanished",
            "marks": {stages.INPUT: begin},
            "timing": None,
            "drift": None,
            **changes,
        },
    )


def vram(
    unix: float, gib: float, scope: str = "process", device: str = "0", group: str | None = None
) -> Json:
    """A reading of accelerator memory; without a group as version 0.1.0 wrote it."""
    labels = {"device": device, "scope": scope}
    return {
        "unix": unix,
        "name": gauges.VRAM_USED.name,
        "value": gib * GIB,
        "labels": labels if group is None else {**labels, "group": group},
    }


def queue(unix: float, depth: float, name: str = "task_queue") -> Json:
    """A reading of a queue's length."""
    return {
        "unix": unix,
        "name": stages.QUEUE_DEPTH.key,
        "value": depth,
        "labels": {"queue": name},
    }


def run(**changes: object) -> Json:
    """`run.json` of a real deployment that was told everything."""
    return {
        "schema": 1,
        "kind": "bench",
        "started_unix": START - 120.0,
        "command": ["talkscope", "bench"],
        "target": "http://127.0.0.1:8000",
        "mode": "unified",
        "model": "quicktalk",
        "backend": "omnirt",
        "avatar": "demo",
        "tester": "someone",
        "gpu_index": 0,
        "input": "audio+image",
        "prompt": None,
        "audio": "hello.wav (8.2 s)",
        "repeat": None,
        "opentalking_commit": "a3047eab52f1c0d3e4b5968778695a4b3c2d1e0f",
        "backend_commit": "64c92ed1aa00bb11cc22dd33ee44ff5566778899",
        "weights": "quicktalk 1.0",
        "quantization": "fp16",
        "caching": "avatars prewarmed",
        "technique": "mouth inpainting",
        "notes": None,
        "stand_ins": [],
        "synthetic": False,
        "opentalking_version": "0.1.0",
        "backend_version": "0.1.0",
        "cold_start": {"seconds": 5.702},
        "client": {"python": "3.11.7", "aiortc": "1.14.0", "os": "Linux"},
        **changes,
    }


def target(**changes: object) -> Json:
    """`target.json` of a machine with one RTX 3090."""
    return {
        "schema": 1,
        "url": "http://127.0.0.1:8000",
        "mode": "unified",
        "health": {"status": "ok"},
        "models": [{"id": "quicktalk", "backend": "omnirt", "connected": True, "reason": None}],
        "host": {"os": "Linux x86_64 glibc2.31", "cpus": 16, "memory_bytes": 64 * GIB},
        "accelerators": [
            {
                "index": 0,
                "device": "0",
                "vendor": "nvidia",
                "name": "RTX 3090",
                "memory_bytes": 24 * GIB,
                "driver": "570.133.07",
                "runtime": "CUDA 12.8",
            }
        ],
        "accelerators_absent": None,
        "memory_forecast": [
            {
                "device": "0",
                "per_session_bytes": {"estimate": 1.5 * GIB, "lower": 1.25 * GIB, "upper": 2 * GIB},
                "sessions_fit": {"estimate": 15.0, "lower": 11.0, "upper": 18.0},
                "points": 4,
                "confidence": 0.95,
            }
        ],
        "memory_forecast_absent": None,
        "sources": {"sse": {"up": True, "reason": None, "last_seen_unix": START, "events": 90}},
        **changes,
    }


def session(**changes: object) -> Json:
    """The session of the measured turns."""
    return {
        "session": "sess_a1",
        "model": "quicktalk",
        "backend": "omnirt",
        "avatar": "demo",
        "marks": {},
        "values": {stages.SESSION_CREATE.key: 31.0, stages.WEBRTC_FIRST_FRAME.key: 412.0},
        "absent": {},
        "outcome": "completed",
        **changes,
    }


@dataclass
class Recording:
    """What the files of a bundle say."""

    turns: list[Json] = field(default_factory=list)
    samples: list[Json] = field(default_factory=list)
    sessions: list[Json] = field(default_factory=lambda: [session()])
    run: Json = field(default_factory=run)
    target: Json = field(default_factory=target)
    run_id: str = "run-1"

    def write(self, folder: Path, **manifest: object) -> Path:
        """Lay the bundle down in `folder`; `manifest` changes members of `manifest.json`."""
        folder.mkdir(parents=True)
        for name, document in (("run.json", self.run), ("target.json", self.target)):
            (folder / name).write_text(json.dumps(document), encoding="utf-8")
        events = [{"unix": START, "source": "sse", "session": "s", "event": "ping", "data": {}}]
        for name, records in (
            ("turns.jsonl", self.turns),
            ("sessions.jsonl", self.sessions),
            ("samples.jsonl", self.samples),
            ("events.jsonl", events),
        ):
            lines = "".join(f"{json.dumps(record)}\n" for record in records)
            (folder / name).write_text(lines, encoding="utf-8")
        seal(folder, run_id=self.run_id, **manifest)
        return folder


def seal(folder: Path, **changes: object) -> None:
    """Write the manifest that fits the files of `folder`, as the exporter does last."""
    files = {
        file.name: {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "bytes": file.stat().st_size,
            "records": file.read_bytes().count(b"\n"),
        }
        for file in sorted(folder.iterdir())
        if file.name != "manifest.json"
    }
    manifest = {
        "schema": 1,
        "tool": "talkscope",
        "version": "0.1.0",
        "run_id": "run-1",
        "created_unix": START,
        "closed_unix": START + 200.0,
        "complete": True,
        "files": files,
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def full() -> Recording:
    """A run of three good measured turns that saw nearly everything, with known numbers.

    TTFA 1500, 1551.773, 1600 ms; TTFV 1790, 1800.524, 1810 ms; idle and peak VRAM 1.662 GiB.
    """
    measured = []
    for i, (ttfa, ttfv) in enumerate(((1500.0, 1790.0), (1551.773, 1800.524), (1600.0, 1810.0))):
        measured.append(
            turn(
                2 + i,
                startup="steady" if i else "warm",
                values={
                    stages.QUEUE_WAIT.key: 1.5 + i,
                    stages.LLM_FIRST_TOKEN_LATENCY.key: (203.0, 201.0, 219.0)[i],
                    stages.AVATAR_FIRST_FRAME_LATENCY.key: 70.0 + i,
                    stages.TTFA.key: ttfa,
                    stages.TTFV.key: ttfv,
                    stages.FIRST_TURN_TOTAL.key: 3356.019,
                    stages.GENERATION.key: 8116.2,
                    stages.PERCEIVED_TTFA.key: 1700.0 + i,
                    stages.PERCEIVED_TTFV.key: 3400.0 + i,
                    stages.TURN_COMPLETION.key: 11500.0,
                    stages.MEDIA_DELIVERY.key: 42.0 + i,
                    stages.RENDER_FPS.key: 29.787,
                    stages.STEADY_FPS.key: 29.23,
                    stages.RTF.key: 0.000421,
                    stages.AV_DRIFT.key: -3.5 + i,
                },
                value_sources={
                    stages.TTFA.key: "speech.timing",
                    stages.MEDIA_DELIVERY.key: "marks",
                    stages.PERCEIVED_TTFV.key: "client",
                },
                mark_sources={
                    stages.MEDIA_QUEUED: "estimated",
                    stages.CLIENT_FIRST_TALKING_FRAME: "client",
                },
                bases={stages.CLIENT_FIRST_TALKING_FRAME: "decoded barcode"},
                drift={"onset_ms": 1.0, "median_ms": -3.5 + i, "basis": "decoded barcode"},
                absent={stages.TTS_FIRST_PCM_LATENCY.key: "two turns spoke at once"},
            )
        )
    del measured[2]["values"][stages.QUEUE_WAIT.key]
    cold = warmup(values={stages.TTFA.key: 9000.0, stages.TTFV.key: 9500.0})
    return Recording(
        turns=[cold, *measured],
        samples=[
            vram(START - 200.0, 0.5),
            vram(START - 50.0, 1.6),
            vram(START + 5.0, 1.662),
            vram(START + 25.0, 1.662),
            vram(START + 30.0, 1.661),
            vram(START + 900.0, 20.0),
            queue(START + 21.0, 0.0),
            queue(START + 22.0, 3.0),
        ],
        run=run(repeat=3),
    )
