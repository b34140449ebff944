"""A machine that is taken over in virtual time, on one host: what reaches the host, and what the devices did meanwhile.

::

    old machine --early document, objects--> AdoptedMachine   both on the same HostInProcess, under one clock
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from lab.rehearsal.side import Side, assembled_side, boot
from lab.rehearsal.world import World
from lab.scenario import Scenario, check_scenario
from vfio_host.devices.hardware import NEVER
from vfio_host.interface.answers import Answer
from vfio_host.interface.calls import (
    AnyCall,
    CheckExtension,
    GetFeature,
    GetHwInfo,
    GetInfo,
    IoasChangeProcess,
    IoasIovaRanges,
    IoasMapFile,
    MapDma,
    RegionRead,
)
from vfio_host.interface.numbers import DeviceState, MapFlags
from vmm.update.blockers import UpdateBlockerCode, judge_update
from vmm.update.documents import RAM, InvalidHandover, StateDocument
from vmm.update.documents import Mapping as DmaMapping
from vmm.update.handing_over import early_document, objects_of, state_document
from vmm.update.ownership import abandon, facts_of, mappings_of, take_back
from vmm.update.taking_over import AdoptedMachine
from vmm.vfio.host_port import Descriptor, HostCallFailed, OpenObject

Device = Mapping[str, object]
QAT: Device = {"model": "qat", "dma_rate": "32MiB/s"}
NIC: Device = {"model": "nic", "dma_rate": "16MiB/s"}
GPU: Device = {"model": "gpu", "local_memory": "1MiB", "dma_rate": "32MiB/s"}
PLAIN: Device = {"model": "plain", "dma_rate": "32MiB/s"}
TYPE1: Device = {**QAT, "backend": "type1", "enable_migration": "on"}
MEDIATED: Device = {**QAT, "mediated": True, "enable_migration": "on"}
LINE: Device = {**QAT, "interrupt": "intx"}
NAME = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
PAGE = 4096
LOOKS = (CheckExtension, GetFeature, GetHwInfo, GetInfo, IoasIovaRanges, RegionRead)
"""Calls that change nothing."""


def scenario(devices: Sequence[Device], *, viommu: str) -> Scenario:
    tables = [
        {"name": f"dev{index}", "address": f"00:{index + 4:02x}.0", **device} for index, device in enumerate(devices)
    ]
    machine: dict[str, object] = {
        "memory": {"size": "256MiB"},
        "guest": {"cpu_dirty_rate": "4MiB/s", "working_set": "4MiB"},
        "device": tables,
    }
    if viommu == "none":
        machine["viommu"] = {"model": "none"}
    else:
        machine["guest"] = {"cpu_dirty_rate": "4MiB/s", "working_set": "4MiB", "iommu": viommu}
    document = {"name": "updated", "title": "Updated", "machine": machine, "expect": {"outcome": "completed"}}
    return check_scenario(document, "updated")


@dataclass
class Asked:
    """Implements `vmm.vfio.host_port.Descriptor` on another, and keeps in mind what is asked of it."""

    inner: Descriptor
    calls: list[AnyCall] = field(default_factory=list)

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        self.calls += calls
        return self.inner.batch(calls, descriptors)

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        self.calls.append(call)
        return self.inner.call(call, descriptors)

    def open(self, call: AnyCall) -> OpenObject | None:
        self.calls.append(call)
        return self.inner.open(call)

    def close(self) -> None:
        self.inner.close()


@dataclass
class Handover:
    """The machine as it was, and as it is adopted; `asked` is what reached the host of the new one."""

    old: Side
    adopted: AdoptedMachine
    asked: list[AnyCall]
    mappings: tuple[tuple[DmaMapping, ...], ...] = ()

    def stand_still(self) -> StateDocument:
        """Stop the guest, and let go of its addresses."""
        machine = self.old.machine
        machine.stand_still()
        self.mappings = mappings_of(machine)
        abandon(machine)
        return state_document(machine, self.mappings, pause=1, epoch=1, controller=1, released=-1)

    def run(self, ms: float) -> None:
        """Let the new machine run."""
        self.adopted.settle()
        self.adopted.machine.start()
        world = World(self.adopted.machine, self.old.host, self.old.world.now_ns)
        world.wake()
        world.run_for(ms)
        self.old.world.now_ns = world.now_ns


@contextmanager
def beginning(*devices: Device, viommu: str = "none") -> Iterator[Handover]:
    """Yield a machine that has run for a while, and one that has adopted it and waits for its state."""
    with assembled_side(scenario(devices, viommu=viommu)) as side:
        boot(side, 1)
        side.world.run_for(100)
        document = early_document(side.machine, NAME)
        opened = {name: Asked(each) for name, each in objects_of(side.machine).items()}
        asked: list[AnyCall] = []
        for each in opened.values():
            each.calls = asked
        numbers = {RAM: os.dup(side.block.descriptor)}
        for device in side.machine.devices:
            name = device.specification.name
            numbers |= {f"completion:{name}": device.completion, f"doorbell:{name}": device.doorbell}
        adopted = AdoptedMachine(side.machine.specification, document, numbers, opened, side.host)
        try:
            yield Handover(side, adopted, asked)
        finally:
            adopted.machine.memory.block.close()


BACKENDS = [
    [QAT], [TYPE1], [NIC, QAT], [MEDIATED, QAT], [PLAIN], [TYPE1, {**NIC, "backend": "type1"}], [GPU, TYPE1], [LINE]
]  # fmt: skip


@pytest.mark.parametrize("viommu", ["none", "pt", "nopt"])
@pytest.mark.parametrize("devices", BACKENDS, ids=lambda devices: "+".join(str(each["model"]) for each in devices))
def test_nothing_is_mapped_moved_or_reset_and_no_device_leaves_its_state(
    devices: Sequence[Device], viommu: str
) -> None:
    with beginning(*devices, viommu=viommu) as handover:
        assert all(isinstance(call, LOOKS) for call in handover.asked), "adopting changed something"
        done = handover.old.machine.report().jobs_done
        state = handover.stand_still()
        handover.old.world.run_for(5)
        handover.asked.clear()
        handover.adopted.take_over(state)
        changed = [call for call in handover.asked if not isinstance(call, LOOKS)]
        assert all(
            isinstance(call, IoasChangeProcess) or (isinstance(call, MapDma) and call.flags == MapFlags.VADDR)
            for call in changed
        )
        assert len([call for call in changed if isinstance(call, MapDma)]) == sum(
            len(mappings)
            for mappings, listener in zip(handover.mappings, handover.old.machine.listeners, strict=True)
            if listener.container.backend.perpetual
        )
        handover.asked.clear()
        handover.adopted.settle()
        assert handover.asked == []
        for device in handover.old.host.devices:
            assert device.migration is None or device.migration.state is DeviceState.RUNNING
        handover.run(200)
        report = handover.adopted.machine.report()
        assert report.errors == 0
        assert report.jobs_done > done
        assert mappings_of(handover.adopted.machine) == mappings_of_host(handover)


@pytest.mark.parametrize("devices", BACKENDS, ids=lambda devices: "+".join(str(each["model"]) for each in devices))
def test_a_rehearsal_reaches_nothing_and_changes_no_page(devices: Sequence[Device]) -> None:
    with beginning(*devices, viommu="nopt") as handover:
        old = handover.old.machine
        state = state_document(old, (), pause=0, epoch=1, controller=1, released=-1)
        before, done = bytes(handover.old.block.data), old.report().jobs_done
        handover.asked.clear()
        handover.adopted.rehearse(state)
        assert all(isinstance(call, LOOKS) for call in handover.asked)
        assert bytes(handover.old.block.data) == before
        assert handover.adopted.machine.report().errors == 0
        handover.old.world.run_for(100)
        assert old.report().errors == 0
        assert old.report().jobs_done > done


def mappings_of_host(handover: Handover) -> tuple[tuple[DmaMapping, ...], ...]:
    """Return what the new machine has mapped, once the host has agreed that it maps just that."""
    found = mappings_of(handover.adopted.machine)
    host = [sorted(each) for each in handover.old.host.containers()]
    in_page_tables = {id(each.listener) for each in handover.adopted.machine.devices if not each.specification.mediated}
    for mappings, listener in zip(found, handover.adopted.machine.listeners, strict=True):
        if mappings and id(listener) in in_page_tables:
            assert sorted((iova, size, offset) for iova, size, offset, _ in mappings) in host
    return found


@pytest.mark.parametrize("devices", [[QAT], [TYPE1], [NIC]], ids=["iommufd", "type1", "log"])
def test_what_devices_wrote_while_no_address_was_known_is_in_the_dirty_log(devices: Sequence[Device]) -> None:
    with beginning(*devices) as handover:
        old = handover.old.machine
        (listener,) = old.listeners
        listener.start_tracking()  # the kernel's own, which no process keeps for it
        while not all(device.due_ns < NEVER for device in handover.old.host.devices):
            handover.old.world.run_for(0.1)
        state = handover.stand_still()
        drained(handover)
        before = bytes(handover.old.block.data)
        handover.old.world.run_for(20)
        changed = {
            page
            for page in range(handover.old.block.pages)
            if before[page * PAGE : (page + 1) * PAGE] != handover.old.block.data[page * PAGE : (page + 1) * PAGE]
        }
        assert changed, "no device wrote"
        handover.adopted.take_over(state)
        new = handover.adopted.machine.listeners[0]
        new.container.tracking = True
        new.log_sync()
        new.container.flush()
        found = new.container.take_dirty()
        assert all(page in found for page in changed)


def drained(handover: Handover) -> None:
    """Read and clear what was written before the addresses went."""
    (listener,) = handover.old.machine.listeners
    listener.log_sync()
    listener.container.flush()
    listener.container.take_dirty()


@pytest.mark.parametrize("devices", [[QAT], [TYPE1], [TYPE1, QAT]], ids=["iommufd", "type1", "both"])
@pytest.mark.parametrize("when", ["abandoned", "taken over"])
def test_the_old_process_goes_on_as_if_nothing_had_been(devices: Sequence[Device], when: str) -> None:
    with beginning(*devices) as handover:
        old = handover.old.machine
        before = mappings_of(old)
        state = handover.stand_still()
        handover.old.world.run_for(5)
        if when == "taken over":
            handover.adopted.take_over(state)
        take_back(old, handover.mappings)
        done = old.report().jobs_done
        handover.old.start()
        handover.old.world.run_for(200)
        assert old.report().errors == 0
        assert old.report().jobs_done > done
        assert mappings_of(old) == before
        abandon(old)  # every address is known again


def test_a_machine_whose_addresses_the_host_keeps_is_taken_back_as_it_was() -> None:
    with beginning({**TYPE1, "mediated": True}) as handover:
        old = handover.old.machine
        old.stand_still()
        with pytest.raises(HostCallFailed, match="EBUSY"):
            abandon(old)
        take_back(old, mappings_of(old))
        handover.old.start()
        handover.old.world.run_for(100)
        assert old.report().errors == 0


@pytest.mark.parametrize("backend", ["iommufd", "type1"])
def test_a_line_that_was_raised_and_masked_meanwhile_is_raised_again(backend: str) -> None:
    with beginning({**LINE, "backend": backend, "enable_migration": "on"}) as handover:
        world, (device,) = handover.old.world, handover.old.host.devices
        while device.due_ns == NEVER:
            world.run_for(0.1)
        state = handover.stand_still()
        while device.due_ns < NEVER:  # until it has done all its work, and waits for a guest that does not listen
            world.run_for(1)
        handover.adopted.take_over(state)
        done = handover.adopted.machine.report().jobs_done
        handover.run(200)
        report = handover.adopted.machine.report()
        assert (report.errors, report.jobs_done > done + 100) == (0, True)


def test_a_mapping_that_the_guest_had_made_and_not_told_of_is_made_before_it_runs() -> None:
    with beginning(QAT, viommu="nopt") as handover:
        machine = handover.old.machine
        container = machine.listeners[0].container
        (iova, size, _, _), *_ = mappings_of(machine)[0]
        machine.stand_still()
        container.unmap(iova, size, None)
        container.flush()  # the tables say that it is mapped, and the host was never told
        state = handover.stand_still()
        handover.adopted.take_over(state)
        handover.asked.clear()
        handover.adopted.settle()
        (call,) = handover.asked
        assert isinstance(call, IoasMapFile)
        assert (call.iova, call.length) == (iova, size)
        handover.asked.clear()
        handover.adopted.settle()
        assert handover.asked == []


def test_a_state_of_another_machine_is_refused_and_no_mapping_has_changed_hands() -> None:
    with beginning(TYPE1) as handover:
        state = handover.stand_still()
        handover.asked.clear()
        for wrong in (
            msgspec.structs.replace(state, mappings=()),
            msgspec.structs.replace(state, guest=b"none"),
            msgspec.structs.replace(state, viommu=b"one"),
        ):
            with pytest.raises(InvalidHandover):
                handover.adopted.take_over(wrong)
        assert handover.asked == []
        handover.adopted.take_over(state)
        handover.run(100)
        assert handover.adopted.machine.report().errors == 0


def test_a_machine_that_was_taken_over_tells_the_same_of_itself_as_the_one_before() -> None:
    with beginning(QAT, TYPE1, MEDIATED, viommu="pt") as handover:
        handover.adopted.take_over(handover.stand_still())
        assert early_document(handover.adopted.machine, NAME) == early_document(handover.old.machine, NAME)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (QAT, None),
        (TYPE1, None),
        (PLAIN, None),
        (MEDIATED, None),
        ({**MEDIATED, "backend": "type1"}, UpdateBlockerCode.MEDIATED_DEVICE),
    ],
)
def test_what_keeps_a_machine_is_asked_of_its_host(device: Device, code: UpdateBlockerCode | None) -> None:
    with assembled_side(scenario([device], viommu="none")) as side:
        found = judge_update(facts_of(side.machine), "transfer", suspended=False)
        assert [each.code for each in found] == ([] if code is None else [code])
