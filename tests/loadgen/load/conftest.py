"""Locust must not patch the test process: its other tests run asyncio in threads."""

import os

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
