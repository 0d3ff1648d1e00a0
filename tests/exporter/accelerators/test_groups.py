import random

import pytest

from exporter.accelerators.groups import (
    KEEP_S,
    LOOK_AGAIN_S,
    Selector,
    SelectorError,
    parse_selector,
    usual_selectors,
)
from exporter.accelerators.nvidia import driver_words
from exporter.accelerators.procfs import (
    ProcError,
    parse_cgroup,
    parse_cmdline,
    parse_listeners,
    parse_stat,
)
from exporter.gauges import MemoryGroup

FUZZED = 10_000


@pytest.mark.parametrize(
    ("arguments", "group"),
    [
        (("/opt/ot/bin/opentalking-unified", "--port=8000"), MemoryGroup.OPENTALKING),
        (("python", "-m", "exporter.agent", "opentalking-unified"), MemoryGroup.OPENTALKING),
        (("python", "run.py", "opentalking.runtime.main"), MemoryGroup.OPENTALKING),
        (("/venvs/opentalking/bin/python", "/srv/omnirt/omnirt_runtime.py"), MemoryGroup.OMNIRT),
        (("python", "-m", "omnirt.cli.main", "serve"), MemoryGroup.OMNIRT),
        (("python", "train.py", "--out", "x", "--init", "/models/omnirt"), MemoryGroup.OTHER),
        (("python", "-m", "exporter", "--target", "http://opentalking:8000"), MemoryGroup.OTHER),
        ((), MemoryGroup.OTHER),
    ],
)
def test_a_command_tells_the_program_and_not_its_data(table, arguments, group):
    table.add(77, *arguments)
    assert table.grouping().group_of(77) is group


def test_a_worker_is_its_servers(table):
    table.add(10, "omnirt", "serve")
    table.add(11, "python", "-c", "from multiprocessing.spawn import spawn_main", parent=10)
    table.add(12, "python", "-c", "pass", parent=11)
    assert table.grouping().group_of(12) is MemoryGroup.OMNIRT


def test_the_nearest_of_its_parents_counts(table):
    table.add(10, "bash", "opentalking-start.sh")
    table.add(11, "omnirt", "serve", parent=10)
    grouping = table.grouping()
    assert grouping.group_of(10) is MemoryGroup.OPENTALKING
    assert grouping.group_of(11) is MemoryGroup.OMNIRT


def test_a_port_a_cgroup_and_a_pid_file_tell_it_too(table, tmp_path):
    (tmp_path / "omnirt.pid").write_text("31\n")
    table.add(31, "python", "a.py")
    table.add(32, "python", "b.py", cgroup="/system.slice/docker-4f1bc1.scope")
    table.add(33, "python", "c.py", listens={8000: 991})
    grouping = table.grouping(
        opentalking=[Selector("port", "8000")],
        omnirt=[Selector("pidfile", str(tmp_path / "omnirt.pid")), Selector("cgroup", "4f1bc1")],
    )
    found = [grouping.group_of(pid) for pid in (31, 32, 33)]
    assert found == [MemoryGroup.OMNIRT, MemoryGroup.OMNIRT, MemoryGroup.OPENTALKING]


def test_when_two_groups_claim_a_process_the_port_counts_before_the_command(table):
    table.add(40, "omnirt", "serve", listens={8000: 992})
    grouping = table.grouping(
        omnirt=[Selector("command", "omnirt")], opentalking=[Selector("port", "8000")]
    )
    assert grouping.group_of(40) is MemoryGroup.OPENTALKING


@pytest.mark.parametrize("pid", [0, -1, 999_999])
def test_a_process_that_is_not_in_the_table_is_somebody_elses(table, pid):
    assert table.grouping().group_of(pid) is MemoryGroup.OTHER


def test_in_a_container_only_a_process_that_holds_a_device_is_told(table):
    """The driver may mean the machine's process 50, which is another one."""
    table.namespace("pid:[4026532177]")
    table.add(50, "omnirt", "serve")
    table.add(51, "omnirt", "serve", holds=("/dev/null", "/dev/nvidia0"))
    grouping = table.grouping()
    assert [grouping.group_of(pid) for pid in (50, 51)] == [MemoryGroup.OTHER, MemoryGroup.OMNIRT]


def test_a_parent_that_holds_no_device_still_tells_its_worker(table):
    table.namespace("pid:[4026532177]")
    table.add(52, "omnirt", "serve")
    table.add(53, "python", parent=52, holds=("/dev/nvidia0",))
    grouping = table.grouping()
    assert [grouping.group_of(pid) for pid in (52, 53)] == [MemoryGroup.OTHER, MemoryGroup.OMNIRT]


def test_processes_that_share_their_parents_look_them_up_once(table):
    table.add(10, "bash")
    for pid in range(20, 30):
        table.add(pid, "python", parent=10)
    grouping = table.grouping()
    looked_up = []
    process = grouping._procfs.process
    grouping._procfs.process = lambda pid: looked_up.append(pid) or process(pid)
    for pid in range(20, 30):
        grouping.group_of(pid)
    assert looked_up.count(10) == 1


