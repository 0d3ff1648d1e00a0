"""What `npu-smi` prints → records.

What comes in: the text of `npu-smi info`, `info -t usages` or `info -t proc-mem`, of any version.
What goes out: records, or an `UnreadableError` that names the line. Pure. It must not know how the
tool is run, nor what becomes of the records.

The tool has no machine-readable output. Columns are found by their headings and by the bars, never
by position: widths differ between versions, and names in them may be longer than their column.
`NA` and `-` are the tool's own words for "not answered", and become None. Anything else that is
not what the heading promises makes the whole text unreadable: a table that is misread in one
place cannot be trusted in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024.0 * 1024.0
"""The tool writes MB and counts MiB: a chip of 64 GiB has 65536 of them."""

_VERSION: Final = re.compile(r"npu-smi\s+\S+\s+Version:\s*(\S+)")
_LEVELS: Final = re.compile(r"(\S+)\s+(\S+?)\s*/\s*(\S+)(?:\s+(\S+?)\s*/\s*(\S+))?")
"""`AICore(%) Memory-Usage(MB) [HBM-Usage(MB)]`, as in `0  2387 / 13553  41697/ 65536`."""
_NUMBER: Final = re.compile(r"-?\d{1,12}(?:\.\d{1,6})?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,10}", re.ASCII)
_PROCESS: Final = re.compile(
    r"Process id\s*:\s*(\S+)\s+Process name\s*:.*?Process memory\(MB\)\s*:\s*(\S+)"
)
_NO_PROCESSES: Final = "No running processes found in NPU"
_NO_PROCESS_IN_DEVICE: Final = "No process in device"
_NO_NAME: Final = "Get pid name failed"
_NOT_SUPPORTED: Final = "does not support"
_NOT_ANSWERED: Final = frozenset({"NA", "N/A", "-"})

_HEALTH: Final[dict[str, bool | None]] = {
    "OK": True,
    "Warning": False,
    "Alarm": False,
    "Critical": False,
    "UNKNOWN": None,
    "NA": None,
}
"""Words of the column Health (Huawei, "npu-smi: querying basic information", table 1)."""


class UnreadableError(ValueError):
    """The text is not what the tool is known to print; the message says where."""


class NotSupportedError(Exception):
    """The tool says that the device cannot answer this query."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip of a card: two lines of the table. A card may have several."""

    npu: int
    chip: int
    name: str
    """As in `910B2`; on cards with two chips only `Ascend910`."""
    healthy: bool | None
    power: float | None
    """Watts; a card with two chips gives it with its first."""
    temperature: float | None
    utilization: float | None
    """Of the AI cores, 0 to 1."""
    used: float | None
    """Bytes of HBM; of DDR for chips without HBM."""
    total: float | None


@dataclass(frozen=True, slots=True)
class Process:
    """One process on one chip; `used` in bytes."""

    npu: int
    chip: int
    pid: int
    used: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """`npu-smi info`."""

    driver: str | None
    """Version of the driver."""
    chips: tuple[Chip, ...]
    """In the table's order, which is that of the chips' logic ids."""
    processes: tuple[Process, ...] | None
    """None where this version lists none."""


@dataclass(frozen=True, slots=True)
class Usages:
    """`npu-smi info -t usages` of one chip; shares, 0 to 1."""

    utilization: float | None
    bandwidth: float | None
    """Of the HBM; of the DDR for chips without HBM."""


def parse_info(text: str) -> Table:
    """The tables of devices and processes. Raises `UnreadableError`."""
    reader = _TableReader()
    for line in text.splitlines():
        # Whatever has no bars is a rule, or the driver talking.
        if line.strip().startswith("|"):
            reader.row([cell.strip() for cell in line.strip().strip("|").split("|")])
    return reader.table(text)


