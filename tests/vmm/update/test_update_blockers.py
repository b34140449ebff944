"""Which machines cannot be handed to another process, and why (semantics 9.4, 9.5)."""

import pytest

from vmm.update.blockers import UpdateBlockerCode as Code
from vmm.update.blockers import UpdateFacts, has_invariant_name, judge_update

TYPE1 = UpdateFacts(name="nic0", backend="type1")
IOMMUFD = UpdateFacts(name="qat0", backend="iommufd")


def codes(*devices: UpdateFacts) -> list[tuple[Code, str]]:
    return [(found.code, found.device) for found in judge_update(devices, "transfer", suspended=False)]


def test_a_machine_that_runs_on_either_backend_can_be_handed_over() -> None:
    assert codes() == []
    assert codes(TYPE1, IOMMUFD) == []


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (UpdateFacts(name="d", backend="type1", mediated=True), Code.MEDIATED_DEVICE),
        (UpdateFacts(name="d", backend="type1", updates_vaddr=False), Code.NO_VADDR_UPDATE),
        (UpdateFacts(name="d", backend="type1", unmaps_all=False), Code.NO_VADDR_UPDATE),
        (UpdateFacts(name="d", backend="iommufd", by_file=False), Code.MAPPING_NOT_BY_FILE),
        (UpdateFacts(name="d", backend="iommufd", changes_process=False), Code.NO_PROCESS_CHANGE),
        (UpdateFacts(name="VFIO_FD12", backend="iommufd"), Code.NO_DEVICE_ID),
        (UpdateFacts(name="", backend="type1", mediated=True), Code.NO_DEVICE_ID),
    ],
)
def test_each_thing_that_is_missing_has_a_code_of_its_own(device: UpdateFacts, code: Code) -> None:
    assert codes(TYPE1, device, IOMMUFD) == [(code, device.name)]


def test_a_mediated_device_on_iommufd_is_no_blocker_and_type1s_extensions_mean_nothing_to_it() -> None:
    assert codes(UpdateFacts(name="d", backend="iommufd", mediated=True, updates_vaddr=False, unmaps_all=False)) == []
    assert codes(UpdateFacts(name="d", backend="type1", by_file=False, changes_process=False)) == []


def test_every_device_that_blocks_is_told() -> None:
    blocked = [UpdateFacts(name=f"mdev{n}", backend="type1", mediated=True) for n in range(3)]
    assert codes(*blocked) == [(Code.MEDIATED_DEVICE, f"mdev{n}") for n in range(3)]


def test_a_machine_whose_dirty_pages_are_tracked_stays_beside_whatever_else_keeps_it() -> None:
    mediated = UpdateFacts(name="d", backend="type1", mediated=True)
    found = judge_update([IOMMUFD, mediated], "transfer", suspended=False, tracking=True)
    assert [(each.code, each.device) for each in found] == [(Code.DIRTY_TRACKING, ""), (Code.MEDIATED_DEVICE, "d")]


@pytest.mark.parametrize(("suspended", "expected"), [(False, [Code.NOT_SUSPENDED]), (True, [])])
def test_a_restart_of_the_host_needs_a_suspended_guest_and_nothing_else(suspended: bool, expected: list[Code]) -> None:
    devices = [UpdateFacts(name="", backend="type1", mediated=True)]
    assert [found.code for found in judge_update(devices, "reboot", suspended=suspended)] == expected


def test_a_host_that_restarts_takes_memory_along_that_is_in_no_file() -> None:
    found = judge_update([IOMMUFD], "reboot", suspended=True, tracking=True, keeps_ram=False)
    assert [each.code for each in found] == [Code.DIRTY_TRACKING, Code.MEMORY_NOT_IN_A_FILE]
    assert judge_update([IOMMUFD], "exec", suspended=False, keeps_ram=False) == ()


def test_where_nothing_can_be_written_beside_ram_a_guest_is_not_left_in_files() -> None:
    (found,) = judge_update([IOMMUFD], "reboot", suspended=True, nothing_beside="/dev/hugepages is on hugetlbfs")
    assert found.code is Code.NO_FILE_BESIDE_MEMORY
    assert "/dev/hugepages is on hugetlbfs" in found.message
    assert judge_update([IOMMUFD], "transfer", suspended=False, nothing_beside="/dev/hugepages is on hugetlbfs") == ()
    neither = judge_update([IOMMUFD], "reboot", suspended=True, keeps_ram=False, nothing_beside="no folder")
    assert [each.code for each in neither] == [Code.MEMORY_NOT_IN_A_FILE]


def test_a_guest_without_devices_survives_a_restart_of_the_host_as_it_is() -> None:
    assert judge_update([], "reboot", suspended=False) == ()


@pytest.mark.parametrize(("name", "invariant"), [("qat0", True), ("VFIO_FD3", False), ("VFIO_FDx", True), ("", False)])
def test_a_name_made_of_a_descriptors_number_means_nothing_to_another_process(name: str, invariant: bool) -> None:
    assert has_invariant_name(name) is invariant
