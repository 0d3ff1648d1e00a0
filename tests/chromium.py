"""A real headless Chromium as a viewer: sessions with WebRTC servers, and what it says of them.

All times are the browser's own: `performance.now()` in milliseconds, taken in the page.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.processes import program

FLAGS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    # Servers under test listen on loopback, and cannot resolve names of multicast DNS.
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    # No window is ever in front.
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
)

_SCRIPT = """
window.sessions = [];

window.connect = async (path, extra) => {
  const connection = new RTCPeerConnection({iceServers: []});
  const marks = {};
  const mark = (name, at) => { if (!(name in marks)) marks[name] = at ?? performance.now(); };
  const video = document.createElement('video');
  const shown = new Promise(resolve => video.requestVideoFrameCallback((now, frame) => {
    mark('callback', now);
    mark('presented', frame.presentationTime);
    if (frame.receiveTime !== undefined) mark('received', frame.receiveTime);
    resolve();
  }));
  video.muted = true;
  video.autoplay = true;
  video.srcObject = new MediaStream();
  document.body.append(video);
  connection.ontrack = event => video.srcObject.addTrack(event.track);
  connection.onconnectionstatechange = () => mark(connection.connectionState);
  mark('offer');
  connection.addTransceiver('video', {direction: 'recvonly'});
  connection.addTransceiver('audio', {direction: 'recvonly'});
  await connection.setLocalDescription(await connection.createOffer());
  while (connection.iceGatheringState !== 'complete')
    await new Promise(resolve => connection.addEventListener(
      'icegatheringstatechange', resolve, {once: true}));
  const {sdp, type} = connection.localDescription;
  const reply = await fetch(path, {
    method: 'POST', headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({sdp, type, ...extra})});
  if (!reply.ok) throw new Error(`${path} answered ${reply.status}: ${await reply.text()}`);
  const answer = await reply.json();
  await connection.setRemoteDescription({sdp: answer.sdp, type: answer.type});
  mark('answered');
  await shown;
  while (connection.connectionState !== 'connected')
    await new Promise(resolve => connection.addEventListener(
      'connectionstatechange', resolve, {once: true}));
  window.sessions.push({connection, video});
  return {session: window.sessions.length - 1, marks};
};

window.inbound = async number => {
  const stats = await window.sessions[number].connection.getStats();
  for (const one of stats.values())
    if (one.type === 'inbound-rtp' && one.kind === 'video') return one;
};

window.hangUp = number => {
  const {connection, video} = window.sessions[number];
  connection.close();
  video.remove();
};
"""


class Viewer:
    """A page of the server that it views, so that requests are of the same origin."""

    def __init__(self, page: Any) -> None:
        self._page = page

    async def open(self, path: str, **extra: Any) -> tuple[int, dict[str, float]]:
        """Offer at `path` and wait for the first rendered frame; return session and instants.

        `extra` goes into the offer's body beside `sdp` and `type`. Instants, in ms: `offer`
        (before it is made), `answered` (the answer is set), `connected`, `received` (the first
        frame's last packet), `presented` and `callback` (requestVideoFrameCallback).
        """
        done = await self._page.evaluate("([p, e]) => window.connect(p, e)", [path, extra])
        return done["session"], done["marks"]

    async def inbound_video(self, session: int) -> dict[str, Any]:
        """W3C webrtc-stats: the session's `inbound-rtp` of video."""
        stats: dict[str, Any] = await self._page.evaluate("n => window.inbound(n)", session)
        return stats

    async def close(self, session: int) -> None:
        """Close the session's connection."""
        await self._page.evaluate("n => window.hangUp(n)", session)


@contextlib.asynccontextmanager
async def chromium_at(url: str) -> AsyncIterator[Viewer]:
    """A browser that shows `url`; what its page says goes into the error that it raises."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program("chromium", "chromium"), args=list(FLAGS)
        )
        try:
            page = await browser.new_page()
            await page.goto(url)
            await page.evaluate(f"() => {{ {_SCRIPT} }}")
            yield Viewer(page)
        finally:
            await browser.close()
