import io
from itertools import pairwise

import avatar
import barcode
import pytest
from PIL import Image, ImageDraw

SIZES = [(256, 256), (416, 704), (540, 900), (1280, 720)]
NUMBERS = [0, 1, 0x8000, 0xAAAA, 0x5555, 12345, 0xFFFF]


def picture(number, width, height):
    face = avatar.draw_face(width, height, openness=0.5)
    barcode.draw(ImageDraw.Draw(face), number, width, height)
    return face


def read(image):
    luma = image.convert("L").load()
    return barcode.read(lambda x, y: luma[x, y], image.width, image.height)


@pytest.mark.parametrize(("height", "row"), [(64, 16), (256, 16), (384, 32), (704, 48), (900, 64)])
def test_a_row_is_a_sixteenth_of_the_height_in_whole_macroblocks(height, row):
    assert barcode.row_height(height) == row


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_cells_cover_two_rows_without_gap_or_overlap(width, height):
    pairs = list(barcode.cells(width, height))
    for row in zip(*pairs, strict=True):
        assert row[0].left == 0
        assert row[-1].right == width
        assert all(cell.right == following.left for cell, following in pairwise(row))
    first, second = pairs[0]
    assert (first.top, first.bottom, second.top) == (0, second.top, first.bottom)


def test_the_most_significant_bit_is_at_the_left_and_the_second_row_is_the_complement():
    luma = picture(0x8000, 256, 256).convert("L").load()
    assert [luma[8, 8], luma[24, 8], luma[248, 8]] == [255, 0, 0]
    assert [luma[8, 24], luma[24, 24], luma[248, 24]] == [0, 255, 255]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_drawn_is_read(number, width, height):
    assert read(picture(number, width, height)) == number


def test_numbers_wrap_at_16_bits():
    assert read(picture(65536 + 7, 256, 256)) == 7


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_survives_jpeg_at_quality_60(width, height):
    for number in NUMBERS:
        file = io.BytesIO()
        picture(number, width, height).save(file, format="JPEG", quality=60)
        assert read(Image.open(file)) == number


@pytest.mark.parametrize("openness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_face_alone_carries_no_number(width, height, openness):
    assert read(avatar.draw_face(width, height, openness)) is None


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_a_plain_picture_carries_no_number(level):
    assert read(Image.new("L", (256, 256), level)) is None


def test_one_damaged_cell_is_enough_to_refuse_the_number():
    face = picture(12345, 256, 256)
    luma = face.convert("L")
    box = (16 * 5, 0, 16 * 6, 16)
    luma.paste(255 - luma.getpixel((16 * 5 + 8, 8)), box)
    assert read(luma) is None


@pytest.mark.parametrize(("width", "height"), [(256, 256), (416, 704)])
def test_it_survives_vp8_at_200_kbit_per_second(width, height):
    av = pytest.importorskip("av")
    # aiortc's own settings for real time, at a bitrate far below its least.
    options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.bit_rate, encoder.framerate, encoder.options = 200_000, 25, options
    decoder = av.CodecContext.create("vp8", "r")
    sent = range(1000, 1100)
    received = []
    size = 0
    for number in [*sent, None]:
        frame = None
        if number is not None:
            frame = av.VideoFrame.from_image(picture(number, width, height))
            frame.pts = number
        for packet in encoder.encode(frame):
            size += packet.size
            received += [read(decoded.to_image()) for decoded in decoder.decode(packet)]
    assert received == list(sent)
    assert size * 8 < 1.5 * 200_000 * len(sent) / 25
