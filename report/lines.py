"""The lines of one large file → one accumulator, on all processors.

What comes in: a region of JSON lines, and a maker of accumulators. What goes out: the
accumulator that has seen every line, the same however many processes shared the work, or the
first line that could not be read. It must not know what a line holds.

A large region is cut at line ends into as many parts as there are processors, each is folded by
a forked process, and the parts are merged in order.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from report.decode import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

    from report.archive import Region

PARALLEL_FROM: Final = 32 * 2**20
"""Bytes from which on starting processes pays."""


class Accumulator(Protocol):
    """What lines are folded into; it travels between processes."""

    def line(self, line: bytes) -> None:
        """Take one line, without its end. Raises `DecodeError`."""

    def merge(self, other: Any) -> None:
        """Take what another one saw in the lines that follow."""


A = TypeVar("A", bound=Accumulator)
T = TypeVar("T")
R = TypeVar("R")


class LineError(Exception):
    """A line, from 1, that could not be read, and why."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem


def fold(region: Region, make: Callable[[], A], *, parallel: bool = True) -> A:
    """Every line of the region in one accumulator; raises `LineError` and OSError.

    `make` must be picklable, such as a class, unless the work is not to be shared.
    """
    parts = _parts(region) if parallel else [region]
    lines = 0
    whole: A | None = None
    for part in mapped(_fold_part, [(part, make) for part in parts]):
        if part.problem is not None:
            raise LineError(lines + part.lines, part.problem)
        lines += part.lines
        if whole is None:
            whole = part.accumulator
        else:
            whole.merge(part.accumulator)
    assert whole is not None
    return whole


def mapped(function: Callable[[T], R], items: list[T]) -> Iterable[R]:
    """`map`, on all processors when there is more than one item."""
    if len(items) == 1:
        return map(function, items)
    # Forked, so that a worker starts in milliseconds and shares the seed of string hashes.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(len(items), os.cpu_count() or 1), context) as pool:
        return list(pool.map(function, items))


def beside(function: Callable[[T], R], item: T) -> Callable[[], R]:
    """Start a function in a process of its own; calling what is returned waits for its result.

    A process and not a thread: forking beside running threads is unsafe. An OSError of the function
    is raised there.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, function, item))
    process.start()
    sender.close()

    def result() -> R:
        try:
            told = receiver.recv()
        except EOFError as error:
            raise OSError("the process that checks its files was ended") from error
        finally:
            process.join()
        if isinstance(told, OSError):
            raise told
        found: R = told
        return found

    return result


def _tell(sender: Connection, function: Callable[[T], R], item: T) -> None:
    try:
        sender.send(function(item))
    except OSError as error:
        sender.send(error)


@dataclass(frozen=True, slots=True)
class _Folded(Generic[A]):
    accumulator: A
    lines: int
    problem: str | None


def _parts(region: Region) -> list[Region]:
    """The region, cut at line ends."""
    workers = os.cpu_count() or 1
    if region.size < PARALLEL_FROM or workers == 1:
        return [region]
    parts = []
    begin = region.offset
    end = region.offset + region.size
    with region.path.open("rb") as stream:
        for number in range(1, workers + 1):
            stream.seek(max(begin, region.offset + region.size * number // workers))
            stream.readline()
            cut = min(stream.tell(), end)
            if cut > begin:
                parts.append(replace(region, offset=begin, size=cut - begin))
            begin = max(begin, cut)
    return parts


def _fold_part(task: tuple[Region, Callable[[], A]]) -> _Folded[A]:
    region, make = task
    accumulator = make()
    number = 0
    left = region.size
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        while left > 0:
            line = stream.readline(left)
            left -= len(line)
            number += 1
            try:
                accumulator.line(line.removesuffix(b"\n"))
            except DecodeError as error:
                return _Folded(accumulator, number, str(error))
    return _Folded(accumulator, number, None)
