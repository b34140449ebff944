"""Whole rounds under a bandwidth, devices and all: no frame is larger than what the bandwidth has in its 20 ms."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from source_agent.destination_link import DestinationLink
from source_agent.pacing import frame_payload
from source_agent.rounds import Rounds
from tests.fakes.fake_device import FakeDevice
from tests.fakes.machine_with_device import MachineWithDevice
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import KEY, A, leaving
from vfio_host.interface.numbers import DeviceState
from vm_migration.handover.states import State
from vm_migration.transfer.frames import Ack
from vm_migration.transfer.outgoing import OutgoingStream

PAGES = 200
RATE = 4 << 20
BESIDE = 512
"""Bytes of a frame beside its payload, and of a record beside its data, at most."""


@dataclass
class WeighingDestination(ReceivingDestination):
    """Notes how large each message is."""

    sizes: list[int] = field(default_factory=list)

    async def take(self, message: bytes | memoryview, stream: int) -> Ack | None:
        self.sizes.append(len(message))
        return await super().take(message, stream)


@asynccontextmanager
async def rounds_to(there: WeighingDestination, folder: Path) -> AsyncIterator[tuple[Rounds, MachineWithDevice]]:
    with leaving(folder, State.OUTGOING) as held:
        device = FakeDevice(initial=bytes(200_000), dirty=bytes(100_000), rest=bytes(400_000))
        machine = MachineWithDevice(held.machine.process, pages=PAGES, of=device)
        ram = await machine.ram()
        async with receiving(there):
            link = DestinationLink(host="host-b", control=there.address, bulk=there.address, tls=None, attempt=A)
            async with link, link.streams(b"ticket", 1) as bulks:
                lanes = ((OutgoingStream(UUID(A), 0), bulks[0]),)
                yield Rounds(machine, ram, link, lanes, KEY, verify="full"), machine


async def moved(folder: Path, *limits: int) -> WeighingDestination:
    """Move a machine, each round under another limit, and the last one under the last; return where it came to."""
    there = WeighingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, folder) as (rounds, machine):
        await rounds.begin()
        for limit in limits:
            rounds.limit(limit)
            await rounds.send_round()
        machine.running = False
        machine.held.set_state(DeviceState.STOP_COPY)
        await rounds.send_last()
        assert there.image.device_total == rounds.devices.total == machine.readers.total
        assert there.image.device_total.data_bytes == 700_000
        assert (there.words == machine.blocks[0].words).all()
    return there


async def test_no_frame_of_pages_or_of_a_device_is_more_than_the_bandwidth_has_in_its_time(tmp_path: Path) -> None:
    there = await moved(tmp_path, RATE)
    assert max(there.sizes) <= frame_payload(RATE, 1) + BESIDE
    assert sum(there.sizes) > 700_000


async def test_without_a_bandwidth_frames_are_as_large_as_they_may_be(tmp_path: Path) -> None:
    there = await moved(tmp_path, RATE, 0)
    assert max(there.sizes) > 300_000
