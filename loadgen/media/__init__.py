"""The receiving side of one WebRTC session: packets in, measurements out."""
