from exporter import gauges
from exporter.accelerators.readings import DeviceMemory, ProcessMemory, memory_readings
from exporter.gauges import MemoryGroup

GROUPS = {1: MemoryGroup.OPENTALKING, 2: MemoryGroup.OMNIRT, 3: MemoryGroup.OMNIRT}


def used(memory, baseline=None):
    """Bytes by (scope, group)."""
    readings = memory_readings([memory], GROUPS.__getitem__, baseline or {})
    return {
        (str(r.labels["scope"]), str(r.labels["group"])): r.value
        for r in readings
        if r.name == gauges.VRAM_USED.name
    }


def test_processes_of_a_group_count_together():
    listed = (ProcessMemory(1, 10.0), ProcessMemory(2, 20.0), ProcessMemory(3, 5.0))
    assert used(DeviceMemory("0", 50.0, 100.0, 50.0, listed)) == {
        ("device", "all"): 50.0,
        ("process", "opentalking"): 10.0,
        ("process", "omnirt"): 25.0,
    }


def test_one_process_without_memory_makes_every_sum_too_low_so_there_is_none():
    listed = (ProcessMemory(1, 10.0), ProcessMemory(2, None))
    assert used(DeviceMemory("0", 50.0, 100.0, 50.0, listed)) == {("device", "all"): 50.0}


def test_the_delta_needs_a_baseline_of_its_device():
    memory = DeviceMemory("1", 50.0, 100.0)
    assert used(memory, {"0": 10.0}) == {("device", "all"): 50.0}
    assert used(memory, {"1": 10.0}) == {("device", "all"): 50.0, ("device_delta", "all"): 40.0}


def test_a_device_that_holds_less_than_before_the_target_has_no_delta():
    assert used(DeviceMemory("0", 50.0, 100.0), {"0": 60.0}) == {("device", "all"): 50.0}


def test_free_memory_that_is_not_told_is_absent():
    readings = memory_readings([DeviceMemory("0", 50.0, 100.0)], GROUPS.__getitem__, {})
    assert gauges.VRAM_FREE.name not in {reading.name for reading in readings}
