import time

import pytest

from exporter import steady_clock


def test_it_is_the_wall_clock_until_that_is_stepped():
    assert steady_clock.now() == pytest.approx(time.time(), abs=steady_clock.RESOLUTION_S)
    assert steady_clock.stepped() == 0.0


@pytest.mark.parametrize("step", [30.0, -30.0])
def test_it_does_not_follow_a_step_and_says_how_far_it_was(monkeypatch, step):
    before, wall = steady_clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    assert 0.0 <= steady_clock.now() - before < abs(step)
    assert steady_clock.stepped() == pytest.approx(step, abs=0.01)
    assert steady_clock.from_wall(time.time()) == pytest.approx(steady_clock.now(), abs=0.01)
