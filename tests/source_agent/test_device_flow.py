"""What of the devices' state a round takes along, and what is known of it afterwards."""

import asyncio

import pytest

from source_agent.device_flow import Batches, DeviceFlow
from source_agent.pacing import frame_payload
from tests.fakes.fake_device import FakeDevice
from tests.fakes.machine_with_device import MachineWithDevice
from vfio_host.interface.numbers import DeviceState
from vm_migration.errors import AttemptFailed
from vmm.process.control import MAX_DEVICE_DATA
from vmm.vfio.device_records import DeviceRecord, DeviceSum, RecordKind

MIB = 1 << 20


def machine_with(device: FakeDevice, grows_by: bytes = b"") -> MachineWithDevice:
    return MachineWithDevice(None, of=device, grows_by=grows_by)  # type: ignore[arg-type] # it has no process


async def taken(flow: DeviceFlow, *, to_end: bool) -> list[DeviceRecord]:
    batches: Batches = asyncio.Queue(1)
    records: list[DeviceRecord] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(flow.read(batches, to_end=to_end))
        while (batch := await batches.get()) is not None:
            records += batch
    return records


def data_bytes(records: list[DeviceRecord]) -> int:
    return sum(len(record.data) for record in records)


async def test_a_round_takes_what_can_be_read_while_the_machine_works_in_small_steps() -> None:
    machine = machine_with(FakeDevice(initial=bytes(2 * MIB), dirty=bytes(MIB), rest=bytes(5 * MIB)))
    flow = DeviceFlow(machine)
    records = await taken(flow, to_end=False)
    assert data_bytes(records) == 3 * MIB
    assert DeviceRecord("fake0", RecordKind.INITIAL_SENT) in records
    assert max(machine.budgets) <= MIB
    assert (flow.left_bytes, flow.unacknowledged) == (5 * MIB, ())


async def test_a_device_that_learns_as_fast_as_it_is_read_does_not_hold_the_round() -> None:
    machine = machine_with(FakeDevice(initial=bytes(2 * MIB)), grows_by=bytes(MIB))
    flow = DeviceFlow(machine)
    assert data_bytes(await taken(flow, to_end=False)) <= 4 * MIB
    assert flow.left_bytes > 0


class NotReadyYet(FakeDevice):
    """Has initial data to tell, and cannot yet."""

    ready = False

    def data(self, start: int, size: int) -> bytes:
        return super().data(start, size) if self.ready else b""


async def test_initial_data_that_is_not_all_read_is_not_acknowledged() -> None:
    device = NotReadyYet(initial=b"begins")
    flow = DeviceFlow(machine_with(device))
    assert [record.kind for record in await taken(flow, to_end=False)] == [RecordKind.SETUP]
    told = [flow.unacknowledged]
    device.ready = True
    await taken(flow, to_end=False)
    told.append(flow.unacknowledged)
    assert told == [("fake0",), ()]


async def test_the_last_round_takes_all_that_is_left_and_its_total_is_the_machines_own() -> None:
    machine = machine_with(FakeDevice(initial=b"initial", rest=bytes(20 * MIB)))
    flow, adding = DeviceFlow(machine), DeviceSum()
    first = await taken(flow, to_end=False)
    machine.held.set_state(DeviceState.STOP_COPY)
    rest = await taken(flow, to_end=True)
    assert (data_bytes(rest), rest[-1].kind) == (20 * MIB, RecordKind.END)
    assert max(machine.budgets) <= MAX_DEVICE_DATA
    for record in (*first, *rest):
        adding.add(record)
    assert flow.total == adding.total == machine.readers.total
    assert flow.left_bytes == 0
    assert await taken(flow, to_end=True) == []


async def test_under_a_bandwidth_readings_are_no_larger_than_its_frames_and_nothing_is_left_out() -> None:
    machine = machine_with(FakeDevice(initial=bytes(100_000), rest=bytes(MIB)))
    flow = DeviceFlow(machine)
    flow.limit(2 * MIB, 4)
    first = await taken(flow, to_end=False)
    machine.held.set_state(DeviceState.STOP_COPY)
    rest = await taken(flow, to_end=True)
    assert set(machine.budgets) == {frame_payload(2 * MIB, 4)}
    assert data_bytes(first) + data_bytes(rest) == 100_000 + MIB
    assert flow.total == machine.readers.total
    flow.limit(0, 4)
    await taken(flow, to_end=True)
    assert machine.budgets[-1] == MAX_DEVICE_DATA


async def test_a_stop_that_leaves_state_unread_fails_the_attempt() -> None:
    machine = machine_with(FakeDevice(initial=b"initial", rest=b"rest"))
    with pytest.raises(ExceptionGroup) as failed:
        await taken(DeviceFlow(machine), to_end=True)  # its devices still work
    assert isinstance(failed.value.exceptions[0], AttemptFailed)