def test_circles_of_parents_end(table):
    table.add(60, "python", parent=61)
    table.add(61, "python", parent=60)
    assert table.grouping().group_of(60) is MemoryGroup.OTHER


def test_a_verdict_holds_for_a_while_and_other_for_a_shorter_one(table):
    now = [0.0]
    grouping = table.grouping(clock=lambda: now[0])
    assert grouping.group_of(70) is MemoryGroup.OTHER
    table.add(70, "omnirt")
    assert grouping.group_of(70) is MemoryGroup.OTHER
    now[0] += LOOK_AGAIN_S
    assert grouping.group_of(70) is MemoryGroup.OMNIRT
    (table.root / "70" / "cmdline").write_bytes(b"python\0")
    now[0] += KEEP_S - 1
    assert grouping.group_of(70) is MemoryGroup.OMNIRT
    now[0] += 1
    assert grouping.group_of(70) is MemoryGroup.OTHER


def test_a_broken_table_is_counted_and_stops_nothing(table):
    table.add(80, "omnirt")
    (table.root / "80" / "stat").write_text("80 (omnirt S")
    grouping = table.grouping()
    assert (grouping.group_of(80), grouping.malformed) == (MemoryGroup.OTHER, 1)


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields(table):
    table.add(90, "omnirt", "serve")
    table.add(91, "python", parent=90, name="a) S 1 (b")
    assert table.grouping().group_of(91) is MemoryGroup.OMNIRT


@pytest.mark.parametrize("text", ["", "8000", "port:", "port:0", "port:65536", "port:x", "name:a"])
def test_a_selector_that_nobody_can_apply_is_refused(text):
    with pytest.raises(SelectorError, match=r"KIND:VALUE|not a port"):
        parse_selector(text)


def test_the_usual_selectors_know_the_ports_of_this_machine_alone():
    urls = ["http://127.0.0.1:8000", "http://gpu-7:9000", "http://localhost", "http://[::1]:81"]
    found = [(s.kind, s.value) for s in usual_selectors("omnirt", urls)]
    assert found == [("port", "8000"), ("port", "80"), ("port", "81"), ("command", "omnirt")]


def fuzzed(seed, valid):
    """Valid texts with bytes changed, cut, doubled or made up."""
    rng = random.Random(seed)
    for _ in range(FUZZED):
        text = bytearray(rng.choice(valid))
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(text) + 1)
            what = rng.randrange(4)
            if what == 0:
                text[at:at] = rng.randbytes(rng.randrange(1, 5))
            elif what == 1:
                del text[at : at + rng.randrange(1, 9)]
            elif what == 2:
                text[at:at] = text[at : at + rng.randrange(40)]
            else:
                text[at : at + 1] = rng.choice([b"-", b":", b"\0", b")", b" ", b"9" * 40, b"\xff"])
        yield bytes(text)


TCP = (
    b"  sl  local_address rem_address   st\n"
    b"   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n"
    b"   1: 0100007F:1F41 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 4243 1\n"
)


@pytest.mark.parametrize(
    ("parse", "valid"),
    [
        (parse_stat, [b"7 (py thon) S 1 7 7 0 -1 4194560 1 0 0 0 1 0 0 0 20 0 1 0 4711 0 0"]),
        (parse_cmdline, [b"python\0-m\0omnirt\0", b""]),
        (parse_cgroup, [b"0::/user.slice\n", b"12:cpu,cpuacct:/docker/4f\n1:name=systemd:/x\n"]),
        (lambda text: list(parse_listeners(text)), [TCP]),
        (lambda text: parse_selector(text.decode(errors="replace")), [b"port:8000", b"cgroup:a"]),
    ],
    ids=["stat", "cmdline", "cgroup", "listeners", "selector"],
)
def test_fuzzed_texts_are_read_or_refused(parse, valid):
    reasons = []
    for text in fuzzed(4, valid):
        try:
            parse(text)
        except (ProcError, SelectorError) as error:
            reasons.append(str(error))
    assert all(reasons)
    assert len(reasons) < FUZZED


def test_a_fuzzed_drivers_version_is_printable_or_none():
    for text in fuzzed(6, [b"570.133.07", b"581.57"]):
        words = driver_words(text.decode(errors="replace"))
        assert words is None or (words.startswith("driver ") and words.isprintable())


def test_every_fuzzed_process_gets_a_group_and_the_broken_ones_are_counted(table):
    table.add(5, "omnirt", "serve")
    (table.root / "5" / "cgroup").unlink()
    stat = table.root / "5" / "stat"
    broken, ticks = 0, iter(range(0, FUZZED * 100, 100))
    grouping = table.grouping(clock=lambda: float(next(ticks)))
    for text in fuzzed(5, [stat.read_bytes()]):
        stat.write_bytes(text)
        try:
            parse_stat(text)
        except ProcError:
            broken += 1
        assert grouping.group_of(5) in MemoryGroup
    assert 0 < grouping.malformed == broken
