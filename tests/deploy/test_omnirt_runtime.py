"""The synthetic runtime, driven inside OmniRT's environment as OmniRT drives it."""

import pytest

from .conftest import DEMO

pytestmark = pytest.mark.e2e

HEAD = """
import io, json, sys, time
from types import SimpleNamespace
from PIL import Image
from omnirt.server.realtime_avatar import decode_jpeg_sequence
import barcode, omnirt_runtime
from knobs import RuntimeKnobs

def runtime(**knobs):
    return omnirt_runtime.SyntheticRuntime(omnirt_runtime.KnobHolder(RuntimeKnobs(**knobs)))

def session(name, size=(256, 256), slice_len=28):
    video = SimpleNamespace(width=size[0], height=size[1], slice_len=slice_len)
    return SimpleNamespace(session_id=name, video=video)

def number(jpeg):
    image = Image.open(io.BytesIO(jpeg)).convert("L")
    luma = image.load()
    return barcode.read(lambda x, y: luma[x, y], image.width, image.height)

def numbers(chunk):
    return [number(jpeg) for jpeg in decode_jpeg_sequence(chunk)]

PCM = bytes(2 * 17920)
"""


@pytest.fixture
def in_omnirt(in_venv):
    """Run code after the lines above, which prints JSON."""

    def run(code):
        return in_venv("omnirt", "-c", HEAD + code, environment={"PYTHONPATH": str(DEMO)})

    return run


def test_frames_are_numbered_through_chunks_for_each_session(in_omnirt):
    assert in_omnirt(
        """
r, a, b = runtime(chunk_ms=0), session("a", slice_len=5), session("b", slice_len=3)
chunks = [numbers(r.render_chunk(s, PCM)) for s in (a, b, a, b)]
print(json.dumps(chunks))
"""
    ) == [[0, 1, 2, 3, 4], [0, 1, 2], [5, 6, 7, 8, 9], [3, 4, 5]]


def test_a_session_that_was_closed_starts_anew(in_omnirt):
    assert in_omnirt(
        """
r, a = runtime(chunk_ms=0), session("a", slice_len=2)
first = numbers(r.render_chunk(a, PCM))
r.close_session("a")
r.close_session("never opened")
print(json.dumps([first, numbers(r.render_chunk(a, PCM))]))
"""
    ) == [[0, 1], [0, 1]]


def test_the_mouth_follows_the_loudness_of_the_chunk(in_omnirt):
    quiet, loud = in_omnirt(
        """
import array
pcm = array.array("h", [0] * 8960 + [20000] * 8960).tobytes()
def mouth(jpeg):
    pixel = Image.open(io.BytesIO(jpeg)).convert("RGB").getpixel((128, 145))
    return pixel[1]
frames = decode_jpeg_sequence(runtime(chunk_ms=0).render_chunk(session("a", slice_len=2), pcm))
print(json.dumps([mouth(jpeg) for jpeg in frames]))
"""
    )
    assert quiet > 150
    assert loud < 100


def test_a_chunk_takes_its_time_and_says_when_it_could_not(in_omnirt):
    seconds, in_time, too_late = in_omnirt(
        """
r = runtime(chunk_ms=200)
started = time.perf_counter()
r.render_chunk(session("a"), PCM)
seconds = time.perf_counter() - started
late = runtime(chunk_ms=0.001)
late.render_chunk(session("a"), PCM)
print(json.dumps([seconds, r.counters.overruns, late.counters.overruns]))
"""
    )
    assert seconds >= 0.2
    assert (in_time, too_late) == (0, 1)


def test_jitter_is_the_same_for_the_same_seed(in_omnirt):
    one, same, other = in_omnirt(
        """
from unittest.mock import patch
def sleeps(seed):
    r, slept = runtime(chunk_ms=1000, jitter_ms=500, jitter_seed=seed), []
    with patch("time.sleep", slept.append), patch("time.perf_counter", lambda: 0.0):
        for name in ("a", "b", "a"):
            r.render_chunk(session(name, slice_len=1), PCM)
    return slept
print(json.dumps([sleeps(1), sleeps(1), sleeps(2)]))
"""
    )
    assert one == same != other
    assert len(set(one)) == 3
    assert all(0.5 <= seconds <= 1.5 for seconds in one)


def test_every_nth_chunk_fails_and_its_frame_numbers_are_not_lost(in_omnirt):
    assert in_omnirt(
        """
r, a, out = runtime(chunk_ms=0, fail_every=2), session("a", slice_len=2), []
for _ in range(4):
    try:
        out.append(numbers(r.render_chunk(a, PCM)))
    except RuntimeError as error:
        out.append(str(error))
print(json.dumps([out, r.counters.failed_chunks, r.counters.chunks, r.counters.frames]))
"""
    ) == [
        [
            [0, 1],
            "synthetic failure (knob fail_every is 2)",
            [2, 3],
            "synthetic failure (knob fail_every is 2)",
        ],
        2,
        2,
        4,
    ]
