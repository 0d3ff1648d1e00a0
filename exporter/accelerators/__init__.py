"""One file for each vendor's management library, and the host itself.

Each reads its device and yields levels and identities; "no device", "no library" and "failed"
are different answers, and none of them is zero.
"""
