"""Frame numbers through a real VP8 encoder and decoder, drawn as the demo's avatar draws them."""

from __future__ import annotations

import fractions
import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from loadgen.media import barcode

DRAWING_SIDE = Path(__file__).parents[2] / "deploy" / "demo" / "barcode.py"
NUMBERS = (0, 1, 2, 0x5555, 0xAAAA, 0x00FF, 0x8000, 0xFFFE, 0xFFFF)


def drawing_side():
    spec = importlib.util.spec_from_file_location("demo_barcode", DRAWING_SIDE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(number, width, height):
    """A picture as the synthetic avatar makes it: something of a face, and the number on top."""
    image = Image.new("RGB", (width, height), (40, 70, 110))
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((width // 4, height // 5, 3 * width // 4, 3 * height // 4), (235, 200, 170))
    if number is not None:
        drawing_side().draw(canvas, number, width, height)
    return image


def through_vp8(images, *, bit_rate):
    """Encode as an aiortc server does (libvpx, realtime), decode, yield the frames."""
    first = images[0]
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height = first.size
    encoder.pix_fmt = "yuv420p"
    encoder.bit_rate = bit_rate
    encoder.time_base = fractions.Fraction(1, 90_000)
    encoder.options = {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "maxrate": str(bit_rate),
        "bufsize": str(bit_rate),
    }
    decoder = av.CodecContext.create("libvpx", "r")
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_image(image).reformat(format="yuv420p")
        frame.pts = index * 3_600
        frame.time_base = encoder.time_base
        for packet in encoder.encode(frame):
            yield from decoder.decode(packet)


@pytest.mark.parametrize(
    ("width", "height"), [(256, 256), (416, 704), (540, 900), (720, 1280), (130, 98), (64, 64)]
)
def test_numbers_survive_a_real_encoder(width, height):
    images = [picture(n, width, height) for n in NUMBERS]
    frames = list(through_vp8(images, bit_rate=500_000))
    assert [barcode.read(f) for f in frames] == list(NUMBERS)


def test_numbers_survive_a_starved_encoder():
    numbers = list(range(1000, 1030))
    images = [picture(n, 256, 256) for n in numbers]
    frames = list(through_vp8(images, bit_rate=100_000))
    assert [barcode.read(f) for f in frames] == numbers


def test_a_face_without_a_barcode_carries_no_number():
    frames = list(through_vp8([picture(None, 256, 256)] * 3, bit_rate=500_000))
    assert [barcode.read(f) for f in frames] == [None] * 3


def test_half_a_barcode_is_none():
    image = picture(0x1234, 256, 256)
    ImageDraw.Draw(image).rectangle((0, 16, 255, 31), (255, 255, 255))
    assert barcode.read(next(iter(through_vp8([image], bit_rate=500_000)))) is None


@pytest.mark.parametrize("shape", [(0, 0), (15, 400), (31, 400), (400, 31)])
def test_a_picture_too_small_for_a_barcode_carries_none(shape):
    assert barcode.read_luma(np.zeros(shape, np.uint8)) is None


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.integers(16, 400).map(lambda v: 4 * v),
    st.integers(16, 400).map(lambda v: 4 * v),
)
def test_it_reads_what_the_drawing_side_draws_and_reads(number, width, height):
    side = drawing_side()
    image = Image.new("RGB", (width, height), (90, 90, 90))
    side.draw(ImageDraw.Draw(image), number, width, height)
    luma = np.asarray(image.convert("L"))
    assert barcode.row_height(height) == side.row_height(height)
    assert barcode.read_luma(luma) == number
