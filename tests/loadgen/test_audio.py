"""Speech files: the one format OpenTalking's WebSocket takes, and what is said of any other."""

from __future__ import annotations

import wave

import pytest

from loadgen import audio


def recording(path, *, rate=16_000, channels=1, width=2, seconds=0.5):
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.writeframes(b"\x01" * (int(rate * seconds) * channels * width))
    return path


def test_speech_is_read_as_it_is(tmp_path):
    said = audio.load(recording(tmp_path / "a.wav"))
    assert said.pcm == b"\x01" * 16_000


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rate": 44_100}, "44100 Hz instead of 16000 Hz"),
        ({"channels": 2}, "2 channels instead of one"),
        ({"width": 3}, "24 bits a sample instead of 16"),
        ({"rate": 8_000, "channels": 2}, "8000 Hz instead of 16000 Hz, 2 channels instead of one"),
    ],
)
def test_another_format_is_refused_with_what_is_wrong_and_how_to_mend_it(
    tmp_path, options, problem
):
    path = recording(tmp_path / "a.wav", **options)
    with pytest.raises(audio.AudioFileError) as caught:
        audio.load(path)
    assert problem in str(caught.value)
    assert f"ffmpeg -i {path} -ar 16000 -ac 1 -c:a pcm_s16le" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"ID3", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_wav_file(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(audio.AudioFileError, match="not a WAV file that can be read"):
        audio.load(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(audio.AudioFileError, match="no such file"):
        audio.load(tmp_path / "a.wav")
    with pytest.raises(audio.AudioFileError, match="not a WAV file that can be read"):
        audio.load(tmp_path)


def test_a_blip_is_no_speech(tmp_path):
    with pytest.raises(audio.AudioFileError, match="too little"):
        audio.load(recording(tmp_path / "a.wav", seconds=0.02))
