"""asyncio in a thread of its own beside Locust's greenlets: coroutines in, results and calls out.

One native thread a process runs the event loop; `call_soon_threadsafe` leads in, one gevent
`async` watcher and a deque lead out. It must not know what the coroutines do.

Measured beside the ways not taken: an `asyncio.run` per greenlet fails, and asyncio on top of
gevent's loop costs 1.8 times the CPU.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import gevent
from gevent.event import AsyncResult, Event

T = TypeVar("T")

_START_S: Final = 10.0


class Bridge:
    """The event loop's thread. Create and use it in the main thread, after any fork."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = Event()
        self._watcher = gevent.get_hub().loop.async_()
        self._watcher.start(self._woken.set)
        self._pump = gevent.spawn(self._deliver)
        self.loop = asyncio.new_event_loop()
        started: AsyncResult = AsyncResult()
        self.loop.call_soon(self.emit, started.set)
        # gevent must not have patched `thread`: this is a thread of the system's.
        self._thread = threading.Thread(target=self._run, name="asyncio", daemon=True)
        self._thread.start()
        started.get(timeout=_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    # --- inside the loop's thread ----------------------------------------------------------

    def emit(self, call: Callable[..., object], *arguments: object) -> None:
        """Have `call(*arguments)` made among the greenlets, in order of emission."""
        self._calls.append((call, arguments))
        self._watcher.send()

    # --- among the greenlets ---------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for its end, however long that takes.

        A greenlet that is killed meanwhile cancels the coroutine and still waits for its end,
        so that what the coroutine cleans up has been cleaned up when this raises.
        """
        result: AsyncResult = AsyncResult()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self.loop.create_task(coroutine)
            tasks.append(task)
            task.add_done_callback(lambda task: self.emit(_hand_over, task, result))

        self.loop.call_soon_threadsafe(begin)
        try:
            value: T = result.get()
        except BaseException as error:
            if result.ready():
                raise
            self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            while not result.ready():
                try:
                    result.wait()
                except (gevent.GreenletExit, KeyboardInterrupt):
                    # Once more asked to stop: it is under way, and its waits have limits.
                    continue
            raise error
        return value

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in the background for the rest of the process."""
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def _deliver(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            while self._calls:
                call, arguments = self._calls.popleft()
                call(*arguments)


def _hand_over(task: asyncio.Task[T], result: AsyncResult) -> None:
    if task.cancelled():
        result.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        result.set_exception(error)
    else:
        result.set(task.result())
