"""The exporter in operation, as a process: reload, refusals, logs, stop."""

import asyncio
import json
import signal
import socket
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest

from exporter import gauges, service, stages, upstream
from exporter.config import parse
from exporter.health import SourceHealth
from exporter.observations import BusGap, BusLost, Reading, Readings, SessionSeen, TargetEvent
from tests.exporter.test_omnirt import omnirt
from tests.exporter.test_process import NOWHERE, relay
from tests.processes import exporter, wait_until

EVENT = {"kind": "event", "session": "s", "unix": 2.0, "event": "ping", "data": {}}
ORIGIN = "https://app.example.com"
SAYS = "Speak pipeline timing: session=s llm_first_token_ms=147"


def send(url, sequence=1, **headers):
    records = [EVENT | {"sequence": sequence}]
    body = {"version": 1, "origin": "test", "records": records}
    return httpx.post(f"{url}/v1/marks", json=body, headers=headers)


def marks_health(url):
    return httpx.get(f"{url}/v1/target").json()["sources"]["marks"]


@contextmanager
def configured(folder, text):
    """An exporter with a file; yields its URL and a function that changes the file."""
    file = folder / "exporter.yaml"
    file.write_text(f"target: {NOWHERE}\n{text}")
    log = folder / "exporter.log"
    with exporter(folder, "--config", str(file)) as (url, child):

        def change(text, expect, head=f"target: {NOWHERE}\n"):
            before = log.read_text().count(expect)
            file.write_text(head + text)
            child.send_signal(signal.SIGHUP)
            wait_until(lambda: log.read_text().count(expect) > before, f"{expect!r} in the log")

        yield url, change