def parse_usages(text: str) -> dict[int, Usages]:
    """Usages by chip. Raises `UnreadableError`, `NotSupportedError`."""
    _refuse_unsupported(text)
    found: dict[int, Usages] = {}
    for block in _blocks(text):
        if "Aicore Usage Rate(%)" not in block:
            continue
        # A query for one chip does not say which one it is.
        chip = _count(block.get("Chip ID", "0"), "Chip ID")
        if chip in found:
            raise UnreadableError(f"chip {chip} is listed twice")
        has_hbm = (_number(block.get("HBM Capacity(MB)", "0"), "HBM Capacity(MB)") or 0) > 0
        memory = "HBM" if has_hbm else "DDR" if "DDR Capacity(MB)" in block else "Memory"
        found[chip] = Usages(
            _share(block.get("Aicore Usage Rate(%)", "NA"), "Aicore Usage Rate(%)"),
            _share(block.get(f"{memory} Bandwidth Usage Rate(%)", "NA"), "Bandwidth Usage Rate(%)"),
        )
    if not found:
        raise UnreadableError(f"no usages; it says {last_words(text)}")
    return found


def parse_processes(text: str, npu: int, chip: int) -> tuple[Process, ...]:
    """`npu-smi info -t proc-mem -i NPU -c CHIP`. Raises `UnreadableError`, `NotSupportedError`."""
    _refuse_unsupported(text)
    found: list[Process] = []
    none = False
    for line in (stripped for line in text.splitlines() if (stripped := line.strip())):
        process = _PROCESS.fullmatch(line)
        if process is not None:
            pid, used = process.groups()
            found.append(Process(npu, chip, _count(pid, "Process id"), _bytes(used)))
        elif line.startswith(_NO_PROCESS_IN_DEVICE):
            none = True
        elif line.startswith("Process id"):
            raise UnreadableError(f"not a process: {quoted(line)}")
    if not found and not none:
        raise UnreadableError(f"no processes; it says {last_words(text)}")
    return tuple(found)


def refuses(text: str) -> bool:
    """Whether the tool says that the device cannot answer the query."""
    return _NOT_SUPPORTED in text


