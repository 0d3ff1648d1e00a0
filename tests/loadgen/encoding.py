"""Makes the encoded picture and sound that the synthetic sender repeats: sizes in, frames out."""

from __future__ import annotations

import fractions

import av
import numpy as np

_BITRATE = 1_000_000


def encode(width: int, height: int, fps: int, seconds: int) -> tuple[list[bytes], list[bytes]]:
    """VP8 frames, of which only the first is a key frame, and Opus packets of 20 ms."""
    return _video(width, height, fps, seconds), _audio(seconds)


def _video(width: int, height: int, fps: int, seconds: int) -> list[bytes]:
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.bit_rate = _BITRATE
    codec.time_base = fractions.Fraction(1, fps)
    codec.framerate = fractions.Fraction(fps)
    codec.gop_size = 100 * fps * seconds
    codec.qmin, codec.qmax = 2, 56
    codec.options = {
        "cpu-used": "-6",
        "deadline": "realtime",
        "lag-in-frames": "0",
        "bufsize": str(_BITRATE),
        "minrate": str(_BITRATE),
        "maxrate": str(_BITRATE),
        "error-resilient": "1",
    }
    noise = np.random.default_rng(1).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    texture = noise.repeat(8, 0).repeat(8, 1)
    frames = []
    for number in range(fps * seconds):
        # A still background and a head that moves.
        picture = texture[:height, :width] // 2
        x, y = 200 + int(20 * np.sin(number / 8)), 300 + int(12 * np.cos(number / 5))
        top, left = height // 5, width // 5
        tall, wide = height // 2, width * 3 // 5
        picture[top : top + tall, left : left + wide] = texture[y : y + tall, x : x + wide]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, fractions.Fraction(1, fps)
        frames.append(b"".join(bytes(packet) for packet in codec.encode(frame)))
    return frames


def _audio(seconds: int) -> list[bytes]:
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.layout, codec.format = 48_000, "stereo", "s16"
    codec.bit_rate = 64_000
    codec.options = {"frame_duration": "20", "application": "voip"}
    noise = np.random.default_rng(1)
    packets = []
    for number in range(50 * seconds):
        at = np.arange(960) + 960 * number
        tone = 8000 * np.sin(2 * np.pi * (220 + 5 * (number % 50)) * at / 48_000)
        mono = (tone + noise.normal(0, 1500, 960)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(mono, 2).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48_000, 960 * number
        frame.time_base = fractions.Fraction(1, 48_000)
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets
