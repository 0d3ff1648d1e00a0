"""Every panel and every alert on real series: the real target, exporter and Prometheus.

When an alert fires is asked in tests/grafana; here, whether what it asks for is there.
"""

import math

import pytest

from exporter import gauges, stages
from grafana import alerts, names, rules
from grafana.__main__ import ROOT
from loadgen.opentalking import SAMPLE_RATE
from loadgen.turn import SpeechInput, TextInput
from tests.e2e.stack import deployment
from tests.grafana.expressions import as_sent, names_in, of_alerts, of_panels, selectors
from tests.processes import wait_until
from tests.prometheus import prometheus

pytestmark = pytest.mark.e2e

RULES = tuple(ROOT / "deploy/prometheus/rules" / name for name in ("recordings.yml", "alerts.yml"))

LOAD = "no load test runs, and no probe"
HISTORY = "asks for 50 steady turns an hour, and for the days before"
SESSIONS = "the memory of the stand-in accelerator does not grow with sessions"
LIMITS = "only where the exporter's control group has a limit"
JOBS = "OmniRT counts jobs, and a realtime stream is none"
GOOD = "no turn failed, and no input was unusable"

WITHOUT: dict[str, str] = {
    **dict.fromkeys(names.OF_PROBE | names.OF_GENERATOR, LOAD),
    **{
        f"{names.of_viewers(stage)}_bucket": LOAD
        for stage in (
            stages.SESSION_CREATE,
            stages.WEBRTC_FIRST_FRAME,
            stages.PERCEIVED_TTFA,
            stages.PERCEIVED_TTFV,
            stages.PLAYBACK_FPS,
            stages.AV_DRIFT,
        )
    },
    **{
        rules.name(stage, what): HISTORY
        for stage in rules.WATCHED
        for what in ("mean_baseline", "p50_baseline", "mean_ratio", "mean_noise")
    },
    gauges.VRAM_PER_SESSION.family: SESSIONS,
    gauges.VRAM_SESSIONS_LEFT.family: SESSIONS,
    gauges.MEMORY_LIMIT.family: LIMITS,
    gauges.CPU_LIMIT.family: LIMITS,
    gauges.BACKEND_QUEUE.family: JOBS,
    gauges.BACKEND_VRAM_PEAK.family: JOBS,
    f"{gauges.BACKEND_CHUNK_DURATION}_bucket": JOBS,
    names.SOURCE_DROPPED: GOOD,
}
"""Series that this run need not have, and why."""

WITHOUT_CHOICE: dict[str, str] = {
    f"{names.UP}{{{alerts.PROBE}}}": LOAD,
}
"""The same of selectors whose series are there otherwise."""


def needed(asked):
    """Whether a healthy run must have what is asked for."""
    return not names_in(as_sent(asked.expr)) & WITHOUT.keys()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A Prometheus that watched two sessions, the second of which still lives."""
    folder = tmp_path_factory.mktemp("stack")
    say, ask = TextInput("Hello."), SpeechInput(bytes(SAMPLE_RATE))
    with (
        deployment(folder, state="two_gpus") as running,
        prometheus(folder, running.address, rules=RULES) as watching,
        running.spoken((say, ask, say, ask), (say, ask)),
    ):
        turns = stages.PERCEIVED_TTFV
        recorded = rules.recent(turns, "mean")
        # A mean needs a second turn of each startup, and the recordings come every 15 s.
        wait_until(lambda: numbers(watching, recorded), recorded, 60.0)
        yield watching


def numbers(prometheus, expr):
    return [value for value in prometheus.query(expr).values() if not math.isnan(value)]


@pytest.mark.parametrize("asked", list(of_panels()), ids=str)
def test_a_panel_shows_something(watched, asked):
    found = numbers(watched, as_sent(asked.expr))
    assert found or not needed(asked)


@pytest.mark.parametrize("asked", list(of_alerts()), ids=str)
def test_an_alert_asks_for_series_that_are_there_and_does_not_hold(watched, asked):
    missing = [
        text
        for name, text in {(s.name, s.prettify()) for s in selectors(asked.expr)}
        if name not in WITHOUT
        and text not in WITHOUT_CHOICE
        and not numbers(watched, f"count({text})")
    ]
    assert not missing
    assert numbers(watched, asked.expr) == []


def test_what_need_not_be_there_is_not_there(watched):
    """Else the list above excuses what it should not."""
    for name, reason in (WITHOUT | WITHOUT_CHOICE).items():
        assert reason == LIMITS or not watched.query(name), name


def test_an_accelerator_that_the_machine_does_not_have_is_no_lost_source(watched):
    assert watched.query(f'{names.SOURCE_UP}{{source="ascend"}} == 0')
    assert not watched.query(f'{names.SOURCE_SEEN}{{source="ascend"}}')
    assert watched.query(f'{names.SOURCE_SEEN}{{source="nvidia"}}')
