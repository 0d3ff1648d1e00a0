"""Finding the first talking frame in recordings whose pictures were numbered."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from loadgen.media.frames import Frame
from loadgen.media.onset import Basis, Onset, beside_sound, by_size
from loadgen.media.packets import VIDEO_CLOCK_HZ
from tests.loadgen.streams import FIXTURES

FRAME_S = 0.04


@dataclass
class Recorded:
    """One recorded turn; the first sound arrived at 0."""

    size: str
    begin: float
    first: int
    """Index of the first talking frame, by the number that the picture showed."""
    frames: list[Frame]

    def shifted(self, seconds: float) -> Recorded:
        """The same with all pictures that much later."""
        frames = [
            frame(number, f.arrival + seconds, f.size) for number, f in enumerate(self.frames)
        ]
        return Recorded(self.size, self.begin, self.first, frames)


def frame(number, at, size):
    return Frame(number * VIDEO_CLOCK_HZ // 25, at, at, key=False, packets=1, size=size)


def still(*sizes, ends=-0.04):
    """Frames 40 ms apart, the last at `ends`."""
    begin = ends - FRAME_S * (len(sizes) - 1)
    return [frame(n, begin + n * FRAME_S, size) for n, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def turns():
    found = []
    for line in (FIXTURES / "onsets.jsonl").read_text().splitlines():
        size, begin, first, frames = json.loads(line)
        frames = [frame(n, ms / 1e3, size) for n, (ms, size) in enumerate(frames)]
        found.append(Recorded(size, begin / 1e3, first, frames))
    return found


SOUND = (0.0, 5.0)
"""When the first and the last sound of the speech arrived, s."""


def estimate(turn):
    return by_size(turn.frames, turn.begin, *SOUND) or beside_sound(turn.frames, turn.begin, *SOUND)


def test_nearly_every_recorded_onset_is_found_to_the_frame(turns):
    found = [(estimate(turn), turn.frames[turn.first].arrival) for turn in turns]
    errors = [abs(frame.arrival - truth) for frame, truth in found if frame is not None]
    # One speech begins while the encoder still refines the picture, and falls as it does so.
    assert len(errors) >= len(turns) - 1
    assert max(errors) <= FRAME_S
    assert sum(error == 0 for error in errors) >= 0.97 * len(turns)


@pytest.mark.parametrize("shift_ms", [-300, -120, 0, 120, 300])
def test_what_sizes_alone_tell_does_not_depend_on_the_sound(turns, shift_ms):
    told = 0
    for turn in turns:
        moved = turn.shifted(shift_ms / 1e3)
        found = by_size(moved.frames, turn.begin - 1, *SOUND)
        told += found is not None
        assert found in (None, moved.frames[turn.first])
    assert told >= 0.7 * len(turns)


def test_a_picture_that_never_moves_has_no_onset():
    frames = still(*[61] * 40, ends=0.5)
    assert by_size(frames, -1.0, *SOUND) is None
    assert beside_sound(frames, -1.0, *SOUND) is None


def test_a_key_frame_of_a_still_picture_is_no_onset():
    # As recorded: the encoder saves behind a key frame what that has cost.
    frames = still(*[1450] * 20, 3167, 215, 211, 274, 242, 511, 437, 764, ends=0.26)
    assert frames[20].arrival == pytest.approx(-0.02)
    assert by_size(frames, -1.0, *SOUND) is None
    assert beside_sound(frames, -1.0, *SOUND) is None


def test_a_still_picture_that_is_refined_beside_the_sound_has_no_onset():
    # As the mock model's: the same picture for ever, and a bitrate that rose.
    frames = still(*[61] * 40, 1200, 1500, 1100, 900, *[64] * 21, ends=0.96)
    assert frames[40].arrival == pytest.approx(0.0)
    assert by_size(frames, -1.0, *SOUND) is None
    assert beside_sound(frames, -1.0, *SOUND) is None


def test_nothing_from_before_the_input_is_an_onset():
    frames = still(*[60] * 20, *[2000] * 10, ends=0.36)
    assert beside_sound(frames, 0.1, *SOUND) is None
    assert by_size(frames, 0.1, *SOUND) is None


def test_a_guess_that_leans_on_the_sound_anchors_no_drift():
    [one] = still(100)
    assert Onset(one, Basis.FRAME_SIZES).anchor is one
    assert Onset(one, Basis.BESIDE_SOUND).anchor is None
