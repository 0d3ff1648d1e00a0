"""What is read from real `npu-smi` outputs of several versions, and what is refused."""

from pathlib import Path

import pytest

from exporter.accelerators.npu_smi_output import (
    MIB,
    Chip,
    NotSupportedError,
    Process,
    UnreadableError,
    Usages,
    parse_info,
    parse_processes,
    parse_usages,
)
from tests.exporter.accelerators import fuzz

NPU_SMI = Path(__file__).parent / "recordings" / "npu_smi"
INFOS = sorted(NPU_SMI.glob("*/info.txt"))


def recorded(name, query="info"):
    return (NPU_SMI / name / f"{query}.txt").read_text()


def test_a_chip_with_hbm_is_two_lines_of_the_table():
    table = parse_info(recorded("910B2_25.2.0"))
    assert table.driver == "25.2.0"
    assert table.processes is None
    assert table.chips[0] == Chip(
        npu=0,
        chip=0,
        name="910B2",
        healthy=True,
        power=98.1,
        temperature=32.0,
        utilization=0.0,
        used=3382 * MIB,
        total=65536 * MIB,
    )


@pytest.mark.parametrize(
    ("name", "used", "total"),
    [
        ("910ProB_24.1.0", 18, 32768),
        ("910A_21.0.3.2", 0, 32768),
        ("910B4_24.1.1", 26838, 32768),
        ("310P3_25.2.0", 1529, 44280),
        ("310_21.0.3.1", 2621, 8192),
    ],
)
def test_memory_is_hbm_where_there_is_some_and_else_ddr(name, used, total):
    chip = parse_info(recorded(name)).chips[0]
    assert (chip.used, chip.total) == (used * MIB, total * MIB)


@pytest.mark.parametrize("name", ["910_93_24.1.rc3.7", "910_93_26.0.rc2"])
def test_two_chips_of_one_card_are_two_and_only_the_first_tells_the_cards_power(name):
    chips = parse_info(recorded(name)).chips
    assert [(c.npu, c.chip) for c in chips] == [(0, 0), (0, 1)]
    assert chips[0].power is not None
    assert chips[1].power is None


def test_cards_keep_the_numbers_that_the_tool_gives_them():
    chips = parse_info(recorded("310_21.0.3.1")).chips
    assert [(c.npu, c.chip) for c in chips] == [(n, c) for n in (1, 3, 4, 6) for c in range(4)]


def test_processes_are_those_of_their_chip():
    processes = parse_info(recorded("910_23.0.rc3_processes")).processes
    assert len(processes) == 8
    assert processes[0] == Process(0, 0, 139667, 30780 * MIB)


def test_a_column_more_in_the_table_of_processes_moves_nothing():
    assert parse_info(recorded("910_93_26.0.rc2")).processes == (Process(0, 0, 632268, 197 * MIB),)


def test_no_process_is_not_the_same_as_no_table_of_processes():
    assert parse_info(recorded("910_23.0.5_warning")).processes == ()
    assert parse_info(recorded("310P3_25.2.0")).processes is None


def test_an_npu_with_a_warning_is_not_healthy():
    chips = parse_info(recorded("910_23.0.5_warning")).chips
    assert [c.healthy for c in chips] == [False, True]


def test_a_version_that_was_not_recorded_is_unknown():
    assert parse_info(recorded("910B3_no_version")).driver is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("failed_-8005", "no table of devices; it says 'dcmi module initialize failed."),
        ("failed_-8020", "because the device is used. ret is -8020'"),
        ("constructed_cut_short", "the table ends in the middle of a device"),
        ("constructed_other_unit", "memory (MB) is '64G'"),
    ],
)
def test_what_is_no_table_says_why(name, reason):
    with pytest.raises(UnreadableError) as refused:
        parse_info(recorded(name))
    assert reason in str(refused.value)