def test_a_batch_without_the_token_is_refused_and_counted(tmp_path):
    with configured(tmp_path, "ingest_token: right\n") as (url, _):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}):
            answer = send(url, **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer" in answer.json()["error"]
        assert send(url, authorization="Bearer right").status_code == 202
        assert marks_health(url)["dropped_by"] == {"unauthorized": 3}
        assert httpx.get(f"{url}/metrics").status_code == 200


def test_too_many_batches_are_told_when_to_come_back(tmp_path):
    with configured(tmp_path, "ingest_rate: 0.01\ningest_burst: 3\n") as (url, _):
        answers = [send(url, n) for n in range(1, 6)]
        assert [a.status_code for a in answers] == [202, 202, 202, 429, 429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 100
        assert marks_health(url)["dropped_by"] == {"rate_limited": 2}


def test_a_body_that_is_too_large_is_counted(tmp_path):
    with configured(tmp_path, "") as (url, _):
        assert httpx.post(f"{url}/v1/marks", content=b"x" * (5 << 20)).status_code == 413
        assert marks_health(url)["dropped_by"] == {"too_large": 1}


def preflight(url, origin):
    headers = {"origin": origin, "access-control-request-method": "POST"}
    headers["access-control-request-headers"] = "authorization,content-type"
    return httpx.options(f"{url}/v1/marks", headers=headers)


def test_pages_of_listed_origins_alone_may_send(tmp_path):
    with configured(tmp_path, f"cors_origins: [{ORIGIN}]\ningest_token: t\n") as (url, _):
        allowed = preflight(url, ORIGIN)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert preflight(url, "https://evil.example.com").status_code == 400
        # A refusal must be readable by the page as well, with the time to wait.
        refused = send(url, origin=ORIGIN)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "retry-after" in refused.headers["access-control-expose-headers"].lower()


def test_no_page_may_send_by_default(tmp_path):
    with configured(tmp_path, "") as (url, _):
        assert "access-control-allow-origin" not in preflight(url, ORIGIN).headers


def test_a_reload_changes_what_can_be_changed_and_names_the_rest(tmp_path):
    with configured(tmp_path, "log_level: info\n") as (url, change):
        assert send(url, 1).status_code == 202
        change(
            f"ingest_token: new\ncors_origins: [{ORIGIN}]\nbundle: elsewhere\n",
            "now in force: ingest_token, cors_origins; a restart is needed for: bundle",
        )
        assert send(url, 2).status_code == 401
        assert preflight(url, ORIGIN).status_code == 200
        # Still told from what runs, not from what was read last.
        change("bundle: elsewhere\n", "a restart is needed for: bundle")
        assert send(url, 3).status_code == 202
        assert "access-control-allow-origin" not in preflight(url, ORIGIN).headers
        change("ingest_rate: 0.01\ningest_burst: 1\n", "ingest_rate, ingest_burst")
        assert [send(url, n).status_code for n in (4, 5)] == [202, 429]
        change("ingest_rate: 0.01\ningest_burst: 1\n", "nothing changed")


def test_a_wrong_file_keeps_the_old_configuration(tmp_path):
    with configured(tmp_path, "ingest_token: right\n") as (url, change):
        change("ingest_tokn: wrong\n", "the nearest known one is 'ingest_token'")
        change("ingest_token: [\n", "is not YAML")
        change("", "--target is missing", head="")
        assert send(url, authorization="Bearer right").status_code == 202
        assert send(url).status_code == 401
    lines = (tmp_path / "exporter.log").read_text().splitlines()
    assert sum("the old configuration stays" in line for line in lines) == 3
    assert not [line for line in lines if "Traceback" in line]


def test_without_a_file_there_is_nothing_to_reload(tmp_path):
    with exporter(tmp_path, "--target", NOWHERE) as (url, child):
        child.send_signal(signal.SIGHUP)
        wait_until(
            lambda: "nothing to reload" in (tmp_path / "exporter.log").read_text(), "the line"
        )
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_logs_can_be_json_lines(tmp_path):
    with exporter(tmp_path, "--target", NOWHERE, "--log-format", "json") as (_, child):
        child.send_signal(signal.SIGHUP)
        wait_until(
            lambda: "nothing to reload" in (tmp_path / "exporter.log").read_text(), "the line"
        )
    lines = [json.loads(line) for line in (tmp_path / "exporter.log").read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert ("warning", "exporter") in {(line["level"], line["logger"]) for line in lines}


def test_a_log_level_is_kept(tmp_path):
    with exporter(tmp_path, "--target", NOWHERE, "--log-level", "error"):
        pass
    assert (tmp_path / "exporter.log").read_text() == ""


def test_several_backends_are_served_along(tmp_path):
    with omnirt() as first, omnirt() as second:
        arguments = ["--target", NOWHERE, "--omnirt", first, "--omnirt", second]
        with exporter(tmp_path, *arguments) as (url, _):

            def text():
                return httpx.get(f"{url}/metrics").text

            wait_until(lambda: text().count("omnirt_queue_depth{") == 2, "both backends")
            assert text().count('talkscope_source_up{source="omnirt:127.0.0.1:') == 2
            described = httpx.get(f"{url}/v1/target").json()["omnirt"]
            assert [b["ready"] for b in described] == [True, True]


def test_a_commands_output_is_a_log(tmp_path):
    script = f"print('{SAYS}', flush=True); import time; time.sleep(600)"
    command = f'{sys.executable} -c "{script}"'
    with exporter(tmp_path, "--target", NOWHERE, "--log-command", command) as (url, child):
        wait_until(
            lambda: httpx.get(f"{url}/v1/target").json()["sources"]["log"]["events"] == 1,
            "the line",
        )
        child.terminate()
        assert child.wait(20) == 0


@contextmanager
def hanging_endpoint():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept():
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", held
        for connection in held:
            connection.close()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_that_hangs_does_not_hold_up_the_stop(tmp_path, protocol):
    bundle = tmp_path / "b"
    with hanging_endpoint() as (endpoint, held):
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        arguments = ["--target", NOWHERE, "--bundle", str(bundle)]
        with exporter(tmp_path, *arguments, **environment) as (url, child):
            relay(url, "unified_wav2lip_synth.sse.txt")
            wait_until(
                lambda: "opentalking_turns_total{" in httpx.get(f"{url}/metrics").text, "the turn"
            )
            child.terminate()
            # Far less than the endpoint's own 600 s.
            assert child.wait(60) == 0
        assert held
    assert json.loads((bundle / "manifest.json").read_text())["complete"] is True
    told = json.loads((bundle / "target.json").read_text())["sources"]["otlp"]
    assert told["events"] == 0
    lost = told["dropped_by"]["left_at_stop"]
    assert f"did not take {lost} spans" in (tmp_path / "exporter.log").read_text()


def test_a_source_that_breaks_starts_again_without_its_old_values(monkeypatch):
    monkeypatch.setattr(service, "RESTART_S", 0.01)
    level = Reading(gauges.SLOT_OCCUPIED.name, 1.0)

    class Breaks:
        health = SourceHealth("breaks")
        runs = 0

        async def run(self, emit):
            self.runs += 1
            emit(Readings(1.0, "breaks", (level,)))
            raise KeyError("a mistake of ours")

    async def run():
        running = service.Exporter(parse(["--target", NOWHERE], {}))
        source = Breaks()
        running._sources = [source]
        task = asyncio.create_task(running.run())
        async with asyncio.timeout(30):
            while source.runs < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return source.health, running.metrics.render("")[0].decode()

    health, text = asyncio.run(run())
    assert health.reason == "broke with KeyError: 'a mistake of ours'"
    assert gauges.SLOT_OCCUPIED.family not in text


def test_a_clients_relay_takes_over_while_redis_is_away(tmp_path):
    """In every sink: a turn whose end the bus missed is whole, and no event is there twice."""
    told = [upstream.SPEECH_STARTED, upstream.SPEECH_MEDIA_STARTED, upstream.SPEECH_ENDED]
    told = [(1000.0 + i, name, {"text": "x"}) for i, name in enumerate(told)]
    arguments = ["--target", NOWHERE, "--bundle", str(tmp_path / "bundle")]
    exporter = service.Exporter(parse(arguments, {}))

    def relay(*events):
        relay.sequence += 1
        records = [
            {"kind": "event", "sequence": relay.sequence + i, "session": "s", "unix": at + 0.01}
            | {"event": name, "data": data}
            for i, (at, name, data) in enumerate(events)
        ]
        relay.sequence += len(records)
        body = {"version": 1, "origin": "test", "records": records}
        exporter.take_marks(json.dumps(body).encode())

    relay.sequence = 0
    exporter.emit(TargetEvent(told[0][0], stages.Source.BUS, "s", *told[0][1:]))
    relay(*told[:2])
    exporter.emit(BusLost(1000.5))
    relay(told[2])
    exporter.emit(BusGap(1000.5, 1005.0))
    exporter.emit(SessionSeen(1005.1, "s", state="ready"))
    exporter._bundle.close({}, now=1006.0)
    bundle = tmp_path / "bundle"
    events = [json.loads(line) for line in (bundle / "events.jsonl").read_text().splitlines()]
    assert [(e["source"], e["event"]) for e in events] == [
        ("bus", upstream.SPEECH_STARTED),
        ("sse", upstream.SPEECH_MEDIA_STARTED),
        ("sse", upstream.SPEECH_ENDED),
    ]
    [turn] = [json.loads(line) for line in (bundle / "turns.jsonl").read_text().splitlines()]
    assert (turn["outcome"], turn["error"]) == ("completed", None)
    text = exporter.metrics.render("")[0].decode()
    assert "opentalking_talking_transitions_total 1.0" in text
    assert "talkscope_events_recovered_total 1.0" in text


def test_memory_over_sessions_becomes_a_forecast_in_the_metrics():
    async def run():
        return service.Exporter(parse(["--target", NOWHERE], {}))

    exporter = asyncio.run(run())
    gib = 2.0**30
    labels = {"device": "0", "scope": "device", "group": "all"}
    for sessions in (1, 2, 3):
        exporter.emit(SessionSeen(1.0, f"s{sessions}"))
        used = Reading(gauges.VRAM_USED.name, (4 + sessions) * gib, labels)
        total = Reading(gauges.VRAM_TOTAL.name, 24 * gib, {"device": "0"})
        exporter.emit(Readings(1.0, "nvidia:memory", (total, used)))
    text = exporter.metrics.render("text/plain")[0].decode()
    # 24 GiB hold (24 − 4) ÷ 1 = 20 sessions, of which 3 are live.
    assert 'opentalking_vram_sessions_left{bound="estimate",device="0"} 17.0' in text
    assert exporter.describe()["memory_forecast"][0]["points"] == 3


def test_a_machine_without_an_accelerator_is_told_once(caplog):
    running = service.Exporter(parse(["--target", NOWHERE], {}))
    first, *others = running._accelerators
    with caplog.at_level("INFO"):
        for source in others:
            source.nothing_there = "npu-smi, Ascend's tool, is not installed"
        running._tick()
        assert "no accelerator" not in caplog.text, "the first one may still find one"
        first.nothing_there = "no driver"
        running._tick()
        running._tick()
    assert caplog.text.count("no accelerator: no driver; npu-smi, Ascend's tool, is not") == 1


def test_a_client_is_told_with_which_timestamps_a_speech_began(tmp_path):
    began = {"first_video_timestamp": 2_318_804_221, "first_audio_timestamp": 77_203}
    with configured(tmp_path, "") as (url, _):
        assert httpx.get(f"{url}/v1/sessions/s/speech").status_code == 404
        now = httpx.get(f"{url}/v1/clock").json()["unix"]
        record = {
            "kind": "pipeline",
            "sequence": 1,
            "session": "s",
            "started_unix": now - 4.0,
            "marks": {stages.SPEAK_ENTERED: 0.0},
            "chunks": [],
            "media": began,
            "outcome": "completed",
            "error": None,
        }
        body = {"version": 1, "origin": "agent-1", "records": [record]}
        assert httpx.post(f"{url}/v1/marks", json=body).status_code == 202
        told = httpx.get(f"{url}/v1/sessions/s/speech").json()
    assert (told["video"], told["audio"]) == (2_318_804_221, 77_203)
    assert 4.0 <= told["age_seconds"] < 60.0
