"""A real QEMU whose stream breaks past its gate: its guest runs on by itself, with its disk, and is not given away.

Looked up in its source (migration/migration.c): where a stream fails or is called off in state `device`, 7.2 activates
the images again and starts a guest that ran before (migration_completion, migration_iteration_finish,
migrate_fd_cancel); so does 10.0 (migration_block_activate), but for a guest whose images it does not get back.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

import pytest

from tests.qemu_guest.build import Guest
from tests.system.qemu_machines import counted
from tests.vm_migration.machine.qemu.hosts import SECONDS, Pair, host, instance_of, launched, pair, specification, until
from tests.vm_migration.machine.qemu.own_monitor import own_monitor, with_door
from vm_migration.machine.errors import LaunchFailed, MachineGone, MachineRefused
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.qemu.session import DEADLINE
from vm_migration.machine.run_directory import lives
from vmm.process.own_stream import COMPLETED, GATE, StreamState, StreamTerms

EPOCH = 1
PATIENT_MS = 10_000
"""A downtime limit under which QEMU comes to its gate with much of its memory still to be sent."""
MORE_THAN_SOCKETS_HOLD = 1 << 20
PAST = "device"
"""The state in which QEMU sends what is left, past its gate."""


@contextmanager
def hanging(place: MachinePlace) -> Iterator[None]:
    """Have a QEMU hang, for as long as it lives at most."""
    qemu = instance_of(place).vmm
    os.kill(qemu.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if lives(qemu):
            os.kill(qemu.pid, signal.SIGCONT)


@asynccontextmanager
async def past_the_gate(two: Pair, channels: int = 1) -> AsyncIterator[None]:
    """Have a stream past its gate, with a destination that hangs: it waits for what that has to say."""
    await two.to_gate(StreamTerms(channels=channels))
    await two.leaving.pause(for_attempt=True)
    with hanging(two.target):
        await two.leaving.continue_stream()
        assert not (await until(two.leaving, PAST)).running
        yield


async def broken(two: Pair) -> StreamState:
    """Kill the destination, and return what the source's stream has come to."""
    os.kill(instance_of(two.target).vmm.pid, signal.SIGKILL)
    return await until(two.leaving, "failed", "completed", "cancelled")


async def runs(machine: MachinePort) -> None:
    """Wait until a guest runs that nobody has told to."""
    async with asyncio.timeout(SECONDS):
        state = await machine.stream()
        while not state.running:
            state = await machine.stream(state.status, 100)


@pytest.mark.parametrize("version", ["debian", "newer"])
async def test_a_guest_whose_stream_breaks_past_the_gate_runs_on_where_it_was_and_keeps_its_disk(
    programs: dict[str, str], tmp_path: Path, version: str
) -> None:
    image = tmp_path / "root.img"
    image.write_bytes(bytes(1 << 20))
    disk = {"name": "root", "file": str(image), "shared": True}
    wanted = specification(size="16MiB", table={"binary": programs[version], "disk": [disk]})
    async with (
        host("a", programs[version]) as (here, _),
        host("b", programs[version]) as (there, _),
        launched(here, wanted, incoming=False) as (source, leaving),
    ):

        @asynccontextmanager
        async def to_another() -> AsyncIterator[Pair]:
            async with launched(there, wanted, incoming=True) as (target, arriving):
                yield Pair(leaving, arriving, source, target)

        for channels in (1, 2):
            async with to_another() as two, past_the_gate(two, channels):
                assert (await broken(two)).status == "failed"
                await runs(leaving)
                with pytest.raises(MachineRefused, match="only one that stands still is released"):
                    await leaving.release(EPOCH)
        async with to_another() as two, past_the_gate(two):
            await leaving.run(EPOCH)  # its agent has waited for long enough
            assert (await leaving.stream()).status in ("cancelled", "failed")  # by which of the two it ended is QEMU's
            assert await leaving.confirm_stopped() is None
        await leaving.pause(for_attempt=False)
        async with to_another() as two, past_the_gate(two):
            assert (await broken(two)).status == "failed"
            assert await leaving.confirm_stopped() is not None, "one that stood still stands still"
        await leaving.run(EPOCH)
        assert await leaving.confirm_stopped() is None
        with pytest.raises(LaunchFailed, match="lock"):
            await there.launch(uuid4(), wanted, incoming=False)


async def unheard(machine: MachinePort, patience_ms: int) -> None:
    """Have a stream go on from its gate, which is the last that QEMU answers before its stream is broken."""
    await machine.continue_stream(patience_ms)
    await until(machine, "failed")


@pytest.mark.parametrize(("version", "patience_ms"), [("debian", 5000), ("newer", 0)])
async def test_a_guest_whose_destination_takes_nothing_in_any_more_runs_on_though_its_qemu_hears_nothing(
    guest: Guest, programs: dict[str, str], tmp_path: Path, version: str, patience_ms: int
) -> None:
    """QEMU sends what is left with its lock held: no client is answered until it is rid of that, or its connections."""
    serial, program = tmp_path / "serial", programs[version]
    wanted = specification(*guest.arguments(serial), *with_door(), table={"binary": program})
    async with host("a", program) as (here, _), host("b", program) as (there, _), pair(here, there, wanted) as two:
        await counted(serial)
        gate = await two.to_gate(StreamTerms(max_bandwidth=32 << 20, downtime_limit_ms=PATIENT_MS))
        assert gate.remaining > MORE_THAN_SOCKETS_HOLD
        await two.leaving.pause(for_attempt=True)
        async with own_monitor(two.source.path) as monitor:
            with hanging(two.target):
                with nullcontext() if patience_ms else pytest.raises(MachineGone):
                    await unheard(two.leaving, patience_ms)
                await monitor.hears("RESUME")
                assert (await two.leaving.stream()).status == "failed"
        await counted(serial, await counted(serial))


async def test_a_last_pass_that_is_slow_arrives_although_its_qemu_hears_nothing_for_longer_than_for_any_answer(
    programs: dict[str, str],
) -> None:
    program, loop = programs["debian"], asyncio.get_running_loop()
    wanted = specification(*with_door(), table={"binary": program})
    async with host("a", program) as (here, _), host("b", program) as (there, _), pair(here, there, wanted) as two:
        terms = StreamTerms(max_bandwidth=1 << 20, downtime_limit_ms=2_000_000)
        gate = await two.to_gate(terms)
        assert gate.remaining > MORE_THAN_SOCKETS_HOLD
        await two.leaving.pause(for_attempt=True)
        began = loop.time()
        with hanging(two.target):
            await two.leaving.continue_stream(60_000)
            while loop.time() < began + 1.5 * DEADLINE:
                assert (await two.leaving.stream(GATE, 100)).status in (GATE, PAST)
        for port in (two.leaving, two.arriving):
            assert (await until(port, COMPLETED, "failed")).status == COMPLETED
