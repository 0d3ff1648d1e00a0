"""NPU Exporter's exposition → /metrics, byte for byte, over real HTTP."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from exporter.accelerators.npu_exporter import NpuExporter, UnreadableError, parse
from exporter.accelerators.source import absent
from tests.exporter.accelerators import fuzz
from tests.exporter.accelerators.deployment import Deployment, Owners, check

RECORDINGS = Path(__file__).parent / "recordings" / "npu_exporter"

RECORDED_AT = {
    "ascend-npu-exporter_test_data": 1606402.0,
    "constructed_910B2": 1723621885.0,
    "mind-cluster_no_npu": 1606402.0,
    "mind-cluster_test_data": 1606402.0,
    "mindx-dl_3.0.0_documented": 1613993499.0,
}
CONSTRUCTED = (RECORDINGS / "constructed_910B2.prom").read_text()


@contextmanager
def npu_exporter(text, status=200):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = text.encode()
            self.send_response(status if self.path == "/metrics" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def read(text, now, status=200):
    with npu_exporter(text, status) as url:
        owners = Owners(opentalking=[4242], omnirt=[4243])
        library = NpuExporter(f"{url}/", clock=lambda: now, cann_root=RECORDINGS)
        made = Deployment(library, owners)
        made.read()
        made.source.close()
    return made


@pytest.mark.parametrize("name", RECORDED_AT)
def test_metrics_of_a_recording_are_the_expected_ones(name):
    made = read((RECORDINGS / f"{name}.prom").read_text(), RECORDED_AT[name])
    check(made.exposition(), RECORDINGS / f"{name}.metrics.txt")


def test_a_machine_without_npus_has_no_accelerator():
    made = read((RECORDINGS / "mind-cluster_no_npu.prom").read_text(), 0.0)
    assert absent([made.source]) == "no accelerator: NPU Exporter serves no NPU"


def test_values_that_it_no_longer_renews_are_withdrawn():
    at = RECORDED_AT["constructed_910B2"]
    assert 'opentalking_vram_used_bytes{device="0"' in read(CONSTRUCTED, at + 50).exposition()
    made = read(CONSTRUCTED, at + 70)
    assert "opentalking_vram_used_bytes{" not in made.exposition()
    assert "device 0: NPU Exporter's values of it are more than 60 s old" in made.health.reason


def test_identity_is_in_the_pages_words():
    [first, _] = read(CONSTRUCTED, RECORDED_AT["constructed_910B2"]).source.devices
    assert (first.name, first.driver) == ("NPU 910B2", "cann driver 25.2.0")
    assert first.memory_bytes == 64 * 2.0**30


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (CONSTRUCTED, 503, "503"),
        ("<html>Welcome</html>", 200, "/metrics is not an exposition"),
        ("# TYPE up gauge\nup 1\n", 200, "nothing in it is NPU Exporter's"),
        (
            CONSTRUCTED.replace("} 61 ", "} 161 "),
            200,
            "npu_chip_info_utilization of NPU 0 is 161 %",
        ),
        (CONSTRUCTED.replace("} 12921 ", "} NaN "), 200, "hbm_used_memory of NPU 0 is nan"),
        (CONSTRUCTED.replace('id="0"', 'id="a"'), 200, "the label id is 'a'"),
    ],
)
def test_what_is_not_its_exposition_is_refused_with_the_reason(text, status, reason):
    made = read(text, RECORDED_AT["constructed_910B2"], status)
    assert made.health.failures == 1
    assert reason in made.health.reason
    assert "opentalking_vram_used_bytes{" not in made.exposition()


def test_one_that_does_not_answer_is_a_failure_and_not_no_accelerator():
    with npu_exporter(CONSTRUCTED) as url:
        pass
    made = Deployment(NpuExporter(url))
    made.read()
    assert made.health.reason.startswith("NPU Exporter: ")
    assert made.source.nothing_there is None


def test_no_broken_exposition_breaks_the_parser():
    read_ = refused = 0
    for text in fuzz.broken([CONSTRUCTED[: CONSTRUCTED.index("# HELP npu_chip_info_power")]], 310):
        try:
            served = parse(text, 0.0)
        except UnreadableError:
            refused += 1
        else:
            read_ += 1
            assert all(value >= 0 for c in served.chips for value in (c.memory or ()))
    assert read_ + refused == fuzz.ROUNDS
    assert min(read_, refused) > 300
