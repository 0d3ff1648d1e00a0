"""Packet streams with a known truth, and recorded ones, for the meter's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from loadgen.media.meter import MediaMeter
from loadgen.media.packets import AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, Kind, Packet

FIXTURES = Path(__file__).parent / "fixtures"

FPS = 25
AUDIO_PACKET_S = 0.02


@dataclass
class Stream:
    """Makes the packets of one session. Times are seconds on the client's clock.

    `at` is when something is due; `late` is how much later than due it arrives.
    """

    sequence: int = 100
    video_timestamp: int = 500_000
    audio_sequence: int = 7
    audio_timestamp: int = 900_000
    packets_per_frame: int = 3

    def __post_init__(self):
        self.packets = []
        self.decoded = []

    def frame(self, at, *, number=None, key=False, packets=None):
        """One picture whose last packet arrives at `at`; returns its packets."""
        count = packets or self.packets_per_frame
        made = []
        for index in range(count):
            made.append(
                Packet(
                    kind=Kind.VIDEO,
                    arrival=at - 0.0001 * (count - 1 - index),
                    timestamp=self.video_timestamp % (1 << 32),
                    sequence=self.sequence % (1 << 16),
                    marker=index == count - 1,
                    size=1_000,
                    starts_frame=index == 0,
                    key=key and index == 0,
                )
            )
            self.sequence += 1
        self.decoded.append((self.video_timestamp % (1 << 32), number))
        self.video_timestamp += VIDEO_CLOCK_HZ // FPS
        self.packets += made
        return made

    def audio(self, at):
        """One audio packet of 20 ms."""
        packet = Packet(
            kind=Kind.AUDIO,
            arrival=at,
            timestamp=self.audio_timestamp % (1 << 32),
            sequence=self.audio_sequence % (1 << 16),
            marker=False,
            size=120,
        )
        self.audio_sequence += 1
        self.audio_timestamp += int(AUDIO_CLOCK_HZ * AUDIO_PACKET_S)
        self.packets.append(packet)
        return packet

    def idle(self, start, seconds, *, number=None):
        """Idle frames from `start` on; the first of the session is a key frame."""
        for index in range(round(seconds * FPS)):
            self.frame(start + index / FPS, number=number, key=not self.packets)

    def speech(self, start, seconds, *, first=None, drift=0.0, grows=0.0):
        """A speech whose sound arrives from `start` on, its pictures `drift` seconds later.

        `first` is the first frame's number; `grows` is seconds of further drift a second.
        """
        for index in range(round(seconds / AUDIO_PACKET_S)):
            self.audio(start + index * AUDIO_PACKET_S)
        for index in range(round(seconds * FPS)):
            due = index / FPS
            number = None if first is None else (first + index) % 65536
            self.frame(start + drift + due + grows * due, number=number)

    def burst(self, start, count, *, number=None):
        """Idle frames that had piled up behind a speech and leave at once."""
        for index in range(count):
            self.frame(start + 0.001 * index, number=number)


def play(stream, *, input_at, packets=None, decoded=True):
    """Feed a stream to a meter, with the input at `input_at`; return the meter, turn unended."""
    meter = MediaMeter()
    begun = False
    for packet in sorted(packets or stream.packets, key=lambda p: p.arrival):
        if not begun and packet.arrival > input_at:
            meter.begin_turn(input_at)
            begun = True
        meter.on_packet(packet)
    if decoded:
        for timestamp, number in stream.decoded:
            meter.on_decoded(timestamp, number)
    return meter


def recorded(name):
    """Packets of a recording; a picture begins after a marker, and the first is a key frame."""
    packets = []
    begins = True
    for line in (FIXTURES / name).read_text().splitlines():
        arrival, kind, sequence, timestamp, marker, size = json.loads(line)
        packet = Packet(
            kind=Kind.VIDEO if kind == "v" else Kind.AUDIO,
            arrival=arrival,
            timestamp=timestamp,
            sequence=sequence,
            marker=bool(marker),
            size=size,
        )
        if packet.kind is Kind.VIDEO:
            if begins and not any(p.kind is Kind.VIDEO for p in packets):
                packet = replace(packet, starts_frame=True, key=True)
            begins = packet.marker
        packets.append(packet)
    return packets
