"""Processors, memory and control-group limits, from recorded trees and broken ones."""

import asyncio
import math
import shutil
from pathlib import Path

import pytest

from exporter import gauges
from exporter.accelerators import cgroups, host
from exporter.accelerators.cgroups import CgroupError, Limits
from tests.exporter.accelerators import fuzz

CGROUPS = Path(__file__).parent / "recordings" / "cgroups"
GIB = 2.0**30

STAT = "cpu  100 20 30 700 50 5 5 10 60 0\ncpu0 50 10 15 350 25 3 2 5 30 0\ncpu1 50 10 15 350 25 2 3 5 30 0\nintr 1\n"  # noqa: E501
LATER = "cpu  190 20 30 710 50 5 5 10 60 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n"
MEMINFO = (
    "MemTotal:       65536 kB\nMemFree:  16 kB\nMemAvailable:    1024 kB\nHugePages_Total:  0\n"
)


@pytest.mark.parametrize(
    ("tree", "limits"),
    [
        ("v1", Limits(6.0, 16 * GIB, 8 * GIB, 4.125)),
        ("v1_no_limit", Limits(None, None, 9 * GIB, None)),
        ("v2", Limits(2.5, 8 * GIB, 2 * GIB, 1.5)),
        ("v2_max", Limits(None, None, 1 * GIB, None)),
        ("both", Limits(1.5, None, None, None)),
        ("none", Limits()),
    ],
)
def test_limits_of_a_recorded_tree(tree, limits):
    assert cgroups.read(CGROUPS / tree) == limits


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ("v2_invalid_quota", "cpu.max: 'asdf' is not a number"),
        ("v2_too_many_fields", "cpu.max: '250000 100000 100' is not QUOTA PERIOD"),
        ("v2_zero_period", "cpu.max: 250000 µs in 0 µs is no share of time"),
        ("invalid_cgroup", "/proc/self/cgroup: 'invalid-line:' is not ID:CONTROLLERS:PATH"),
        ("invalid_mountinfo", "/proc/self/mountinfo: "),
    ],
)
def test_a_tree_that_is_not_the_kernels_is_refused_and_named(tree, reason):
    with pytest.raises(CgroupError) as refused:
        cgroups.read(CGROUPS / tree)
    assert reason in str(refused.value)


