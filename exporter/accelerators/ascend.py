"""Ascend NPUs through `npu-smi` → memory, state and identity of each chip.

What comes in: what the tool prints (`npu_smi_output` reads it). What goes out: the records of
`readings`. It must not know turns nor which process is whose.

One `npu-smi info` tells memory, processes, health, power, temperature and AI-core use of all
chips at once, and is the only query of most readings. It takes from tenths of a second to
seconds, so it is asked for at most half of the time. What it lacks is asked for apart: use of the
memory's bandwidth (`-t usages`) of one card at each reading, in turn; processes
(`-t proc-mem`) only of drivers before 22, whose table has none.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from exporter.accelerators import cann, npu_smi_output
from exporter.accelerators.npu_smi_output import (
    Chip,
    NotSupportedError,
    Process,
    Table,
    UnreadableError,
    Usages,
)
from exporter.accelerators.readings import (
    Collected,
    Device,
    DeviceMemory,
    DeviceState,
    LibraryError,
    NoDeviceError,
    ProcessMemory,
)

TIMEOUT_S: Final = 10.0
"""Eight cards were seen to take 5.4 s (nvitop, pull request 227); a hung driver never answers."""
USAGES_KEPT_S: Final = 60.0
"""A card's use of bandwidth is served until the card's next turn, and no longer than this."""

_BESIDE_PATH: Final = ("/usr/local/bin", "/usr/local/sbin")
"""Where the driver's installer puts the tool; a service's PATH may lack both."""


class NpuSmi:
    """Ascend's command-line tool, as the library of one machine's NPUs."""

    name: Final = "ascend"

    def __init__(self, command: str = "npu-smi", *, cann_root: Path = cann.ROOT) -> None:
        self.unreadable: Counter[str] = Counter()
        self._command = command
        self._cann_root = cann_root
        self._program: str | None = None
        self._table: Table | None = None
        self._devices: dict[tuple[int, int], str] = {}
        """(NPU id, chip id) → label."""
        self._usages: dict[tuple[int, int], tuple[float, Usages]] = {}
        self._turn = 0
        self._without: set[str] = set()
        """Queries that these devices cannot answer."""
        self._took = 0.0

    @property
    def least_interval(self) -> float:
        """Twice as long as the last reading took: the tool rests half of the time."""
        return 2 * self._took

    def open(self) -> tuple[Device, ...]:
        """Find the tool and list the chips."""
        path = shutil.which(self._command) or shutil.which(
            self._command, path=":".join(_BESIDE_PATH)
        )
        if path is None:
            raise NoDeviceError(f"{self._command}, Ascend's tool, is not installed")
        self._program = path
        table = self._read()
        if not table.chips:
            raise NoDeviceError("npu-smi lists no NPU")
        self._devices = {(c.npu, c.chip): str(index) for index, c in enumerate(table.chips)}
        self._table, self._usages, self._without = table, {}, set()
        driver, runtime = cann.driver(table.driver), cann.runtime(self._cann_root)
        return tuple(
            Device(
                device=self._devices[chip.npu, chip.chip],
                vendor=self.name,
                name=cann.name(chip.name),
                memory_bytes=chip.total,
                driver=driver,
                runtime=runtime,
            )
            for chip in table.chips
        )

    def memory(self) -> Collected:
        """Ask anew. A chip without an answer, or that is not listed any more, is lost."""
        began = time.monotonic()
        table = self._table = self._read()
        chips = {(chip.npu, chip.chip): chip for chip in table.chips}
        if chips.keys() - self._devices.keys():
            raise LibraryError("npu-smi lists NPUs that were not there before")
        found: list[DeviceMemory] = []
        lost: dict[str, str] = {}
        for key, device in self._devices.items():
            chip = chips.get(key)
            if chip is None:
                lost[device] = "npu-smi does not list it any more"
            elif chip.used is None or chip.total is None:
                lost[device] = "npu-smi does not tell its memory"
            else:
                processes = self._processes(table, chip)
                found.append(DeviceMemory(device, chip.used, chip.total, processes=processes))
        self._took = time.monotonic() - began
        return Collected(tuple(found), lost)

    def states(self) -> tuple[DeviceState, ...]:
        """State as of the last reading of memory: the same query told it."""
        table = self._table
        if table is None:
            raise LibraryError("npu-smi was not asked yet")
        began = time.monotonic()
        self._ask_one_card()
        self._took += time.monotonic() - began
        return tuple(self._state(chip) for chip in table.chips)

    def close(self) -> None:
        """There is no session: each query is a process of its own."""
        self._table = None

    def _state(self, chip: Chip) -> DeviceState:
        asked_at, usages = self._usages.get((chip.npu, chip.chip), (0.0, None))
        is_fresh = time.monotonic() - asked_at <= USAGES_KEPT_S
        return DeviceState(
            self._devices[chip.npu, chip.chip],
            healthy=chip.healthy,
            utilization=chip.utilization,
            memory_utilization=usages.bandwidth if usages is not None and is_fresh else None,
            power=chip.power,
            temperature=chip.temperature,
        )

    def _ask_one_card(self) -> None:
        if "usages" in self._without:
            return
        cards = sorted({npu for npu, _ in self._devices})
        npu = cards[self._turn % len(cards)]
        self._turn += 1
        for key in [key for key in self._usages if key[0] == npu]:
            del self._usages[key]
        try:
            usages = npu_smi_output.parse_usages(self._run("info", "-t", "usages", "-i", str(npu)))
        except NotSupportedError:
            self._without.add("usages")
        except (UnreadableError, LibraryError):
            self.unreadable["usages"] += 1
        else:
            at = time.monotonic()
            self._usages.update({(npu, chip): (at, told) for chip, told in usages.items()})

    def _processes(self, table: Table, chip: Chip) -> tuple[ProcessMemory, ...] | None:
        place = (chip.npu, chip.chip)
        listed: Sequence[Process] | None = table.processes
        if listed is None:
            listed = self._ask_processes(*place)
        if listed is None:
            return None
        return tuple(ProcessMemory(p.pid, p.used) for p in listed if (p.npu, p.chip) == place)

    def _ask_processes(self, npu: int, chip: int) -> tuple[Process, ...] | None:
        if "proc-mem" in self._without:
            return None
        try:
            text = self._run("info", "-t", "proc-mem", "-i", str(npu), "-c", str(chip))
            return npu_smi_output.parse_processes(text, npu, chip)
        except NotSupportedError:
            self._without.add("proc-mem")
        except (UnreadableError, LibraryError):
            self.unreadable["proc-mem"] += 1
        return None

    def _read(self) -> Table:
        text = self._run("info")
        try:
            return npu_smi_output.parse_info(text)
        except UnreadableError as error:
            raise LibraryError(f"npu-smi info: {error}") from error

    def _run(self, *arguments: str) -> str:
        assert self._program is not None, "open() comes first"
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LibraryError(
                f"npu-smi {' '.join(arguments)} did not answer within {TIMEOUT_S:g} s"
            ) from None
        except OSError as error:
            raise LibraryError(f"{self._program} cannot be run: {error.strerror}") from error
        text = done.stdout.decode(errors="replace")
        # It exits with an error after "does not support", which is an answer.
        if done.returncode != 0 and not npu_smi_output.refuses(text):
            said = npu_smi_output.last_words(text)
            raise LibraryError(
                f"npu-smi {' '.join(arguments)} failed with status {done.returncode}: {said}"
            )
        return text
