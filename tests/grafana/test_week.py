"""A simulated week of normal days, judged by the real rules in a real Prometheus.

Two days of history come before it, so that its weekend has no weekend to be compared with. Turns
scatter by a fifth (log-normal), their mean follows the hours of the day and dips at the weekend,
and only the probe speaks: four turns a minute, the least that the rules have to cope with.
"""

import json
import math
import urllib.parse
import urllib.request

import numpy as np
import pytest

from exporter import stages
from grafana import alerts, rules
from tests.grafana.history import openmetrics
from tests.processes import free_port, process, wait_until
from tests.prometheus import backfill, backfill_rules

SIGMA = 0.2
PER_MINUTE = 4
DAY = 1440
STAGE = stages.PERCEIVED_TTFV
LABELS = 'model="m",backend="b",startup="steady"'

START = 1_750_291_200
"""A Thursday, 00:00 UTC."""

HISTORY_DAYS, DAYS = 2, 9

SHIFT, SHIFT_MINUTES = 1.15, 120
SHIFTED = 8 * DAY + 14 * 60
"""On the last day, a Friday, at 14:00, everything gets slower, for two hours."""


def usual_mean(minute: int) -> float:
    """The day's wave (a fifth between night and afternoon), a tenth less at the weekend."""
    hour, day = minute / 60 % 24, (minute // DAY + 3) % 7
    wave = 1.0 + 0.1 * math.sin(2 * math.pi * (hour - 9) / 24)
    return wave * (0.9 if day >= 5 else 1.0)


def week(seed: int) -> str:
    """The histogram as a scrape a minute would have found it."""
    random = np.random.default_rng(seed)
    means = np.array([usual_mean(minute) for minute in range(DAYS * DAY)])
    means[SHIFTED : SHIFTED + SHIFT_MINUTES] *= SHIFT
    turns = random.lognormal(-(SIGMA**2) / 2, SIGMA, (DAYS * DAY, PER_MINUTE)) * means[:, None]
    return openmetrics(STAGE, LABELS, turns, START + 60 * (1 + np.arange(DAYS * DAY)))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """URL of a Prometheus that holds those days and what the recording rules make of it."""
    folder = tmp_path_factory.mktemp("week")
    backfill(week(seed=7), folder)
    (folder / "prometheus.yml").write_text("{}")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"),
        # Those days lie in the past.
        *("--storage.tsdb.retention.time=10y", "--web.enable-lifecycle"),
    ]

    def ready() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/-/ready").status == 200
        except OSError:
            return False

    # Recordings of recordings come into being one after the other, as they do in production.
    of_stage = [
        rule
        for group in rules.groups()
        for rule in group["rules"]
        if rule["record"].startswith(f"talkscope:{STAGE.family}:")
    ]
    for names in (("_10m", "_1h"), ("_baseline",), ("mean_ratio",), ("mean_noise",)):
        part = [rule for rule in of_stage if rule["record"].endswith(names)]
        with process(command, log=folder / "prometheus.log"):
            wait_until(ready, "Prometheus")
            backfill_rules(url, part, START, START + DAYS * DAY * 60, folder)
    with process(command, log=folder / "prometheus.log"):
        wait_until(ready, "Prometheus")
        yield url


def minutes_that_hold(url: str, expr: str) -> list[int]:
    """Minutes since the start at which the expression returns something, the week long."""
    begin, end = START + 60 * HISTORY_DAYS * DAY, START + 60 * (DAYS * DAY - 1)
    query = urllib.parse.urlencode({"query": expr, "start": begin, "end": end, "step": 60})
    answer = json.load(urllib.request.urlopen(f"{url}/api/v1/query_range?{query}"))
    return sorted(
        {
            round((float(at) - START) / 60)
            for series in answer["data"]["result"]
            for at, _ in series["values"]
        }
    )


def firings(minutes: list[int], lasts: int, keeps: int) -> list[int]:
    """When an alert that waits for `lasts` minutes and keeps firing for `keeps` would begin."""
    begins, since, before = [], None, None
    until = -1
    for minute in minutes:
        if before is None or minute != before + 1:
            since = minute
        before = minute
        if minute - since >= lasts:
            if minute > until:
                begins.append(minute)
            until = minute + keeps
    return begins


@pytest.fixture(scope="module")
def fired(prometheus):
    alert = next(a for a in alerts.ALERTS if a.name == "TTFVRegression")
    assert (alert.lasts, alert.keeps) == ("1m", "10m")
    return firings(minutes_that_hold(prometheus, alert.expr), 1, 10)


def test_a_week_of_normal_days_gives_at_most_one_false_alarm(fired):
    during = range(SHIFTED, SHIFTED + SHIFT_MINUTES + 10)
    assert len([minute for minute in fired if minute not in during]) <= 1, fired


def test_a_real_shift_among_noisy_days_is_found(fired):
    assert any(SHIFTED < minute <= SHIFTED + 20 for minute in fired), fired
