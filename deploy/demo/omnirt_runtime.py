"""The real OmniRT server with a SYNTHETIC runtime where a model on a GPU would be.

What comes in: OpenTalking's WebSocket sessions and chunks of PCM, through OmniRT's own routes,
session store, lock and wire format. What goes out: JPEG frames of a drawn face whose mouth follows
the loudness of the PCM, each with its frame number as a barcode (barcode.py), after a chunk time
that is set by a knob and kept to a deadline. It must not know of OpenTalking's pipeline, nor of who
measures.

Frames are numbered per OmniRT session, from 0, through all chunks and speeches. OpenTalking opens
one OmniRT session per session of its own, and between speeches repeats the last frame it showed: a
number that does not advance is an idle frame.

OmniRT's routes, and beside them, clearly ours:

    GET, PUT /synthetic/knobs       knobs.RuntimeKnobs; also TALKSCOPE_SYNTHETIC_* at start
    GET      /synthetic/counters    see Counters

Runs inside OmniRT's environment.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
# OmniRT is installed in the target's own environment only, and has no type hints to offer.

import argparse
import array
import dataclasses
import io
import os
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import uvicorn
from fastapi import FastAPI
from omnirt.server import create_app as create_omnirt
from omnirt.server.realtime_avatar import encode_jpeg_sequence
from PIL import Image, ImageDraw

import barcode
from avatar import draw_face
from knob_routes import KnobHolder, knob_router
from knobs import RuntimeKnobs, from_environment

JPEG_QUALITY = 80
MOUTH_POSES = 6
# A peak at or above this opens the mouth fully; speech seldom uses the whole 16 bits.
LOUD = 10_000
# FlashTalk's overlap between chunks, which OmniRT reports to its clients beside slice_len.
MOTION_FRAMES = 5


class Video(Protocol):
    """What the runtime reads of `omnirt.server.realtime_avatar.AvatarVideoSpec`."""

    width: int
    height: int
    slice_len: int


class Session(Protocol):
    """What the runtime reads of `omnirt.server.realtime_avatar.RealtimeAvatarSession`."""

    session_id: str
    video: Video


@dataclass(slots=True)
class Counters:
    """What has happened since start.

    `overruns` counts chunks whose rendering alone took longer than their chunk time: while it
    grows, the machine is too slow for the knobs and the chunk times are not the ones asked for. (A
    chunk time of 0 asks for "as fast as can be" and cannot be overrun.)
    """

    sessions: int = 0
    chunks: int = 0
    frames: int = 0
    failed_chunks: int = 0
    overruns: int = 0


class SyntheticError(RuntimeError):
    """The failure that the knob `fail_every` asks for."""


class Progress:
    """How far one OmniRT session has got, and the jitter it draws from."""

    def __init__(self, seed: str) -> None:
        self.next_frame = 0
        self.jitter = random.Random(seed)


class Painter:
    """Makes JPEG frames of one size; a face is drawn once per pose, only the barcode each time."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._faces = [
            draw_face(width, height, pose / (MOUTH_POSES - 1)) for pose in range(MOUTH_POSES)
        ]

    def jpeg(self, number: int, loudness: int) -> bytes:
        """Return frame `number` with the mouth as open as `loudness` (a peak, 0 to 32768)."""
        pose = min(MOUTH_POSES - 1, loudness * MOUTH_POSES // LOUD)
        frame: Image.Image = self._faces[pose].copy()
        barcode.draw(ImageDraw.Draw(frame), number, *self._size)
        file = io.BytesIO()
        frame.save(file, format="JPEG", quality=JPEG_QUALITY)
        return file.getvalue()


class SyntheticRuntime:
    """OmniRT's runtime interface: OmniRT calls `render_chunk` in a thread, one call at a time."""

    # What GET /v1/audio2video/models of OmniRT looks at to call flashtalk and wav2lip connected.
    runtime_kind = "resident"
    wav2lip = True

    def __init__(self, knobs: KnobHolder[RuntimeKnobs]) -> None:
        self._knobs = knobs
        self._sessions: dict[str, Progress] = {}
        self._painters: dict[tuple[int, int], Painter] = {}
        self._chunks_asked = 0
        self.counters = Counters()

    def ready(self) -> bool:
        """Say that the model is loaded: there is none."""
        return True

    def close_session(self, session_id: str) -> None:
        """Forget a session that OmniRT has closed."""
        self._sessions.pop(session_id, None)

    def render_chunk(self, session: Session, pcm: bytes) -> bytes:
        """Return the frames of one chunk in OmniRT's wire format."""
        started = time.perf_counter()
        knobs = self._knobs.current
        progress = self._progress(session.session_id, knobs.jitter_seed)
        self._chunks_asked += 1
        if knobs.fail_every and self._chunks_asked % knobs.fail_every == 0:
            self.counters.failed_chunks += 1
            raise SyntheticError(f"synthetic failure (knob fail_every is {knobs.fail_every})")
        chunk_ms = knobs.chunk_ms + progress.jitter.uniform(-1, 1) * knobs.jitter_ms
        chunk: bytes = encode_jpeg_sequence(self._frames(session.video, pcm, progress))
        self.counters.chunks += 1
        left = started + chunk_ms / 1000 - time.perf_counter()
        if left > 0:
            time.sleep(left)
        elif chunk_ms > 0:
            self.counters.overruns += 1
        return chunk

    def _progress(self, session_id: str, seed: int) -> Progress:
        if session_id not in self._sessions:
            # Seeded by the session's place in the order, so that the jitter of the third session
            # does not depend on how the chunks of the first two happened to interleave.
            self._sessions[session_id] = Progress(f"{seed}/{self.counters.sessions}")
            self.counters.sessions += 1
        return self._sessions[session_id]

    def _frames(self, video: Video, pcm: bytes, progress: Progress) -> list[bytes]:
        size = (video.width, video.height)
        if size not in self._painters:
            self._painters[size] = Painter(*size)
        painter = self._painters[size]
        first = progress.next_frame
        progress.next_frame += video.slice_len
        self.counters.frames += video.slice_len
        return [
            painter.jpeg(first + index, loudness)
            for index, loudness in enumerate(peaks(pcm, video.slice_len))
        ]


def peaks(pcm: bytes, parts: int) -> list[int]:
    """Return the peak of each of `parts` equal parts of 16-bit little-endian PCM."""
    samples = array.array("h", pcm)
    edges = [index * len(samples) // parts for index in range(parts + 1)]
    return [max(map(abs, samples[start:end]), default=0) for start, end in pairwise(edges)]


def create_app(knobs: RuntimeKnobs, *, width: int, height: int, fps: int) -> FastAPI:
    """Return OmniRT's application with the synthetic runtime in it and our two routes beside."""
    app: FastAPI = create_omnirt(
        default_backend="cpu-stub",
        default_request_config={"width": width, "height": height, "fps": fps},
    )
    holder = KnobHolder(knobs)
    runtime = SyntheticRuntime(holder)
    app.state.realtime_avatar_service.runtime = runtime

    def set_slice_len(knobs: RuntimeKnobs) -> None:
        # OmniRT reads this when a session starts; a client's own wish comes after and wins.
        app.state.default_request_config.update(
            slice_len=knobs.slice_len,
            motion_frames_num=MOTION_FRAMES,
            frame_num=knobs.slice_len + MOTION_FRAMES,
        )

    async def counters() -> dict[str, int]:
        return dataclasses.asdict(runtime.counters)

    set_slice_len(knobs)
    app.include_router(knob_router("/synthetic/knobs", holder, set_slice_len))
    app.add_api_route("/synthetic/counters", counters, methods=["GET"])
    return app


def main() -> None:
    """Serve on loopback with the knobs of the environment."""
    parser = argparse.ArgumentParser(description="The real OmniRT with a synthetic runtime.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--fps", type=int, required=True)
    options = parser.parse_args()
    app = create_app(
        from_environment(RuntimeKnobs, os.environ),
        width=options.width,
        height=options.height,
        fps=options.fps,
    )
    uvicorn.run(app, host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
