"""Whether a target's URL stays on this machine: a URL in, yes or no out.

A loopback target must cause no packet and no request that leaves the machine, so HTTP proxies
and network candidates are switched off for it. Nothing here resolves names.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is `localhost` or a loopback address (RFC 6761, RFC 1122)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
