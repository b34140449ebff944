"""A stream that comes to another machine's QEMU: its own look at both ends' UUIDs is on."""

from uuid import UUID

from tests.vm_migration.machine.qemu.hosts import MACHINE, host, specification, until
from vm_migration.machine.qemu.spawning import QEMU_LOG
from vm_migration.machine.run_directory import IN_SOCKET
from vmm.process.own_stream import COMPLETED, GATE, StreamTerms

ANOTHER = UUID("1c7e3d65-5d1f-4a5f-8e1d-4e7b2c2a3f12")


async def test_a_stream_that_comes_to_another_machine_fails_and_its_guest_runs_on() -> None:
    wanted = specification(size="16MiB")
    async with host("a") as (here, _), host("b") as (there, _):
        leaving = here.connect(await here.launch(MACHINE, wanted, incoming=False))
        target = await there.launch(ANOTHER, wanted, incoming=True)
        arriving = there.connect(target)
        await leaving.attach(1, 1)
        await arriving.attach(2, 1)
        way = str(target.path / IN_SOCKET)
        await arriving.accept_stream(way, StreamTerms())
        await leaving.start_stream(way, StreamTerms())
        ended = await until(leaving, GATE, COMPLETED, "failed")
        assert (ended.status, ended.running) == ("failed", True)
        said = (target.path / QEMU_LOG).read_text()
        assert [each for each in (MACHINE, ANOTHER) if str(each) not in said] == [], said
        for port in (leaving, arriving):
            await port.close()
