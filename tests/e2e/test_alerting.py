"""From a provider that gets slow to the webhook: every part is real but the days before.

The shipped windows are ten minutes; these rules come from the same definitions with shorter ones
(`grafana.rules.Windows`). When the shipped ones fire is what tests/grafana/test_alerts.py asks.
"""

import json
import time

import httpx
import numpy as np
import pytest

from exporter import stages
from grafana import alerts, rules
from loadgen.turn import TextInput
from tests.alertmanager import alertmanager
from tests.e2e.stack import MODEL, deployment
from tests.grafana.history import openmetrics
from tests.processes import wait_until
from tests.prometheus import backfill, backfill_rules, prometheus

pytestmark = pytest.mark.e2e

STAGE = stages.PERCEIVED_TTFV
WINDOWS = rules.Windows(
    recent="20s", turns=3, recent_every="1s", baseline_every="1s", lasts="1s", keeps="0s"
)
ALERT = alerts.regression(STAGE, "TTFVRegression", "page", WINDOWS)
SLOW_MS = 1500.0
"""The language model's first token, instead of after 120 ms."""

DAY_S = 86_400
A_MINUTE = 4


def normal_days(usual_s):
    """A day and a bit of the probe's turns, a scrape a minute, until a minute ago."""
    now = int(time.time())
    times = np.arange(now - DAY_S - 7200, now - 60, 60)
    turns = np.random.default_rng(1).lognormal(np.log(usual_s), 0.2, (len(times), A_MINUTE))
    labels = f'model="{MODEL}",backend="omnirt",startup="steady"'
    return openmetrics(STAGE, labels, turns, times), int(times[0])


def steady(exporter):
    """Sum (seconds) and count of the steady turns so far; empty before the first has ended."""
    found = {}
    for line in httpx.get(f"{exporter}/metrics").text.splitlines():
        for part in ("sum", "count"):
            if line.startswith(f"{STAGE.family}_{part}{{") and 'startup="steady"' in line:
                found[part] = float(line.split()[-1])
    return found


@pytest.fixture(scope="module")
def delivered(tmp_path_factory):
    """What the webhook got before, and after, the language model got slow."""
    folder = tmp_path_factory.mktemp("alerting")
    shorter = folder / "shorter.json"
    groups = [*rules.groups(WINDOWS), alerts.prometheus_group([ALERT])]
    shorter.write_text(json.dumps({"groups": groups}))
    hourly = [
        rule
        for group in rules.groups(WINDOWS)
        for rule in group["rules"]
        if rule["record"].startswith(f"talkscope:{STAGE.family}:") and "_1h" in rule["record"]
    ]
    say = TextInput("Hello.")
    with deployment(folder) as running, alertmanager(folder) as received:
        with running.spoken((say, say)):
            # The exporter ends a turn a little later than the client.
            wait_until(lambda: steady(running.exporter), "a steady turn")
            spoken = steady(running.exporter)
        # Half as slow again, so that a busy machine's normal turn is no regression here.
        past, began = normal_days(1.5 * spoken["sum"] / spoken["count"])
        backfill(past, folder)
        with prometheus(folder, running.address) as before:
            backfill_rules(before.url, hourly, began, began + 4 * 3600, folder)
        watch = prometheus(folder, running.address, rules=[shorter], alertmanager=received.address)
        with watch as watching:
            ratio = rules.name(STAGE, "mean_ratio")
            with running.spoken((say, say, say)):
                wait_until(lambda: watching.query(ratio), "a comparison with the days before")
                calm = list(received.messages)
            knobs = f"{running.target.facts['provider']['url']}/knobs"
            httpx.put(knobs, json={"llm_first_token_ms": SLOW_MS}).raise_for_status()
            with running.spoken((say, say, say, say)):
                wait_until(lambda: received.firing(ALERT.name), "the webhook")
        yield calm, received.firing(ALERT.name)


def test_normal_turns_beside_normal_days_wake_nobody(delivered):
    calm, _ = delivered
    assert calm == []


def test_a_slow_language_model_reaches_the_webhook(delivered):
    _, [alert, *_] = delivered
    assert alert["labels"] == {
        "alertname": ALERT.name,
        "severity": "page",
        "model": MODEL,
        "backend": "omnirt",
    }
    assert alert["annotations"]["summary"].startswith(f"{STAGE.title} of {MODEL} is slower")
    assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks/ttfv-regression.md")