def last_words(text: str) -> str:
    """The last line that says something, quoted: the tool puts its reason there."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t+-=|")]
    return quoted(lines[-1]) if lines else "nothing"


def quoted(text: str) -> str:
    """The text, short and printable, for a message of one line."""
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


class _TableReader:
    """Takes the rows of `npu-smi info` one by one. A chip takes two rows."""

    def __init__(self) -> None:
        self._driver: str | None = None
        self._chips: list[Chip] = []
        self._processes: list[Process] | None = None
        self._above: list[str] | None = None
        """The upper row of a chip whose lower one has not come yet."""
        self._in_devices = False
        self._memory_column = 0
        self._keys: set[tuple[int, int]] = set()

    def row(self, cells: Sequence[str]) -> None:
        first = cells[0].split()
        if len(cells) == 1:
            self._sentence(cells[0])
        elif first == ["NPU", "Name"]:
            self._in_devices = True
        elif first[:1] == ["Chip"] and cells[1] == "Bus-Id":
            return
        elif first == ["NPU", "Chip"]:
            self._in_devices = False
            self._processes = []
            if "Process memory(MB)" not in cells:
                raise UnreadableError("the table of processes has no column Process memory(MB)")
            self._memory_column = cells.index("Process memory(MB)")
        elif self._processes is not None:
            self._process(cells)
        elif self._in_devices:
            self._device(list(cells))
        else:
            raise UnreadableError(f"a row before any heading: {quoted(' | '.join(cells))}")

    def table(self, text: str) -> Table:
        if self._above is not None:
            raise UnreadableError("the table ends in the middle of a device")
        if not self._in_devices and self._processes is None:
            raise UnreadableError(f"no table of devices; it says {last_words(text)}")
        processes = None if self._processes is None else tuple(self._processes)
        for process in processes or ():
            if (process.npu, process.chip) not in self._keys:
                raise UnreadableError(
                    f"process {process.pid} is on NPU {process.npu} chip {process.chip}, "
                    "which is not in the table"
                )
        return Table(self._driver, tuple(self._chips), processes)

    def _sentence(self, text: str) -> None:
        version = _VERSION.fullmatch(text)
        if version is not None:
            self._driver = version[1]
        elif not text.startswith(_NO_PROCESSES):
            raise UnreadableError(f"neither a version nor a device: {quoted(text)}")

    def _device(self, cells: list[str]) -> None:
        if len(cells) != 3:
            raise UnreadableError(f"a device has three columns: {quoted(' | '.join(cells))}")
        if self._above is None:
            self._above = cells
            return
        (above_left, health, above_right), self._above = self._above, None
        left, _, right = cells
        npu, _, name = above_left.partition(" ")
        measured = above_right.split()
        levels = _LEVELS.fullmatch(right)
        if not name.strip() or not left or len(measured) < 2 or levels is None:
            raise UnreadableError(f"not a device: {quoted(f'{above_left} | {right}')}")
        if health not in _HEALTH:
            raise UnreadableError(f"Health of NPU {npu} is {quoted(health)}")
        cores, ddr_used, ddr_total, hbm_used, hbm_total = levels.groups()
        used, total = _memory((hbm_used, hbm_total), (ddr_used, ddr_total))
        key = (_count(npu, "NPU"), _count(left.split()[0], "Chip"))
        if key in self._keys:
            raise UnreadableError(f"NPU {key[0]} chip {key[1]} is listed twice")
        self._keys.add(key)
        self._chips.append(
            Chip(
                *key,
                name=name.strip(),
                healthy=_HEALTH[health],
                power=_number(measured[0], "Power(W)"),
                temperature=_number(measured[1], "Temp(C)", negative=True),
                utilization=_share(cores, "AICore(%)"),
                used=used,
                total=total,
            )
        )

    def _process(self, cells: Sequence[str]) -> None:
        place = cells[0].split()
        if len(place) != 2 or len(cells) <= self._memory_column:
            raise UnreadableError(f"not a process: {quoted(' | '.join(cells))}")
        assert self._processes is not None
        self._processes.append(
            Process(
                _count(place[0], "NPU"),
                _count(place[1], "Chip"),
                _count(cells[1], "Process id"),
                _bytes(cells[self._memory_column]),
            )
        )


def _memory(*kinds: tuple[str | None, str | None]) -> tuple[float | None, float | None]:
    """(used, total) of the first kind that the chip has: a total of 0 means that it has none."""
    for told_used, told_total in kinds:
        total = _bytes(told_total or "0")
        if total is None or total > 0:
            used = _bytes(told_used or "NA")
            if used is not None and total is not None and used > total:
                raise UnreadableError(f"{told_used} MB of {told_total} MB are in use")
            return used, total
    return None, None


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """`key : value` lines, by chip: blank lines lie between chips, or keys come again."""
    block: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        key, colon, value = line.strip().partition(":")
        key = key.rstrip()
        if block and (not colon or key in block):
            yield block
            block = {}
        if colon:
            block[key] = value.strip()


def _refuse_unsupported(text: str) -> None:
    if refuses(text):
        raise NotSupportedError(last_words(text))


def _number(text: str, column: str, *, negative: bool = False) -> float | None:
    if text in _NOT_ANSWERED:
        return None
    if _NUMBER.fullmatch(text) is None or (text.startswith("-") and not negative):
        raise UnreadableError(f"{column} is {quoted(text)}")
    return float(text)


def _share(text: str, column: str) -> float | None:
    percent = _number(text, column)
    if percent is not None and percent > 100:
        raise UnreadableError(f"{column} is {quoted(text)}")
    return None if percent is None else percent / 100


def _bytes(text: str) -> float | None:
    mebibytes = _number(text, "memory (MB)")
    return None if mebibytes is None else mebibytes * MIB


def _count(text: str, column: str) -> int:
    if _COUNT.fullmatch(text) is None:
        raise UnreadableError(f"{column} is {quoted(text)}")
    return int(text)
