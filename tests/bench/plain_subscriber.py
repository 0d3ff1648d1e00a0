"""The peer of `exporter-events`: a plain redis-py subscriber that only parses the JSON.

    python -m tests.bench.plain_subscriber URL COUNT

It prints `ready`, takes COUNT messages, and prints the CPU seconds that took.
"""

from __future__ import annotations

import json
import sys
import time

import redis


def main(url: str, count: int) -> None:
    with redis.Redis.from_url(url) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("opentalking:events:*")
        pubsub.get_message(timeout=5)
        print("ready", flush=True)
        seen, before = 0, time.process_time()
        while seen < count:
            message = pubsub.get_message(timeout=5)
            if message is not None and message["type"] == "pmessage":
                json.loads(message["data"])
                seen += 1
        print(time.process_time() - before, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
