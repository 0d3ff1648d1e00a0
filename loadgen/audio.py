"""Recorded speech from a WAV file, ready to be streamed: a file or its content in, PCM out.

It must not know who streams it. OpenTalking's speech WebSocket takes one format only, so a file
in another one is refused with the command that converts it; converting it silently would
measure speech other than the one that was named.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

from loadgen.opentalking import SAMPLE_RATE
from loadgen.turn import SpeechInput

_MIN_S = 0.1


class AudioFileError(ValueError):
    """The file cannot be used as speech; the message says what is wrong and how to fix it."""


def load(path: Path) -> SpeechInput:
    """Read a WAV file of 16 kHz mono s16le PCM. Raises AudioFileError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise AudioFileError(f"{path}: no such file") from error
    except OSError as error:
        raise AudioFileError(
            f"{path}: not a WAV file that can be read ({error.strerror}). {_fix(str(path))}"
        ) from error
    return decode(content, str(path))


def decode(content: bytes, name: str) -> SpeechInput:
    """Take the same from a file's content; `name` is what messages call it."""
    try:
        with wave.open(io.BytesIO(content), "rb") as recording:
            wrong = _wrong_format(recording)
            pcm = recording.readframes(recording.getnframes())
    except (EOFError, wave.Error) as error:
        raise AudioFileError(
            f"{name}: not a WAV file that can be read ({str(error) or 'too short'}). {_fix(name)}"
        ) from error
    if wrong:
        raise AudioFileError(f"{name}: {', '.join(wrong)}. {_fix(name)}")
    seconds = len(pcm) / 2 / SAMPLE_RATE
    if seconds < _MIN_S:
        raise AudioFileError(f"{name}: holds {seconds:.2f} s of sound, too little to be speech")
    return SpeechInput(pcm)


def _wrong_format(recording: wave.Wave_read) -> list[str]:
    wrong = []
    if recording.getframerate() != SAMPLE_RATE:
        wrong.append(f"{recording.getframerate()} Hz instead of {SAMPLE_RATE} Hz")
    if recording.getnchannels() != 1:
        wrong.append(f"{recording.getnchannels()} channels instead of one")
    if recording.getsampwidth() != 2:
        wrong.append(f"{8 * recording.getsampwidth()} bits a sample instead of 16")
    return wrong


def _fix(name: str) -> str:
    return f"Convert it: ffmpeg -i {name} -ar {SAMPLE_RATE} -ac 1 -c:a pcm_s16le speech.wav"
