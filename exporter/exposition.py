"""Somebody else's Prometheus text → metric families.

What comes in: the body of a `/metrics`. What goes out: `prometheus_client`'s families. It must not
know whose they are.
"""

from __future__ import annotations

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


def parse(text: str) -> list[Metric]:
    """Every family of the text. Raises ValueError for one that is no exposition."""
    try:
        return list(text_string_to_metric_families(text))
    except (ValueError, LookupError, TypeError) as error:
        # The parser has no error of its own: a broken line is whatever it happened to trip over.
        raise ValueError(f"/metrics is not an exposition: {error}") from error
