"""What a QEMU program says that it can be, and what that means for a machine."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.hosts import QEMU
from vm_migration.machine.qemu.program_facts import (
    Surroundings,
    judge_program,
    program_facts,
    read_facts,
    settled,
    surroundings,
    unmet_by_program,
)
from vmm.assembly.qemu_specification import QemuSpecification

VERSION = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c) 2003-2022\n"
MACHINES = """Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
pc-q35-2.4           Standard PC (Q35 + ICH9, 2009) (deprecated)
"""
CPUS = """Available CPUs:
x86 486                   (alias configured by machine type)
x86 qemu64                (alias configured by machine type)
x86 host                  processor with all supported host features
x86 max                   Enables all features supported by the accelerator in the current host

Recognized CPUID flags:
  3dnow 3dnowext
"""
ANSWERS = """{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}
{"return": {}}
{"return": [{"state": false, "capability": "events"}, {"state": false, "capability": "return-path"},
 {"state": false, "capability": "late-block-activate"}]}
{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": false, "reason": "quit"}}
{"return": {}}
""".replace(",\n ", ",")
FACTS = read_facts(VERSION, MACHINES, CPUS, ANSWERS)
NOTHING = Surroundings(kvm=False, files=frozenset())


def wanted(**table: object) -> QemuSpecification:
    return QemuSpecification.model_validate(table)


def codes(specification: QemuSpecification, around: Surroundings = NOTHING) -> list[str]:
    return [each.code for each in judge_program(FACTS, around, specification)]


def test_what_is_printed_is_read() -> None:
    assert FACTS.version == "7.2.22"
    assert FACTS.machines == {"microvm", "pc", "pc-i440fx-7.2", "q35", "pc-q35-7.2", "pc-q35-2.4"}
    assert FACTS.cpus == {"486", "qemu64", "host", "max"}
    assert FACTS.capabilities == {"events", "return-path", "late-block-activate"}


@pytest.mark.parametrize(
    ("named", "means"),
    [
        ("q35", "pc-q35-7.2"),
        ("q35,kernel-irqchip=split", "pc-q35-7.2,kernel-irqchip=split"),
        ("pc-q35-2.4", "pc-q35-2.4"),
        ("virt", "virt"),
    ],
)
def test_a_machine_type_gets_the_name_that_means_the_same_everywhere(named: str, means: str) -> None:
    assert FACTS.settled(named) == means


def test_an_older_qemu_knows_no_newer_machine_and_all_reasons_come_at_once() -> None:
    disk = {"name": "root", "file": "/srv/root.img", "shared": True}
    asks = wanted(
        machine="pc-q35-10.0", arguments=("-cpu", "EPYC-Genoa,+avx", "-accel", "kvm,dirty-ring-size=4096"), disk=(disk,)
    )
    assert codes(asks) == ["machine-type-unknown", "cpu-unknown", "no-kvm", "disk-not-shared"]


@pytest.mark.parametrize("missing", sorted(FACTS.capabilities))
def test_a_program_that_takes_disks_before_it_runs_or_tells_nobody_how_it_stands_lets_no_machine_in(
    missing: str,
) -> None:
    (found,) = judge_program(replace(FACTS, capabilities=FACTS.capabilities - {missing}), NOTHING, wanted())
    assert (found.code, missing in found.message) == ("migration-capability-missing", True)


def test_what_is_there_is_no_reason() -> None:
    disk = {"name": "root", "file": "/srv/root.img", "shared": True}
    asks = wanted(machine="q35", arguments=("-cpu", "host", "-enable-kvm"), disk=(disk,))
    assert codes(asks, Surroundings(kvm=True, files=frozenset({"/srv/root.img"}))) == []
    assert codes(wanted(machine="q35,accel=kvm")) == ["no-kvm"]
    assert codes(wanted(arguments=("-cpu",))) == []


def test_the_program_itself_is_asked(tmp_path: Path) -> None:
    assert {"multifd", "late-block-activate", "validate-uuid"} <= program_facts(QEMU).capabilities
    asks = wanted(machine="q35,kernel-irqchip=split", arguments=("-cpu", "max"))
    assert settled(asks, [QEMU]).machine.startswith("pc-q35-")
    assert unmet_by_program(asks, [QEMU]) == ()
    assert [each.code for each in unmet_by_program(wanted(machine="pc-q35-99.9"), [QEMU])] == ["machine-type-unknown"]
    assert unmet_by_program(asks, []) == (), "whether it is offered is said elsewhere"
    gone = str(tmp_path / "qemu-system-x86_64")
    assert [each.code for each in unmet_by_program(asks, [gone])] == ["kind-not-offered"]
    assert settled(asks, [gone]) == asks


def test_a_disk_is_here_where_it_can_be_used_as_the_machine_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the kernel says: a test may be root, who may do anything."""
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    disks = [
        {"name": "root", "file": "/srv/root.img", "shared": True},
        {"name": "cd", "file": "/srv/cd.iso", "shared": True, "read_only": True},
    ]
    wanted = QemuSpecification.model_validate({"disk": disks})
    assert surroundings(wanted).files == {"/srv/cd.iso"}
