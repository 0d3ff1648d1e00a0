"""A simulated week of normal days, judged by the real rules in a real Prometheus.

Two days of history come before it, so that its weekend has no weekend to be compared with. Turns
scatter by a fifth (log-normal), their mean follows the hours of the day and dips at the weekend,
and only the probe speaks: four turns a minute, the least that the rules have to cope with.
"""

import json
import math
import subprocess
import urllib.parse
import urllib.request

import numpy as np
import pytest

from exporter import stages
from grafana import alerts, rules
from tests.processes import free_port, process, wait_until

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


def openmetrics(seed: int) -> str:
    """The histogram as a scrape a minute would have found it."""
    random = np.random.default_rng(seed)
    means = np.array([usual_mean(minute) for minute in range(DAYS * DAY)])
    means[SHIFTED : SHIFTED + SHIFT_MINUTES] *= SHIFT
    turns = random.lognormal(-(SIGMA**2) / 2, SIGMA, (DAYS * DAY, PER_MINUTE)) * means[:, None]
    edges = [*stages.TIME_BUCKETS, math.inf]
    times = START + 60 * (1 + np.arange(DAYS * DAY))
    lines = [f"# TYPE {STAGE.family} histogram"]
    for edge in edges:
        counts = np.cumsum((turns <= edge).sum(axis=1))
        if counts[-1] == 0:
            continue
        le = "+Inf" if math.isinf(edge) else repr(edge)
        name = f'{STAGE.family}_bucket{{{LABELS},le="{le}"}}'
        lines += [f"{name} {count} {at}" for count, at in zip(counts, times, strict=True)]
    for part, values in (
        ("count", PER_MINUTE * (1 + np.arange(DAYS * DAY))),
        ("sum", np.cumsum(turns.sum(axis=1))),
    ):
        name = f"{STAGE.family}_{part}{{{LABELS}}}"
        lines += [f"{name} {value} {at}" for value, at in zip(values, times, strict=True)]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """URL of a Prometheus that holds those days and what the recording rules make of it."""
    folder = tmp_path_factory.mktemp("week")
    data = folder / "data"
    (folder / "history.txt").write_text(openmetrics(seed=7))
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run(
        [*backfill, str(folder / "history.txt"), str(data)], check=True, capture_output=True
    )
    (folder / "prometheus.yml").write_text("{}")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}"),
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
    for number, names in enumerate(
        (("_10m", "_1h"), ("_baseline",), ("mean_ratio",), ("mean_noise",))
    ):
        part = {
            "groups": [
                {"name": "part", "rules": [r for r in of_stage if r["record"].endswith(names)]}
            ]
        }
        file = folder / f"rules{number}.yml"
        file.write_text(json.dumps(part))
        with process(command, log=folder / "prometheus.log"):
            wait_until(ready, "Prometheus")
            make = ["promtool", "tsdb", "create-blocks-from", "rules", "--eval-interval=1m"]
            span = [f"--start={START}", f"--end={START + DAYS * DAY * 60}", f"--url={url}"]
            subprocess.run(
                [*make, *span, f"--output-dir={data}", str(file)], check=True, capture_output=True
            )
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
