"""Every alert fires on what it is for, and is silent on what looks like it: promtool says so."""

import json
import math
import re
import subprocess
from dataclasses import dataclass

import pytest

from exporter import gauges, stages
from exporter.stages import Outcome
from grafana import alerts, names, rules

MODEL = 'model="quicktalk",backend="omnirt"'
MINUTES_A_DAY = 1440
SIGMA = 0.2


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, one sample a minute, and when to look."""

    alert: str
    name: str
    series: dict[str, str]
    at: int
    """Minute at which the alert is judged."""
    fires: bool


def level(value: float, minutes: int) -> str:
    return f"{value}x{minutes}"


def growing(per_minute: float, minutes: int) -> str:
    return f"0+{per_minute}x{minutes}"


def share_below(edge: float, middle: float) -> float:
    """Of log-normal values, sigma 0.2, around `middle`: the share up to `edge`."""
    if math.isinf(edge):
        return 1.0
    return 0.5 * (1 + math.erf(math.log(edge / middle) / (SIGMA * math.sqrt(2))))


def within_reach(edge: float) -> bool:
    """The buckets that these cases can tell apart; all of them would take promtool minutes."""
    return 0.8 < edge < 1.4 or edge in (alerts.SLO_TTFV_S, alerts.SLO_TTFA_S)


def histogram(stage, parts, startup="steady"):
    """Series of a histogram whose turns go through parts of (minutes, turns a minute, middle)."""
    labels = f'{MODEL},startup="{startup}"'

    def counter(rate) -> str:
        total, text = 0.0, []
        for minutes, turns, middle in parts:
            step = turns * rate(middle)
            begin = total + (step if text else 0.0)
            count = minutes - 1 if text else minutes
            text.append(f"{begin:.6f}+{step:.6f}x{count}")
            total += step * minutes
        return " ".join(text)

    series = {
        f'{stage.family}_bucket{{{labels},le="{"+Inf" if math.isinf(edge) else edge}"}}': counter(
            lambda middle, edge=edge: share_below(edge, middle)
        )
        for edge in (*filter(within_reach, stage.buckets), math.inf)
    }
    series[f"{stage.family}_count{{{labels}}}"] = counter(lambda middle: 1.0)
    series[f"{stage.family}_sum{{{labels}}}"] = counter(
        lambda middle: middle * math.exp(SIGMA**2 / 2)
    )
    return series


def gone_after(series, minutes):
    """The same series, with nothing from that minute on."""
    return {
        name: re.sub(r"x(\d+)$", lambda m: f"x{minutes} _x{int(m[1]) - minutes}", values)
        for name, values in series.items()
    }


REGRESSIONS = {
    "TTFVRegression": stages.PERCEIVED_TTFV,
    "ServerTTFVRegression": stages.TTFV,
    "TTFARegression": stages.PERCEIVED_TTFA,
    "ServerTTFARegression": stages.TTFA,
}
SHIFT_AT = MINUTES_A_DAY + 60


def regressions():
    for name, stage in REGRESSIONS.items():

        def shift(turns, by, minutes, stage=stage):
            return histogram(stage, [(SHIFT_AT, turns, 1.0), (minutes, turns, by)])

        yield Case(
            name, "15 % at probe traffic, ten minutes on", shift(4, 1.15, 60), SHIFT_AT + 10, True
        )
        yield Case(name, "before the shift", shift(4, 1.15, 60), SHIFT_AT - 1, False)
        lost = gone_after(histogram(stage, [(SHIFT_AT, 4, 1.0)]), SHIFT_AT - 60)
        yield Case(name, "no data", lost, SHIFT_AT - 1, False)
        if stage is not stages.PERCEIVED_TTFV:
            # The rules differ in the stage alone, and days of history take promtool seconds.
            continue
        yield Case(name, "5 %", shift(4, 1.05, 120), SHIFT_AT + 100, False)
        yield Case(name, "too few turns to tell", shift(0.5, 2.0, 120), SHIFT_AT + 100, False)
        cold = histogram(stage, [(SHIFT_AT, 4, 1.0), (60, 4, 2.0)], startup="cold")
        yield Case(name, "cold turns are slow by nature", cold, SHIFT_AT + 30, False)


BURNS = {
    "TTFVBudgetBurn": (stages.PERCEIVED_TTFV, alerts.SLO_TTFV_S),
    "TTFABudgetBurn": (stages.PERCEIVED_TTFA, alerts.SLO_TTFA_S),
}


def burns():
    for name, (stage, limit) in BURNS.items():
        slow, good = 3.0 * limit, 0.3 * limit
        # `just`: the middle at which a tenth of the turns misses the objective, twice the budget.
        just = limit * math.exp(-SIGMA * 1.2816)
        for window, minutes, worse in (("1h", 70, slow), ("6h", 400, slow), ("3d", 4500, just)):
            alert = f"{name}{window}"
            bad, fine = ([(minutes, 4, middle)] for middle in (worse, good))
            yield Case(alert, "too slow", histogram(stage, bad), minutes, True)
            yield Case(alert, "fast", histogram(stage, fine), minutes, False)
            rare = histogram(stage, [(minutes, 0.001, worse)])
            yield Case(alert, "too few turns to tell", rare, minutes, False)
            over = histogram(stage, [*bad, (400, 4, good)])
            yield Case(alert, "over since long", over, minutes + 399, False)
            yield Case(alert, "no data", {}, minutes, False)


def turns(outcome, bad, good):
    name = f"{gauges.TURNS.family}_total{{{MODEL},outcome="
    return {
        f'{name}"{outcome.value}"}}': growing(bad, 60),
        f'{name}"{Outcome.COMPLETED.value}"}}': growing(good, 60),
    }


LOSSES = {
    "TurnsVanish": Outcome.VANISHED,
    "TurnsFail": Outcome.FAILED,
    "TurnsWithoutMedia": Outcome.NO_MEDIA,
}


def losses():
    for name, outcome in LOSSES.items():
        yield Case(name, "one in five", turns(outcome, 1, 4), 30, True)
        yield Case(name, "one in a thousand", turns(outcome, 0.4, 400), 30, False)
        yield Case(name, "one turn in all", turns(outcome, 0.01, 0.0), 30, False)
        yield Case(name, "no data", {}, 30, False)


def simple():
    drift = f'{gauges.LIVE_DRIFT.family}{{statistic="median"}}'
    worst = f'{gauges.LIVE_DRIFT.family}{{statistic="worst"}}'
    for name, early, late in (
        ("OpenTalkingLipSyncNoticeable", 0.05, -0.13),
        ("OpenTalkingLipSyncUnacceptable", 0.095, -0.19),
    ):
        yield Case(name, "sound early", {drift: level(early, 30)}, 20, True)
        yield Case(name, "sound late", {drift: level(late, 30)}, 20, True)
        yield Case(name, "sound late, which is noticed less", {drift: level(-early, 30)}, 20, False)
        yield Case(name, "one session alone", {worst: level(-1.0, 30)}, 20, False)
        yield Case(name, "no data", {}, 20, False)

    fps = stages.PLAYBACK_FPS.family
    labels = f'{MODEL},startup="steady"'

    def played(rate, each):
        return {
            f"{fps}_sum{{{labels}}}": growing(rate * each, 60),
            f"{fps}_count{{{labels}}}": growing(rate, 60),
        }

    yield Case("PlaybackBelowNominal", "20 frames a second", played(4, 20), 30, True)
    yield Case("PlaybackBelowNominal", "nominal", played(4, 25), 30, False)
    yield Case("PlaybackBelowNominal", "too few turns to tell", played(0.1, 10), 30, False)
    yield Case("PlaybackBelowNominal", "no data", {}, 30, False)

    queue = f'{gauges.QUEUE_LEVEL.family}{{queue="task"}}'
    busy = f'{gauges.ACCELERATOR_UTILIZATION.family}{{device="0"}}'
    grows, stands = growing(1, 60), level(0, 60)
    for name, waits, works, fires in (
        ("grows while the accelerator idles", grows, level(0.1, 60), True),
        ("grows because the accelerator is busy", grows, level(0.95, 60), False),
        ("empty", stands, level(0.1, 60), False),
    ):
        yield Case("HiddenQueue", name, {queue: waits, busy: works}, 40, fires)
    yield Case("HiddenQueue", "no data of the accelerator", {queue: grows}, 40, False)

    left = f'{gauges.VRAM_SESSIONS_LEFT.family}{{device="0",bound="lower"}}'
    yield Case("AcceleratorMemoryForecast", "one more", {left: level(1, 30)}, 20, True)
    yield Case("AcceleratorMemoryForecast", "a dozen", {left: level(12, 30)}, 20, False)
    yield Case("AcceleratorMemoryForecast", "no data", {}, 20, False)

    healthy = f'{gauges.ACCELERATOR_HEALTHY.family}{{device="0"}}'
    yield Case("AcceleratorLost", "lost", {healthy: "1x10 0x20"}, 20, True)
    yield Case("AcceleratorLost", "healthy", {healthy: level(1, 30)}, 20, False)
    yield Case("AcceleratorLost", "no data", {}, 20, False)

    for name, job in (("TalkscopeExporterDown", "talkscope"), ("ProbeSilent", "talkscope-probe")):
        up = f'up{{job="{job}",instance="x"}}'
        yield Case(name, "cannot be scraped", {up: level(0, 30)}, 20, True)
        yield Case(name, "up", {up: level(1, 30)}, 20, False)
        yield Case(name, "not configured", {}, 20, False)

    source = '{source="bus"}'
    seen = f"talkscope_source_last_seen_timestamp_seconds{source}"
    down = {f"talkscope_source_up{source}": level(0, 30)}
    works = {f"talkscope_source_up{source}": level(1, 30)}
    yield Case("TalkscopeSourceDown", "lost", {**down, seen: level(60, 30)}, 20, True)
    yield Case("TalkscopeSourceDown", "never there, as an accelerator may be", down, 20, False)
    yield Case("TalkscopeSourceDown", "up", {**works, seen: level(60, 30)}, 20, False)
    yield Case("TalkscopeSourceDown", "no data", {}, 20, False)

    def probe(failed, completed, outcome="failed"):
        return {
            f'{names.PROBE_TURNS}{{instance="p",outcome="{outcome}"}}': growing(failed, 60),
            f'{names.PROBE_TURNS}{{instance="p",outcome="completed"}}': growing(completed, 60),
        }

    yield Case("ProbeFailing", "every turn", probe(4, 0), 30, True)
    yield Case("ProbeFailing", "every session is refused", probe(4, 0, "no_session"), 30, True)
    yield Case("ProbeFailing", "one in an hour", probe(1 / 60, 4), 30, False)
    yield Case("ProbeFailing", "no data", {}, 30, False)
    yield Case("ProbeSilent", "stuck", probe(0, 0), 30, True)
    yield Case("ProbeSilent", "at work", probe(0, 4), 30, False)

    def generator(lag, cpu):
        flagged = f'{names.WINDOWS_FLAGGED}{{instance="w",flag='
        return {
            f'{names.WINDOWS}{{instance="w"}}': growing(12, 60),
            f'{flagged}"loop_lag"}}': growing(lag, 60),
            f'{flagged}"loop_cpu"}}': growing(cpu, 60),
        }

    yield Case("GeneratorSaturated", "every other window", generator(6, 6), 30, True)
    yield Case("GeneratorSaturated", "one window in twenty", generator(0.6, 0.6), 30, False)
    yield Case("GeneratorSaturated", "well", generator(0, 0), 30, False)
    yield Case("GeneratorSaturated", "no data", {}, 30, False)


CASES = [*regressions(), *burns(), *losses(), *simple()]


def test_every_alert_has_a_case_that_fires_one_that_does_not_and_one_without_data():
    for alert in alerts.ALERTS:
        cases = [case for case in CASES if case.alert == alert.name]
        assert any(case.fires for case in cases), alert.name
        assert any(not case.fires and case.series for case in cases), alert.name
        assert any(not case.fires and case.name.startswith(("no", "never")) for case in cases)


def rules_for(alert: str) -> dict:
    """The alert, with the recordings that it needs: the others would only take time."""
    group = alerts.prometheus_group()
    rule = next(rule for rule in group["rules"] if rule["alert"] == alert)
    stage = REGRESSIONS.get(alert)
    recordings = [
        {"name": g["name"], "rules": [r for r in g["rules"] if f":{stage.family}:" in r["record"]]}
        for g in rules.groups()
        if stage is not None
    ]
    return {"groups": [*recordings, {"name": group["name"], "rules": [rule]}]}


def promtool_test(case: Case) -> dict:
    # ALERTS is a series like any other, so that no label has to be spelt out here.
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    return {
        "name": f"{case.alert}: {case.name}",
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f"clamp_max({firing} or vector(0), 1)",
                "eval_time": f"{case.at}m",
                "exp_samples": [{"labels": "{}", "value": int(case.fires)}],
            }
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.name}")
def test_it_fires_when_it_should_and_only_then(case, tmp_path):
    (tmp_path / "rules.json").write_text(json.dumps(rules_for(case.alert)))
    # Three days, minute by minute, are long; what holds for an hour is seen at any step.
    step = "1m" if case.at < 2000 else "10m"
    test = {
        "rule_files": ["rules.json"],
        "evaluation_interval": step,
        "tests": [promtool_test(case)],
    }
    (tmp_path / "test.json").write_text(json.dumps(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
