from __future__ import annotations

from pathlib import Path

import pytest

from exporter.accelerators.groups import Grouping, Selector
from exporter.accelerators.procfs import INITIAL_PID_NAMESPACE, Procfs
from exporter.gauges import MemoryGroup
from tests import nvml


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """Paths of the stand-in and of its variant of an old driver."""
    folder = tmp_path_factory.mktemp("nvml")
    return {
        "current": nvml.build(folder / "current"),
        "old": nvml.build(folder / "old", old_driver=True),
    }


@pytest.fixture
def dial(tmp_path, monkeypatch):
    dial = nvml.Dial(tmp_path / "nvml")
    monkeypatch.setenv("FAKE_NVML_STATE", str(dial.path))
    return dial


class Table:
    """A /proc to be filled with processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.namespace(INITIAL_PID_NAMESPACE)

    def namespace(self, name: str) -> None:
        folder = self.root / "self" / "ns"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pid").unlink(missing_ok=True)
        (folder / "pid").symlink_to(name)

    def add(
        self,
        pid: int,
        *arguments: str,
        parent: int = 1,
        name: str = "python",
        cgroup: str = "/user.slice",
        holds: tuple[str, ...] = (),
        listens: dict[int, int] | None = None,
    ) -> None:
        """A process; `listens` maps ports to the inodes of its sockets."""
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "net").mkdir()
        rest = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {rest} 4711 0 0\n")
        (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        sockets = [f"socket:[{inode}]" for inode in (listens or {}).values()]
        for number, target in enumerate((*holds, *sockets)):
            (folder / "fd" / str(number)).symlink_to(target)
        lines = [
            f"  0: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
            f"  1000        0 {inode} 1 0 100 0 0 10 0"
            for port, inode in (listens or {}).items()
        ]
        header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
        (folder / "net" / "tcp").write_text("\n".join([header, *lines]) + "\n")

    @property
    def procfs(self) -> Procfs:
        return Procfs(self.root)

    def grouping(self, *, clock=lambda: 0.0, **selectors: list[Selector]) -> Grouping:
        """With selectors by group, or those of the two programs' commands."""
        given = selectors or {
            "opentalking": [Selector("command", "opentalking")],
            "omnirt": [Selector("command", "omnirt")],
        }
        return Grouping(
            {MemoryGroup(name): chosen for name, chosen in given.items()}, self.procfs, clock=clock
        )


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "proc")
