"""The lease of a real QEMU's direct stream: whoever speaks for that QEMU by then calls off what no agent asks about."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm_migration.machine.qemu.direct_pairs import Directly
from tests.vm_migration.machine.qemu.hosts import SECONDS, host, instance_of, lost, pair, specification
from tests.vm_migration.machine.qemu.own_monitor import DOOR, OwnMonitor, own_monitor, with_door
from tests.vm_migration.machine.qemu.somebodys_qemu import PLAIN, somebodys_qemu
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.own_stream import GATE, StreamTerms

EPOCH = 1
ASK_SECONDS = 1.0


@dataclass
class AtGate:
    """A guest that stands still at the gate of its direct stream, and a monitor that only listens."""

    place: MachinePlace
    port: MachinePort
    monitor: OwnMonitor
    folder: Path

    @asynccontextmanager
    async def without_its_shim(self) -> AsyncIterator[MachinePort]:
        """Have another process speak for its QEMU; yield what an agent that has just come asks it with."""
        before = instance_of(self.place).host
        await lost(self.place)
        port = SoftwareHypervisor(self.folder).connect(self.place)
        try:
            assert (await port.describe()).run_state == "paused"
            assert instance_of(self.place).host != before
            yield port
        finally:
            await port.close()

    async def goes_on(self) -> None:
        """Wait until its guest runs again; this asks nobody but QEMU."""
        await self.monitor.hears("RESUME")
        async with asyncio.timeout(SECONDS):
            while await self.monitor.migration() == "cancelling":  # noqa: ASYNC110 - looked at, as QEMU tells
                await asyncio.sleep(0.05)
        assert await self.monitor.migration() == "cancelled"


@asynccontextmanager
async def at_its_gate(identities: Mapping[str, TlsFiles], *, adopted: bool = False) -> AsyncIterator[AtGate]:
    """Have a guest stand there; `adopted` is one that somebody else started."""
    async with AsyncExitStack() as stack:
        here, folder = await stack.enter_async_context(host("a"))
        there, _ = await stack.enter_async_context(host("b"))
        wanted = specification(*with_door(), size="16MiB")
        if adopted:
            mine = somebodys_qemu(folder, *PLAIN, *with_door(str(folder / DOOR)))
            path, _ = await stack.enter_async_context(mine)
            wanted = specification(size="16MiB", table={"adopt": str(path)})
        two = await stack.enter_async_context(pair(here, there, wanted))
        await Directly(two, identities).to_gate(StreamTerms())
        monitor = await stack.enter_async_context(own_monitor(folder if adopted else two.source.path))
        yield AtGate(two.source, two.leaving, monitor, folder)


async def test_a_stream_whose_agent_stays_dead_is_called_off_whoever_speaks_for_its_qemu_by_then(
    identities: dict[str, TlsFiles],
) -> None:
    """All at a time: each of them waits for as long as an agent may be silent."""
    others_go_on = asyncio.Event()

    async def nobody_asks() -> None:
        async with at_its_gate(identities) as guest:
            await guest.goes_on()

    async def nobody_asks_who_came_later(*, adopted: bool) -> None:
        async with at_its_gate(identities, adopted=adopted) as guest, guest.without_its_shim() as port:
            await guest.goes_on()
            assert (await port.attach(EPOCH, 2)).run_state == "running"

    async def an_agent_is_back_and_asks() -> None:
        async with at_its_gate(identities) as guest, guest.without_its_shim() as port:
            await port.attach(EPOCH, 2)
            while not others_go_on.is_set():
                assert (await port.stream()).status == GATE
                await asyncio.sleep(ASK_SECONDS)  # as an agent does
            await port.run(EPOCH)
            await guest.goes_on()

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(an_agent_is_back_and_asks())
        async with asyncio.TaskGroup() as silent:
            silent.create_task(nobody_asks())
            silent.create_task(nobody_asks_who_came_later(adopted=False))
            silent.create_task(nobody_asks_who_came_later(adopted=True))
        others_go_on.set()
        await asking
