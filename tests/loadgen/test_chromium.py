"""Freezes and frames a second as a real Chromium counts them, through the same outages."""

from __future__ import annotations

import asyncio

import pytest

from tests.chromium_outages import STEADY_S, watch
from tests.processes import synthetic_sender

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

STOPS = [[STEADY_S + 1.0, 0.08], [STEADY_S + 2.0, 0.4], [STEADY_S + 3.5, 1.0]]
"""(begin, seconds). The first is too short to be a freeze at 25 pictures a second."""
SCRIPTS = {
    "sender": {"pauses": STOPS},
    "network": {"outages": STOPS},
    "unrepaired": {"outages": [[STEADY_S + 1.5, 2.0]], "retransmit": False},
    "nothing": {},
}
# At least: a busy machine may hold up the sender, which both receivers then see. How near both are
# to the script is `loadgen-freezes`' matter.
FREEZES = {"sender": 2, "network": 2, "unrepaired": 1, "nothing": 0}
FROZEN_S = {"sender": 1.4, "network": 1.4, "unrepaired": 2.9, "nothing": 0.0}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    with synthetic_sender(tmp_path_factory.mktemp("media") / "media.pickle", 256, 256, 4) as url:
        return asyncio.run(watch(url, SCRIPTS, 9.0))


@pytest.mark.parametrize("script", SCRIPTS)
def test_freezes_are_counted_exactly_as_chromium_does(pairs, script):
    pair = pairs[script]
    assert pair.ours.freezes == pair.chromium.freezes >= FREEZES[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_frozen_time_is_chromiums(pairs, script):
    pair = pairs[script]
    assert pair.ours.frozen_s == pytest.approx(pair.chromium.frozen_s, rel=0.1)
    assert pair.ours.frozen_s >= FROZEN_S[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_frames_a_second_are_chromiums(pairs, script):
    pair = pairs[script]
    assert pair.ours.fps == pytest.approx(pair.chromium.fps, rel=0.05)
