"""The lines of one large file → one accumulator, on all processors.

What comes in: a region of JSON lines, and a maker of accumulators. What goes out: the
accumulator that has seen every line, the same however many processes shared the work, or the
first line that could not be read. It must not know what a line holds.

A large region is cut at line ends into parts, which forked processes fold in turn, one a
processor, and the parts are merged in order. So all processes read near one another, and what one
has read from the disk is still in memory for another.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from report.decode import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from report.archive import Region

PARALLEL_FROM: Final = 32 * 2**20
"""Bytes from which on starting processes pays."""

_PART: Final = 64 * 2**20
"""Most bytes of a part, but for what is left of its last line."""

_READ: Final = 2**20
"""Bytes of lines that are read at once."""


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
    """Every line of the region in one accumulator; raises `LineError` and OSError."""
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


def mapped(function: Callable[[T], R], items: list[T]) -> Iterator[R]:
    """`map`, on all processors when there is more than one item.

    Results are sent, so they must be picklable; items are not. Raises OSError, also when a process
    was ended.
    """
    workers = min(len(items), os.cpu_count() or 1)
    if workers <= 1:
        yield from map(function, items)
        return
    processes = [_started(function, items[first::workers]) for first in range(workers)]
    try:
        for number in range(len(items)):
            yield _received(processes[number % workers][1])
    finally:
        for process, _ in processes:
            # Only one that nobody waits for is still there.
            process.kill()
            process.join()


def beside(function: Callable[[T], R], item: T) -> Callable[[], R]:
    """Start a function in a process of its own; calling what is returned waits for its result.

    An OSError of the function is raised there.
    """
    process, receiver = _started(function, [item])

    def result() -> R:
        try:
            found: R = _received(receiver)
        finally:
            process.join()
        return found

    return result


def _started(function: Callable[[T], Any], items: list[T]) -> tuple[ForkProcess, Connection]:
    """A process that sends the result of each item.

    A process and not a thread: the work is Python's. Forked, so that it starts in milliseconds,
    has the items already and shares the seed of string hashes.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, function, items), daemon=True)
    process.start()
    sender.close()
    return process, receiver


def _received(receiver: Connection) -> Any:
    try:
        told = receiver.recv()
    except EOFError as error:
        raise OSError("a process that reads its files was ended") from error
    if isinstance(told, OSError):
        raise told
    return told


def _tell(sender: Connection, function: Callable[[T], Any], items: list[T]) -> None:
    try:
        for item in items:
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
    count = workers * -(-region.size // (workers * _PART))
    parts = []
    begin = region.offset
    end = region.offset + region.size
    with region.path.open("rb") as stream:
        for number in range(1, count + 1):
            stream.seek(max(begin, region.offset + region.size * number // count))
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
    for lines in _lines(region):
        for line in lines:
            number += 1
            try:
                accumulator.line(line)
            except DecodeError as error:
                return _Folded(accumulator, number, str(error))
    return _Folded(accumulator, number, None)


def _lines(region: Region) -> Iterator[list[bytes]]:
    """The lines without their ends, many at a time."""
    begin, end = region.offset, region.offset + region.size
    wanted = _READ
    # Not unbuffered: that may read less than is asked for in the midst of a file.
    with region.path.open("rb") as stream:
        while begin < end:
            stream.seek(begin)
            block = stream.read(min(wanted, end - begin))
            lines = block.split(b"\n")
            begin += len(block)
            if lines[-1] == b"" or (begin < end and len(block) == wanted):
                # What a line has of this block is read again with the rest of it.
                begin -= len(lines.pop())
            yield lines
            if len(block) < wanted:
                return
            wanted = _READ if lines else 2 * wanted
