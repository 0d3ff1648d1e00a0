"""Tests that drive the real OpenTalking and OmniRT on loopback."""
