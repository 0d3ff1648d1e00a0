"""An accelerator's source with the metrics that it fills, and the files they must equal."""

import os

from exporter.accelerators.source import AcceleratorSource
from exporter.arbiter import EventArbiter
from exporter.gauges import MemoryGroup
from exporter.live import LiveSessions
from exporter.metrics import Metrics
from exporter.processes import Processes
from exporter.turns import TurnAssembler

SHOWN = (
    "opentalking_vram",
    "opentalking_accelerator",
    "talkscope_source_up",
    "talkscope_source_failures_total",
    "talkscope_source_dropped_total",
)


class Owners:
    """Says whose a process is; the grouping proper is tested in `test_groups`."""

    malformed = 0

    def __init__(self, **groups):
        self._groups = {pid: MemoryGroup(group) for group, pids in groups.items() for pid in pids}

    def group_of(self, pid):
        return self._groups.get(pid, MemoryGroup.OTHER)


class Deployment:
    """A source that is read by hand."""

    def __init__(self, library, owners=None, **options):
        self.source = AcceleratorSource(library, owners or Owners(), **options)
        assembler = TurnAssembler(expect_log=False)
        self.metrics = Metrics(
            [self.source.health], assembler, LiveSessions(), EventArbiter(), Processes()
        )

    @property
    def health(self):
        return self.source.health

    def read(self):
        # Everything in one round, however soon after the last one it is.
        self.source._states_at = None
        for readings in self.source.read():
            self.metrics.readings(readings)
        return self.exposition()

    def exposition(self):
        """Why the source is down, and its families as `/metrics` shows them."""
        reason = f"# {self.health.reason}\n" if self.health.reason else ""
        lines = self.metrics.render("text/plain")[0].decode().splitlines()
        return reason + "".join(
            f"{line}\n"
            for line in lines
            if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(SHOWN)
        )


def check(exposition, golden):
    """UPDATE_GOLDEN=1 writes the file anew; read the difference before you commit it."""
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(exposition)
    assert exposition == golden.read_text()