def test_the_least_of_the_groups_above_counts(tmp_path):
    tree = shutil.copytree(CGROUPS / "v2", tmp_path / "tree")
    (tree / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    (tree / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert cgroups.read(tree).cpus == 1.5
    assert cgroups.read(tree).memory_bytes == 8 * GIB


def test_a_container_that_is_told_the_machines_path_reads_its_own_mount(tmp_path):
    tree = shutil.copytree(CGROUPS / "v2_max", tmp_path / "tree")
    (tree / "proc/self/cgroup").write_text("0::/kubepods/pod7/c1\n")
    (tree / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    assert cgroups.read(tree).cpus == 0.5
    (tree / "proc/self/cgroup").write_text("0::/../../pod7\n")
    assert cgroups.read(tree).cpus == 0.5


def put(root, **files):
    for name, text in files.items():
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def levels(readings):
    return {reading.name: reading.value for reading in readings.readings}


def test_processors_are_busy_since_the_reading_before(tmp_path):
    put(tmp_path, stat=STAT, meminfo=MEMINFO)
    source = host.HostSource(tmp_path)
    first = levels(source.read())
    assert first[gauges.HOST_CPUS.name] == 2.0
    assert gauges.HOST_CPU_BUSY.name not in first
    put(tmp_path, stat=LATER)
    assert levels(source.read())[gauges.HOST_CPU_BUSY.name] == 0.9


def test_memory_and_limits_are_bytes_and_only_what_there_is(tmp_path):
    put(tmp_path, stat=STAT, meminfo=MEMINFO)
    found = levels(host.HostSource(tmp_path).read())
    assert found[gauges.HOST_MEMORY.name] == 65536 * 1024
    assert found[gauges.HOST_MEMORY_AVAILABLE.name] == 1024 * 1024
    assert gauges.CPU_LIMIT.name not in found
    assert gauges.MEMORY_LIMIT.name not in found
    tree = shutil.copytree(CGROUPS / "v1", tmp_path / "v1")
    put(tree, stat=STAT, meminfo=MEMINFO)
    limited = levels(host.HostSource(tree).read())
    assert limited[gauges.CPU_LIMIT.name] == 6.0
    assert limited[gauges.CPU_THROTTLED.name] == 4.125
    assert limited[gauges.MEMORY_LIMIT.name] == 16 * GIB
    assert limited[gauges.MEMORY_IN_GROUP.name] == 8 * GIB


def test_what_cannot_be_read_is_absent_counted_and_named_and_the_rest_goes_on(tmp_path):
    put(tmp_path, meminfo=MEMINFO, stat="nothing\n")
    source = host.HostSource(tmp_path)
    assert gauges.HOST_MEMORY.name in levels(source.read())
    assert gauges.HOST_CPUS.name not in levels(source.read())
    assert not source.health.up
    assert source.health.reason == "/proc/stat has no line of all processors"
    assert source.health.dropped_by == {"malformed": 2}
    put(tmp_path, stat=STAT)
    assert gauges.HOST_CPUS.name in levels(source.read())
    assert source.health.up


def test_the_identity_names_limits_and_survives_a_tree_that_is_not_the_kernels(tmp_path):
    tree = shutil.copytree(CGROUPS / "v2", tmp_path / "tree")
    put(tree, meminfo=MEMINFO)
    told = host.identity(tree)
    assert told["memory_bytes"] == 65536 * 1024
    assert (told["cpu_limit"], told["memory_limit_bytes"]) == (2.5, 8 * GIB)
    unreadable = host.identity(CGROUPS / "invalid_cgroup")
    assert (unreadable["cpu_limit"], unreadable["memory_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("release", "begins"), [("5.15.153.1-microsoft-standard-WSL2", "WSL2 "), ("6.1.0-18", "Linux ")]
)
def test_the_operating_system_is_in_the_pages_words(release, begins):
    assert host.os_name(release).startswith(begins)


def test_it_reads_until_it_is_cancelled():
    seen = []

    async def watch():
        task = asyncio.create_task(host.HostSource().run(seen.append))
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(watch())
    assert levels(seen[0])[gauges.HOST_CPUS.name] >= 1.0


@pytest.mark.parametrize(
    ("parse", "text"), [(host.parse_stat, STAT), (host.parse_meminfo, MEMINFO)]
)
def test_no_broken_file_of_proc_breaks_its_parser(parse, text):
    refused = 0
    for broken in fuzz.broken([text], seed=1):
        try:
            told = parse(broken)
        except host.HostError:
            refused += 1
        else:
            values = told.values() if isinstance(told, dict) else told
            assert all(math.isfinite(value) and value >= 0 for value in values)
    assert 300 < refused < fuzz.ROUNDS


def test_no_broken_tree_of_control_groups_breaks_its_reader(monkeypatch):
    """Each round breaks one file of a recorded tree; the tree is held in memory."""
    trees = [t for t in sorted(CGROUPS.iterdir()) if (t / "sys").is_dir()]
    files = {p: p.read_text() for t in trees for p in t.rglob("*") if p.is_file()}
    folders = {parent for path in files for parent in path.parents}
    broken: dict[Path, str] = {}
    monkeypatch.setattr(cgroups, "_text", lambda path: broken.get(path, files.get(path)))
    monkeypatch.setattr(Path, "is_dir", lambda path: path in folders)
    paths = sorted(files)
    texts = fuzz.broken([files[path] for path in paths], seed=2)
    refused = 0
    for round_, text in enumerate(texts):
        path = paths[round_ % len(paths)]
        broken.clear()
        broken[path] = text
        tree = next(tree for tree in trees if path.is_relative_to(tree))
        try:
            limits = cgroups.read(tree)
        except CgroupError:
            refused += 1
        else:
            assert limits.cpus is None or limits.cpus > 0
            told = (limits.memory_bytes, limits.memory_used_bytes, limits.throttled_seconds)
            assert all(value is None or value >= 0 for value in told)
    assert 300 < refused < fuzz.ROUNDS