def test_a_number_that_is_not_answered_is_none_and_not_zero():
    lacking = parse_info(recorded("constructed_no_memory")).chips[1]
    assert (lacking.used, lacking.total) == (None, None)
    assert (lacking.power, lacking.temperature) == (None, None)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("| OK    ", "| Fine  ", "Health of NPU 0 is 'Fine'"),
        ("3382 / 65536", "70000/ 65536", "70000 MB of 65536 MB are in use"),
        ("| 1     910B2", "| 0     910B2", "NPU 0 chip 0 is listed twice"),
        (
            "| 0                         | 0000:C1:00.0  | 0 ",
            "| 0  | 0000:C1:00.0  | 130 ",
            "AICore",
        ),
        ("| 0     910B2               |", "| zero  910B2               |", "NPU is 'zero'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(old, new, reason):
    text = recorded("910B2_25.2.0")
    assert old in text
    with pytest.raises(UnreadableError, match=reason):
        parse_info(text.replace(old, new, 1))


def test_a_process_of_an_npu_that_is_not_there_is_refused():
    text = recorded("910_93_26.0.rc2").replace("| 0       0      ", "| 5       0      ")
    with pytest.raises(UnreadableError, match="process 632268 is on NPU 5 chip 0"):
        parse_info(text)


def test_usages_name_their_chip_before_or_after_the_values():
    query = "info_-t_usages_-i_0"
    assert parse_usages(recorded("910A_23.0.5_queries", query)) == {0: Usages(0.0, 0.0)}
    assert parse_usages(recorded("310B_25.2.0_queries", query)) == {0: Usages(0.0, 0.0)}


def test_bandwidth_is_of_the_memory_that_the_chip_has():
    text = recorded("310B_25.2.0_queries", "info_-t_usages_-i_0")
    ddr = text.replace("Memory Bandwidth Usage Rate(%) : 0", "Memory Bandwidth Usage Rate(%) : 12")
    assert parse_usages(ddr) == {0: Usages(0.0, 0.12)}
    text = recorded("constructed_all_queries", "info_-t_usages_-i_0")
    assert parse_usages(text)[0].bandwidth == 0.37


def test_processes_of_one_chip():
    text = recorded("910B3_25.5.1_queries", "info_-t_proc-mem_-i_0_-c_0")
    assert parse_processes(text, 0, 0) == (Process(0, 0, 207795, 55436 * MIB),)
    assert parse_processes("No process in device.\n", 0, 0) == ()


def test_a_process_without_a_name_is_one_all_the_same():
    text = "Get pid name failed.\nProcess id:123 Process name: Process memory(MB):456\n"
    assert parse_processes(text, 2, 1) == (Process(2, 1, 123, 456 * MIB),)


def test_a_query_that_the_device_does_not_know_is_not_a_broken_answer():
    text = recorded("310B_25.2.0_queries", "info_-t_proc-mem_-i_0")
    with pytest.raises(NotSupportedError):
        parse_processes(text, 0, 0)
    with pytest.raises(NotSupportedError):
        parse_usages(text)


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parse_info, [p.read_text() for p in INFOS]),
        (parse_usages, [p.read_text() for p in sorted(NPU_SMI.glob("*/info_-t_usages*"))]),
        (
            lambda text: parse_processes(text, 0, 0),
            [p.read_text() for p in sorted(NPU_SMI.glob("*/info_-t_proc-mem*"))],
        ),
    ],
    ids=["info", "usages", "proc-mem"],
)
def test_no_broken_output_breaks_the_parser(parse, texts):
    read = refused = 0
    reasons = set()
    for text in fuzz.broken(texts, seed=910):
        try:
            told = parse(text)
        except (UnreadableError, NotSupportedError) as error:
            refused += 1
            reasons.add(str(error))
        else:
            read += 1
            _is_plausible(told)
    assert read + refused == fuzz.ROUNDS
    assert min(read, refused) > 300
    assert all(len(reason) < 500 and reason.isprintable() for reason in reasons)


def _is_plausible(told):
    chips = getattr(told, "chips", ())
    assert all(c.utilization is None or 0 <= c.utilization <= 1 for c in chips)
    assert all(c.used is None or c.total is None or 0 <= c.used <= c.total for c in chips)
    usages = told.values() if isinstance(told, dict) else ()
    assert all(u.bandwidth is None or 0 <= u.bandwidth <= 1 for u in usages)
    processes = told if isinstance(told, tuple) else getattr(told, "processes", None) or ()
    assert all(p.pid >= 0 and (p.used is None or p.used >= 0) for p in processes)
