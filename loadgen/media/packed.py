"""Many small records without many objects: tuples of numbers in, the same tuples out.

Pure. It must not know what the numbers mean. Hundreds of sessions keep tens of thousands of
pictures and sounds; as objects each would be walked by Python's garbage collector, which stalled
the receive path for 20 to 50 ms at a time, and would take six times the memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R", bound=tuple[object, ...])


class PackedRecords(Generic[R]):
    """Records of one type, oldest first."""

    def __init__(self, layout: str, make: Callable[..., R]) -> None:
        """`layout` is that of `struct`, one value a field; `make` takes a record's fields."""
        self._struct = struct.Struct(layout)
        self._make = make
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // self._struct.size

    def append(self, record: R) -> None:
        """Keep a record."""
        self._bytes += self._struct.pack(*record)

    def oldest(self) -> R | None:
        """Return the oldest one, if there is any."""
        return self._make(*self._struct.unpack_from(self._bytes)) if self._bytes else None

    def all(self) -> list[R]:
        """Return them all."""
        return [self._make(*fields) for fields in self._struct.iter_unpack(self._bytes)]

    def keep_latest(self, count: int) -> None:
        """Forget all but the latest `count`."""
        del self._bytes[: -count * self._struct.size or len(self._bytes)]

    def clear(self) -> None:
        """Forget all."""
        self._bytes.clear()
