"""Why a QEMU cannot move, from what was gathered of it."""

from dataclasses import replace

import pytest

from vm_migration.machine.qemu.devices import Device, Disk, Parts
from vm_migration.machine.qemu.judging import findings
from vm_migration.machine.qemu.streaming import NEEDED

RAM = 1 << 30
NEW, OLD = (10, 0, 2), (7, 2, 22)


def parts(
    *vfio: Device, version: tuple[int, int, int] = NEW, viommu: Device | None = None, disks: tuple[Disk, ...] = ()
) -> Parts:
    viommus = () if viommu is None else (viommu,)
    return Parts(version, "pc-q35-10.0", vfio, viommus, disks, capabilities=NEEDED[False])


def codes(found: Parts, *blocked: str, shared: tuple[str, ...] = ()) -> tuple[set[str], set[str]]:
    said = findings(found, RAM, blocked=blocked, shared_disks=shared)
    return {each.code for each in said.blockers}, {each.code for each in said.warnings}


def test_a_machine_of_nothing_in_particular_moves() -> None:
    assert codes(parts()) == (set(), set())


@pytest.mark.parametrize("missing", sorted(NEEDED[False]))
def test_a_qemu_that_cannot_stop_at_its_gate_and_hear_the_other_end_is_not_sent(missing: str) -> None:
    found = replace(parts(), capabilities=NEEDED[False] - {missing})
    (blocker,) = findings(found, RAM, blocked=(), shared_disks=()).blockers
    assert blocker.code == "migration-capability-missing"
    assert f"knows no {missing}" in blocker.message


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("0000:3b:00.0: VFIO device doesn't support device and IOMMU dirty tracking", "no-dirty-tracking"),
        ("0000:3b:00.0: VFIO migration is not supported in kernel", "no-migration-support"),
        ("Migration is currently not supported with vIOMMU enabled", "logger-behind-viommu"),
        ("Multiple VFIO devices migration is supported only if all of them support P2P migration", "no-p2p"),
        ("0000:3b:00.0: Migration is disabled for VFIO device", "migration-disabled"),
        ("Migration is currently not supported with large memory VM due to dirty tracking limitation", "large-memory"),
        ("Migration is disabled when VirtFS export path '/x' is mounted in the guest", "qemu-blocked"),
    ],
)
def test_each_reason_of_qemus_own_is_told_with_its_code(reason: str, code: str) -> None:
    said = findings(parts(), RAM, blocked=[reason], shared_disks=())
    assert [(each.code, each.message) for each in said.blockers] == [(code, f"QEMU refuses: {reason}")]


def test_all_reasons_are_told_at_once() -> None:
    disk = Disk("disk0", "/srv/own.qcow2", read_only=False)
    said = findings(parts(disks=(disk,)), RAM, blocked=["one", "another"], shared_disks=())
    assert [each.code for each in said.blockers] == ["qemu-blocked", "qemu-blocked", "disk-not-shared"]


def test_only_a_disk_that_every_host_has_may_stay_in_the_machine() -> None:
    disks = (Disk("disk0", "/srv/all.qcow2", read_only=False), Disk("disk1", "/srv/own.iso", read_only=True))
    said = findings(parts(disks=disks), RAM, blocked=(), shared_disks=("/srv/all.qcow2",))
    assert [(each.code, each.device) for each in said.blockers] == [("disk-not-shared", "disk1")]


@pytest.mark.parametrize(
    ("values", "blockers"),
    [((), {"migration-disabled"}), ((("x-enable-migration", True),), {"no-dirty-tracking"})],
)
def test_an_old_qemu_does_not_look_at_the_viommu_so_the_models_rules_do(
    values: tuple[tuple[str, bool], ...], blockers: set[str]
) -> None:
    found = parts(Device("hostdev0", "vfio-pci", values), version=OLD, viommu=Device("iommu", "intel-iommu"))
    told, warned = codes(found)
    assert told == (blockers if not values else set())
    assert warned == (set() if not values else {"no-dirty-tracking"})


def test_type1_without_a_logger_is_told_to_report_everything() -> None:
    allowed = Device("hostdev0", "vfio-pci", (("enable-migration", "on"),))
    assert codes(parts(allowed)) == (set(), {"no-dirty-tracking"})
    by_iommu = Device("hostdev0", "vfio-pci", (("enable-migration", "auto"), ("iommufd", "/objects/iommufd0")))
    assert codes(parts(by_iommu)) == (set(), set())


@pytest.mark.parametrize(
    ("values", "code"),
    [((("aw-bits", 39),), "viommu-39-bits"), ((("aw-bits", 48), ("dma-translation", False)), "viommu-interrupts-only")],
)
def test_what_a_particular_viommu_means_for_devices_is_told(values: tuple[tuple[str, int], ...], code: str) -> None:
    device, viommu = Device("hostdev0", "vfio-pci"), Device("iommu", "intel-iommu", values)
    assert code in codes(parts(device, viommu=viommu))[1]
    assert codes(parts(viommu=viommu)) == (set(), set()), "without passed-through devices it means nothing"


def test_what_nothing_verifies_is_warned_of_and_who_stands_still_by_himself_does_not_move() -> None:
    said = findings(parts(), RAM, blocked=(), shared_disks=(), ram_trouble="No memfd", guest_trouble="Switched off")
    assert [each.code for each in said.warnings] == ["memory-not-compared"]
    assert [(each.code, each.message) for each in said.blockers] == [("guest-trouble", "Switched off")]
