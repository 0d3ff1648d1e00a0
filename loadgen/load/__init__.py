"""The load test: many viewers in one or several Locust processes, and what came of them.

Everything below `visit` and beside it knows asyncio only; `bridge` carries calls between
Locust's greenlets and the one thread that runs asyncio; `users`, `run` and `master` know Locust.
"""
