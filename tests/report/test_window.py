"""A window of a real Prometheus: the same numbers as the bundle, or a word on why not."""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest

from exporter import gauges, stages, upstream
from report import build
from report.absence import Missing
from report.compare import Conclusion, compare
from report.errors import PrometheusError
from report.prometheus import Prometheus
from report.result import Result, Status
from report.summary import Quantile, Statistics
from report.window import Selection, read
from talkscope.cli import main
from tests.processes import exporter, free_port, wait_until
from tests.prometheus import Life, openmetrics, prometheus
from tests.report.recording import run
from tests.report.test_published import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TTFV = stages.TTFV.key
TURNS = 120


# --- one experiment, two sources -----------------------------------------------------------


def batches(begin: float) -> Iterator[list[dict[str, Any]]]:
    """A synthetic run as a client of unified mode relays it: a session a batch, six turns each."""
    generator = random.Random(1)
    for number in range(TURNS // 6):
        session = f"sess_{number}"
        records: list[dict[str, Any]] = [
            {"kind": "session", "model": "wav2lip", "avatar": "demo", "started_unix": begin,
             "marks": {stages.SESSION_REQUESTED: 0.0, stages.SESSION_CREATED: 0.03}},
        ]  # fmt: skip
        for turn in range(1, 7):
            at = begin + number + turn * 0.01
            ttfa, ttfv = (
                median * math.exp(generator.gauss(0.0, 0.3)) for median in (900.0, 1500.0)
            )
            timing = {
                "api_enqueue_to_speak_enter_ms": 1.5, "ttfa_ms": ttfa, "ttfv_ms": ttfv,
                "e2e_first_response_ms": ttfa + ttfv + 2.0, "first_webrtc_queue_ms": ttfa + ttfv,
                "first_model_request_ms": ttfa + 100.0, "first_model_return_ms": ttfa + ttfv - 20.0,
                "speak_wall_ms": 8000.0,
            }  # fmt: skip
            drift = generator.gauss(0.0, 40.0)
            client = {
                "turn": str(turn), "input": "text", "phase": "measured", "started_unix": at,
            }  # fmt: skip
            queued = at + (ttfa + ttfv) / 1000.0
            records += [
                {"kind": "turn_opened", **client},
                *(
                    {"kind": "event", "unix": unix, "event": event, "data": data}
                    for unix, event, data in (
                        (at + 0.001, upstream.SPEECH_STARTED, {"text": "x"}),
                        (queued, upstream.SPEECH_MEDIA_STARTED, {}),
                        (at + 8.0, upstream.SPEECH_TIMING, timing),
                        (at + 8.0, upstream.SPEECH_ENDED, {"text": "x"}),
                    )
                ),
                {"kind": "turn", **client, "outcome": "completed", "error": None, "absent": {},
                 "marks": {stages.INPUT: 0.0, stages.CLIENT_FIRST_AUDIO: ttfa / 1000 + 0.05,
                           stages.CLIENT_FIRST_TALKING_FRAME: queued - at + 0.1},
                 "samples": {stages.AV_DRIFT.key: drift, stages.PLAYBACK_FPS.key: 24.9},
                 "bases": {}},
            ]  # fmt: skip
        yield [{**record, "session": session} for record in records]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    """The result of the bundle, and that of the window."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "bundle").mkdir()
    (folder / "bundle" / "run.json").write_text(json.dumps(run()), encoding="utf-8")
    arguments = ("--target", "http://127.0.0.1:9", "--bundle", str(folder / "bundle"))
    with exporter(folder, *arguments) as (url, child):
        address = url.removeprefix("http://")
        with prometheus(folder, address) as server:
            client = Prometheus(server.url)
            counted = f"sum({gauges.TURNS.family}_total)"
            seen = f"{gauges.SESSIONS_SEEN.family}_total"
            wait_until(lambda: client.at(seen, time.time()), "a first scrape")
            begin = time.time()
            sequence = 0
            for records in batches(begin - 100.0):
                body = []
                for record in records:
                    sequence += 1
                    body.append({**record, "sequence": sequence})
                sent = {"version": 1, "origin": "test", "records": body}
                answer = httpx.post(f"{url}/v1/marks", json=sent)
                assert answer.status_code == 202, answer.text
            wait_until(
                lambda: [one.values for one in client.at(counted, time.time())] == [[TURNS]],
                "the turns to be scraped",
            )
            window = read(client, begin, time.time(), Selection(model="wav2lip"))
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    return build(folder / "bundle"), window


COMPARED = (
    *(stages.TTFA, stages.TTFV, stages.FIRST_TURN_TOTAL, stages.PERCEIVED_TTFA),
    *(stages.PERCEIVED_TTFV, stages.AVATAR_FIRST_FRAME_LATENCY, stages.AUDIO_CHUNK_FILL),
    *(stages.AV_DRIFT, stages.PLAYBACK_FPS, stages.MEDIA_DELIVERY),
)


@pytest.mark.parametrize("stage", COMPARED, ids=lambda stage: stage.key)
def test_both_sources_agree_within_the_bound_that_is_stated(
    both: tuple[Result, Result], stage: stages.Stage
) -> None:
    exact, found = (side.turns[stage.key].statistics for side in both)
    assert isinstance(exact, Statistics)
    assert isinstance(found, Statistics)
    assert found.n == exact.n == TURNS
    assert found.mean == pytest.approx(exact.mean, abs=1e-3)
    for ours, true in ((found.p50, exact.p50), (found.p95, exact.p95), (found.p99, exact.p99)):
        assert isinstance(ours, Quantile)
        assert isinstance(true, Quantile)
        assert ours.within is not None
        assert ours.within.low - 1e-6 <= true.value <= ours.within.high + 1e-6


def test_the_bound_is_5_percent_where_these_systems_live(both: tuple[Result, Result]) -> None:
    exact, found = (side.turns[TTFV].statistics for side in both)
    assert isinstance(exact, Statistics)
    assert isinstance(found, Statistics)
    assert found.median == pytest.approx(exact.median, rel=0.05)


def test_both_sources_count_the_same_turns(both: tuple[Result, Result]) -> None:
    bundle, window = both
    assert window.outcomes == bundle.outcomes
    assert sum(window.startups.values()) == sum(bundle.startups.values()) == TURNS
    assert window.verdict == bundle.verdict
    created = window.sessions[stages.SESSION_CREATE.key].statistics
    assert isinstance(created, Statistics)
    assert created.n == TURNS // 6


def test_what_only_a_bundle_has_says_so(both: tuple[Result, Result]) -> None:
    _, window = both
    assert window.turns[stages.STEADY_FPS.key].statistics == Missing(
        "not exported to Prometheus; only a run bundle has it"
    )
    assert window.facts.hardware == Missing("Prometheus does not hold it")


# --- windows with something wrong in them --------------------------------------------------

DAY = 1_779_235_200.0
"""2026-05-20 00:00:00 UTC."""
HOUR = 3600.0
ONE = {"model": "wav2lip", "backend": "omnirt", "startup": "steady"}
NOBODY = dict.fromkeys(ONE, "unknown")
OTHER = {**ONE, "model": "quicktalk"}


def every(begin: float, end: float, step: float = 30.0) -> list[float]:
    return [begin + i * step for i in range(int((end - begin) / step) + 1)]


def life(begin: float, end: float, turns: int, labels: dict[str, str] = ONE, **more: Any) -> Life:
    """Scraped every 30 s; the turns, TTFV 1000 ms, end evenly between begin and end."""
    step = (end - begin) / (turns + 1)
    spoken = [(begin + step * (i + 1), labels, {TTFV: 1000.0}) for i in range(turns)]
    return Life(every(begin, end), turns=spoken, **more)


def history() -> str:
    lives = [
        # 0 h: a quiet exporter, then one life of 40 turns of one model.
        Life(every(DAY, DAY + 0.5 * HOUR), instance="quiet"),
        # 2 h: restarted at 2:30, more turns after than before.
        life(DAY + 2 * HOUR, DAY + 2.5 * HOUR - 60, 10),
        life(DAY + 2.5 * HOUR, DAY + 3 * HOUR, 25),
        # 5 h: two models.
        life(DAY + 5 * HOUR, DAY + 6 * HOUR, 10),
        life(DAY + 5 * HOUR, DAY + 6 * HOUR, 10, OTHER, instance="two"),
        # 9 h: scrapes missing from 9:20 to 9:40.
        Life(
            [
                *every(DAY + 9 * HOUR, DAY + 9 * HOUR + 1200),
                *every(DAY + 9 * HOUR + 2400, DAY + 10 * HOUR),
            ],
            turns=life(DAY + 9 * HOUR, DAY + 10 * HOUR, 30).turns,
        ),
        # 12 h: NaN among memory readings, and cold and unnamed turns beside 20 steady ones.
        Life(
            every(DAY + 12 * HOUR, DAY + 13 * HOUR, 60.0),
            turns=[
                *life(DAY + 12 * HOUR, DAY + 13 * HOUR, 20).turns,
                (DAY + 12 * HOUR + 90, {**ONE, "startup": "cold"}, {TTFV: 9000.0}),
                (DAY + 12 * HOUR + 95, NOBODY, {TTFV: 5.0}),
            ],
            levels=[
                (
                    gauges.VRAM_USED.family,
                    {"device": "0", "scope": "process"},
                    [math.nan if i % 2 else 2.0**30 + (i % 32) for i in range(61)],
                )
            ],
        ),
        # 16 h: beyond the last bucket.
        Life(
            every(DAY + 16 * HOUR, DAY + 17 * HOUR),
            turns=[(DAY + 16 * HOUR + 100 + i, ONE, {TTFV: 90_000.0}) for i in range(5)],
        ),
        # 20 h and 22 h: a turn a minute, and the same with an avatar that takes 300 ms longer.
        staged(DAY + 20 * HOUR, 0.0),
        staged(DAY + 22 * HOUR, 300.0),
    ]  # fmt: skip
    return openmetrics(lives)


def staged(begin: float, slower_ms: float) -> Life:
    generator = random.Random(begin)
    turns = []
    for number in range(100):
        values = {
            stage.key: median * math.exp(generator.gauss(0.0, 0.2))
            for stage, median in (
                (stages.AUDIO_CHUNK_FILL, 400.0),
                (stages.AVATAR_FIRST_FRAME_LATENCY, 1000.0 + slower_ms),
                (stages.MEDIA_QUEUE, 100.0),
            )
        }
        turns.append((begin + 30.0 * number + 45.0, ONE, {**values, TTFV: sum(values.values())}))
    return Life(every(begin, begin + HOUR), turns=turns)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("history"), history=history()) as stored:
        yield stored.url


def window(server: str, begin: float, end: float, **chosen: str) -> Result:
    return read(Prometheus(server), DAY + begin * HOUR, DAY + end * HOUR, Selection(**chosen))


def count(result: Result) -> int:
    found = result.turns[TTFV].statistics
    return found.n if isinstance(found, Statistics) else 0


def test_a_restart_is_said_and_costs_only_what_was_not_scraped(server: str) -> None:
    result = window(server, 2 - 0.1, 3)
    assert sum("the exporter was restarted 1 times" in one for one in result.remarks) == 1
    # At most the turns of one stretch of 15 s are lost, and none is counted twice.
    assert 34 <= count(result) <= 35
    assert sum(result.outcomes.values()) == count(result)


@pytest.mark.parametrize("begin", [2.2, 2.25, 2.4])
def test_a_window_counts_what_ended_in_it(server: str, begin: float) -> None:
    turns = life(DAY + 2 * HOUR, DAY + 2.5 * HOUR - 60, 10).turns
    expected = sum(at > DAY + begin * HOUR for at, _, _ in turns)
    assert count(window(server, begin, 2.48)) == pytest.approx(expected, abs=1)


def test_two_models_in_one_window_are_refused_and_can_be_told_apart(server: str) -> None:
    with pytest.raises(PrometheusError) as caught:
        window(server, 5, 6)
    assert "holds turns of quicktalk/omnirt, wav2lip/omnirt" in str(caught.value)
    assert "choose with --model and --backend" in str(caught.value)
    assert count(window(server, 5, 6, model="quicktalk")) == 10


def test_a_gap_is_said_and_bridged(server: str) -> None:
    result = window(server, 9 - 0.1, 10)
    assert count(result) == 30
    (said,) = [one for one in result.remarks if "scrapes are missing" in one]
    assert "2026-05-20T09:" in said


def test_a_window_that_begins_in_a_gap_counts_from_the_first_reading_on(server: str) -> None:
    result = window(server, 9.5, 10)
    first = DAY + 9 * HOUR + 2400
    turns = life(DAY + 9 * HOUR, DAY + 10 * HOUR, 30).turns
    assert count(result) == pytest.approx(sum(at > first for at, _, _ in turns), abs=1)
    assert any("begins in a gap" in one for one in result.remarks)


def test_nan_is_no_reading_and_cold_turns_are_not_mixed_with_the_rest(server: str) -> None:
    result = window(server, 12 - 0.1, 13)
    found = result.turns[TTFV].statistics
    assert isinstance(found, Statistics)
    assert found.n == 20
    assert found.mean == pytest.approx(1000.0)
    assert result.startups == {"steady": 20, "cold": 1}
    assert result.memory.peak == 2.0**30 + 30
    assert "values of no known model, left out: 1" in result.remarks


def test_a_window_without_turns_has_no_numbers(server: str) -> None:
    result = window(server, 0, 0.5)
    assert result.verdict.status is Status.NOT_ENOUGH_DATA
    assert result.turns[TTFV].statistics == Missing("no value in the window")


def test_a_window_without_an_exporter_is_told(server: str) -> None:
    with pytest.raises(PrometheusError, match="holds no scrape of an exporter between 2026-05-21T"):
        window(server, 30, 31)
    with pytest.raises(PrometheusError, match="holds no scrape"):
        window(server, 2, 3, run="nobody")


def test_values_beyond_the_last_bucket_have_no_median(server: str) -> None:
    found = window(server, 16 - 0.1, 17).turns[TTFV].statistics
    assert found == Missing("the median lies above the last bucket's edge, 60000")


def test_a_window_takes_one_query_a_panel(server: str) -> None:
    client = Prometheus(server)
    read(client, DAY, DAY + 24 * HOUR, Selection(model="wav2lip"))
    assert client.queries == 8


def test_two_windows_are_compared_like_two_bundles(server: str) -> None:
    before, after = window(server, 20 - 0.1, 21), window(server, 22 - 0.1, 23)
    found = compare(before, after)
    assert found.metric is stages.TTFV
    assert found.conclusion is Conclusion.REGRESSION
    assert found.primary is not None
    assert found.primary.n == (100, 100)
    assert found.primary.found.estimate == pytest.approx(300.0, abs=120.0)
    assert not isinstance(found.attribution, Missing)
    main = found.attribution.main
    assert main is not None
    assert main.stage is stages.AVATAR_FIRST_FRAME_LATENCY
    same = compare(before, before)
    assert same.conclusion is Conclusion.SAME


def test_the_command_reports_and_compares_windows(server: str, tmp_path: Path, capsys: Any) -> None:
    day = "2026-05-20T"
    windows = [f"{day}19:54Z/{day}21:00Z", f"{day}21:54Z/{day}23:00Z"]
    assert main(["compare", "--prometheus", server, *windows]) == 1
    assert capsys.readouterr().out.startswith(f"Verdict: regression ({TTFV})")
    times = ["--from", f"{day}19:54Z", "--to", f"{day}21:00Z"]
    assert main(["report", "--prometheus", server, *times, "--out", str(tmp_path)]) == 0
    assert "### wav2lip / omnirt / no accelerator seen / 2026/5/20" in capsys.readouterr().out
    names = ["report.html", "report.md", "result.csv", "result.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    document = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    found = document["turns"][TTFV]
    low, high = found["within"]["median"]
    assert low < found["median"] < high


# --- a Prometheus that does not answer -----------------------------------------------------


@contextlib.contextmanager
def answering(status: int, body: bytes, *, delay: float = 0.0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(delay)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"<html>hello</html>", "did not answer as a Prometheus does; check the address"),
        (200, b'{"status": "success"}', "did not answer as a Prometheus does"),
        (404, b"", "answered with status 404; check the address"),
        (401, b"", "answered with status 401; give credentials"),
        (
            422,
            json.dumps({"status": "error", "error": "query would load too many samples"}).encode(),
            "says: query would load too many samples; give a shorter window",
        ),
    ],
)
def test_an_answer_that_is_none_is_told(status: int, body: bytes, problem: str) -> None:
    with answering(status, body) as url, pytest.raises(PrometheusError) as caught:
        read(Prometheus(url), DAY, DAY + HOUR, Selection())
    assert str(caught.value).startswith(f"{url}: {problem}")


def test_a_slow_prometheus_is_told() -> None:
    with (
        answering(200, b"{}", delay=1.0) as url,
        pytest.raises(PrometheusError, match=r"did not answer within 0\.2 s; give a"),
    ):
        read(Prometheus(url, timeout=0.2), DAY, DAY + HOUR, Selection())


def test_a_prometheus_that_is_down_is_told_without_its_password() -> None:
    url = f"http://someone:secret@127.0.0.1:{free_port()}"
    with pytest.raises(PrometheusError) as caught:
        read(Prometheus(url), DAY, DAY + HOUR, Selection())
    assert "cannot be reached ([Errno 111] Connection refused)" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_window_that_ends_before_it_begins_is_told() -> None:
    with pytest.raises(PrometheusError, match="the window ends before it begins; swap its ends"):
        read(Prometheus("http://127.0.0.1:1"), DAY, DAY, Selection())
