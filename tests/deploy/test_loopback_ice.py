"""The hook that keeps WebRTC on loopback, inside OpenTalking's environment."""

import subprocess

import pytest

from .conftest import DEMO

pytestmark = pytest.mark.e2e

HOOK = {"PYTHONPATH": str(DEMO / "hooks"), "TALKSCOPE_LOOPBACK_ICE": "1"}


OFFER = """
import asyncio, json
from aiortc import RTCPeerConnection
from aiortc.rtcicetransport import RTCIceGatherer
async def main():
    peer = RTCPeerConnection()
    peer.addTransceiver("audio")
    await peer.setLocalDescription(await peer.createOffer())
    print(json.dumps([peer.localDescription.sdp, len(RTCIceGatherer.getDefaultIceServers())]))
    await peer.close()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("told", "offered"),
    [
        ({}, {"127.0.0.1"}),
        ({"TALKSCOPE_MEDIA_ADDRESSES": "127.0.0.1,127.0.0.2"}, {"127.0.0.1", "127.0.0.2"}),
    ],
)
def test_only_what_was_told_is_offered_and_no_server_is_asked(in_venv, told, offered):
    sdp, servers = in_venv("opentalking", "-c", OFFER, environment=HOOK | told)
    candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate:")]
    assert {line.split()[4] for line in candidates} == offered
    assert servers == 0


def test_a_browser_s_hidden_address_is_not_asked_for_on_the_network(in_venv):
    code = """
import asyncio, json
from aioice import Candidate, Connection
from unittest.mock import patch
import aiortc
async def main():
    connection = Connection(ice_controlling=True)
    with patch("aioice.mdns.create_mdns_protocol", side_effect=AssertionError("multicast")):
        candidate = Candidate("1", 1, "udp", 1, "0a1b.local", 5000, "host")
        await connection.add_remote_candidate(candidate)
    print(json.dumps(len(connection.remote_candidates)))
asyncio.run(main())
"""
    assert in_venv("opentalking", "-c", code, environment=HOOK) == 0


def test_without_the_variable_nothing_is_replaced(in_venv):
    code = """
import json
from aiortc.rtcicetransport import RTCIceGatherer
print(json.dumps(len(RTCIceGatherer.getDefaultIceServers())))
"""
    without = HOOK | {"TALKSCOPE_LOOPBACK_ICE": "0"}
    assert in_venv("opentalking", "-c", code, environment=without) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import aioice.ice as i, sitecustomize as s; del i.get_host_addresses\n"
            "s._patch_aioice(i)",
            "aioice.ice has no get_host_addresses",
        ),
        (
            "import sitecustomize as s; s._PATCHES['aioice.moved'] = print\nimport aiortc",
            "importing aiortc did not import aioice.moved",
        ),
    ],
)
def test_a_library_that_has_changed_ends_the_process(venvs, code, reason):
    done = subprocess.run(
        [str(venvs / "opentalking" / "bin" / "python"), "-c", f"{code}\nprint('went on')"],
        env=HOOK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert done.stdout == ""
    assert reason in done.stderr
    assert "requirements-opentalking.txt" in done.stderr
