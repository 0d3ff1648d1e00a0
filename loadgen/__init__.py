"""A client of OpenTalking: one session over HTTP, server-sent events and WebRTC, and its bench."""
