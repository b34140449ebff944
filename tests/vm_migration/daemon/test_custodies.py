"""What a host tells of its machines: a real one, and what is left of others."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from vm_migration.api.v1 import types_pb2
from vm_migration.daemon import custodies
from vm_migration.daemon.custodies import Custodies, no_complaint
from vm_migration.daemon.leftovers import LAUNCH_SECONDS, leftovers
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import create, destroyed
from vm_migration.handover.record import Record, decode
from vm_migration.handover.states import State
from vm_migration.machine.run_directory import Instance, MachineDirectory, identify
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.machine.software_succession import SoftwareSuccession
from vmm.assembly.specification import check_specification
from vmm.process.identity import boot_id

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")
OTHER = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e02"


@dataclass
class Place:
    """A host's folders."""

    folder: Path

    @property
    def journals(self) -> Journals:
        return Journals(self.folder / "journal")

    @property
    def hypervisor(self) -> SoftwareHypervisor:
        return SoftwareHypervisor(self.folder)

    def left(self) -> list[tuple[str, int]]:
        return [(one.kind, one.pid) for one in leftovers(self.journals, self.hypervisor, self.folder)]

    async def look(self) -> list[types_pb2.MachineCustody]:
        return await Custodies(self.journals, self.hypervisor, no_complaint).look()


@pytest.fixture
def host() -> Iterator[Place]:
    # Not pytest's own folder: the path of a machine's socket has room for 107 letters.
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        yield Place(Path(folder))


@pytest.fixture
async def machine(host: Place) -> AsyncIterator[MachineDirectory]:
    """A machine that runs, without a journal."""
    guest = {"working_set": "8MiB", "cpu_dirty_rate": "1MiB/s"}
    device = {"name": "qat0", "model": "qat", "address": "00:04.0"}
    document = {"name": "guest", "memory": {"size": "64MiB"}, "guest": guest, "device": [device]}
    specification = check_specification(document, "guest")
    place = await host.hypervisor.launch(MACHINE, specification, incoming=False)
    try:
        yield place
    finally:
        await host.hypervisor.take_away(place, None)


def journalled(host: Place, machine: MachineDirectory) -> Record:
    """Write the machine's journal, as its agent does."""
    instance = machine.instance()
    assert instance is not None
    specification = machine.specification().decode()
    first = create(str(machine.machine), instance=instance.name, was_running=True, specification=specification)
    with host.journals.create(first) as journal:
        return journal.last


async def test_a_machine_is_told_with_its_journal_and_its_process(host: Place, machine: MachineDirectory) -> None:
    record = journalled(host, machine)
    (custody,) = await host.look()
    assert (custody.machine, custody.name) == (str(MACHINE), "guest")
    assert decode(custody.record.encode()) == record.public()
    assert (custody.process, custody.run_state, custody.controller) == ("alive", "running", 0)
    assert host.left() == []


async def test_a_frozen_process_is_alive_and_silent_and_holds_nobody_up(
    host: Place, machine: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custodies, "ANSWER_SECONDS", 0.2)
    journalled(host, machine)
    instance = machine.instance()
    assert instance is not None
    os.kill(instance.vmm.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            (custody,) = await host.look()
    finally:
        os.kill(instance.vmm.pid, signal.SIGCONT)
    assert (custody.process, custody.run_state) == ("alive", "")


async def test_a_process_that_ended_is_gone_and_its_folder_is_its_journal_s(
    host: Place, machine: MachineDirectory
) -> None:
    journalled(host, machine)
    instance = machine.instance()
    assert instance is not None
    await host.hypervisor.take_away(machine, None)
    (custody,) = await host.look()
    assert (custody.process, custody.run_state) == ("gone", "")
    assert host.left() == []


async def test_a_machine_without_a_journal_is_left_over_whole(host: Place, machine: MachineDirectory) -> None:
    instance = machine.instance()
    assert instance is not None
    whole = {("folder", 0), ("vmm", instance.vmm.pid), ("vfio-host", instance.host.pid)}
    assert set(host.left()) == whole
    journalled(host, machine)
    assert host.left() == []
    with host.journals.open(str(MACHINE)) as journal:
        journal.append(destroyed(journal.last))
    assert set(host.left()) == whole


async def test_processes_that_their_folder_does_not_list_are_left_over(host: Place, machine: MachineDirectory) -> None:
    journalled(host, machine)
    instance = machine.instance()
    assert instance is not None
    own = identify(os.getpid())
    machine.write_instance(Instance(boot_id(), own, own, "another"))
    assert set(host.left()) == {("vmm", instance.vmm.pid), ("vfio-host", instance.host.pid)}
    (custody,) = await host.look()
    assert (custody.process, custody.run_state) == ("alive", "")
    machine.write_instance(instance)


async def test_the_second_process_of_a_machine_that_is_updated_is_none_that_was_left(
    host: Place, machine: MachineDirectory
) -> None:
    journalled(host, machine)
    succession = SoftwareSuccession(host.folder)
    successor = await succession.start(machine)
    try:
        (found,) = host.left()
        assert found[0] == "vmm"
        update = '{"update":{"mode":"transfer"}}'
        with host.journals.open(str(MACHINE)) as journal:
            journal.append(msgspec.structs.replace(journal.last, state=State.OUTGOING, policy=update))
        assert host.left() == []
    finally:
        await successor.end()


def test_processes_of_other_run_directories_and_other_programs_are_none_of_this_host_s(host: Place) -> None:
    argument = f"{host.folder}/machines/{MACHINE}/vmm.sock"
    with subprocess.Popen([sys.executable, "-c", "input()", argument], stdin=subprocess.PIPE) as process:
        assert host.left() == []
        process.kill()


def test_a_folder_is_being_filled_for_a_while(host: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = host.folder / "machines" / str(MACHINE)
    folder.mkdir(parents=True)
    assert host.left() == []
    monkeypatch.setattr("vm_migration.daemon.leftovers.time.time", lambda: folder.stat().st_ctime + LAUNCH_SECONDS)
    assert host.left() == [("folder", 0)]


async def test_an_unreadable_journal_says_why_and_accounts_for_its_machine(
    host: Place, machine: MachineDirectory
) -> None:
    record = journalled(host, machine)
    with host.journals.create(create(OTHER, instance="", was_running=True, specification="")):
        pass
    file = host.journals.folder / record.machine
    file.write_bytes(b"not a journal\n" + file.read_bytes())
    found = {one.machine: one for one in await host.look()}
    assert found[str(MACHINE)].unreadable
    assert not found[str(MACHINE)].record
    assert (found[OTHER].process, found[OTHER].unreadable) == ("unknown", "")
    assert host.left() == []


async def test_no_secret_is_told_and_the_agent_s_complaint_is(host: Place) -> None:
    secret = "ab" * 32
    first = create(OTHER, instance="", was_running=True, specification='{"name": "web"}')
    with host.journals.create(msgspec.structs.replace(first, secret=secret)) as journal:
        assert journal.last.secret == secret
    (custody,) = await Custodies(host.journals, host.hypervisor, lambda machine: f"waits with {machine}").look()
    assert secret not in str(custody)
    assert custody.complaint == f"waits with {OTHER}"
