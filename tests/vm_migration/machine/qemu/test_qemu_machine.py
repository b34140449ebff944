"""Real QEMU machines behind the port, without agents: one process beside each QEMU, and a stream between two."""

import asyncio
from pathlib import Path

import pytest

from tests.qemu_guest.build import Guest
from tests.qemu_guest.serial import counts, without_gap
from tests.vm_migration.machine.qemu.hosts import MACHINE, SECONDS, host, specification, until
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineGone, MachineRefused
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.own_stream import COMPLETED, GATE, StreamTerms


async def counted(serial: Path, *, above: int) -> list[int]:
    """Wait until the guest has counted further than that."""
    async with asyncio.timeout(SECONDS):
        while not (found := counts(serial)) or found[-1] <= above:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
        return found


async def test_a_guest_goes_on_at_the_other_side_and_only_there(guest: Guest) -> None:
    terms = StreamTerms(downtime_limit_ms=300)
    async with host("a") as (here, folder), host("b") as (there, other):
        before, after = folder / "serial", other / "serial"
        source = await here.launch(MACHINE, specification(*guest.arguments(before)), incoming=False)
        target = await there.launch(MACHINE, specification(*guest.arguments(after)), incoming=True)
        leaving, arriving = here.connect(source), there.connect(target)
        assert (await leaving.attach(1, 1)).moves == "stream"
        assert (await arriving.attach(2, 1)).run_state == "incoming"
        await counted(before, above=20)
        way = str(target.path / "in.sock")
        await arriving.accept_stream(way, terms)
        await leaving.start_stream(way, terms)
        gate = await until(leaving, GATE, "failed")
        assert (gate.status, gate.running) == (GATE, False), gate.error
        stop = await leaving.pause(for_attempt=True)
        assert (stop.pause, stop.was_running, stop.last_executed_ns) == (1, True, gate.stopped_ns)
        with pytest.raises(MachineRefused):  # its state is not whole yet
            await arriving.run(2)
        await leaving.continue_stream()
        sent = await until(leaving, COMPLETED, "failed")
        while sent.run_status == "finish-migrate":  # for a moment, as QEMU says it
            sent = await leaving.stream()
        assert (sent.status, sent.run_status) == (COMPLETED, "postmigrate")
        assert (await until(arriving, COMPLETED, "failed")).status == COMPLETED
        ours, theirs = await leaving.ram(), await arriving.ram()
        assert ours.data == theirs.data
        ours.close()
        theirs.close()
        assert (await arriving.describe()).run_state == "incoming"
        assert await leaving.confirm_stopped() == 1
        await leaving.release(1)
        with pytest.raises(CutOff):
            await leaving.run(1)
        await arriving.load(b"", stop.pause)
        await arriving.run(2)
        last = counts(before)[-1]
        assert without_gap(counts(before), await counted(after, above=last + 50))
        assert (await leaving.describe()).run_state == "paused"
        for port in (leaving, arriving):
            await port.close()


async def test_a_stream_that_is_called_off_at_its_gate_leaves_a_machine_that_runs(guest: Guest) -> None:
    async with host("a") as (here, folder), host("b") as (there, other):
        serial = folder / "serial"
        source = await here.launch(MACHINE, specification(*guest.arguments(serial)), incoming=False)
        target = await there.launch(MACHINE, specification(*guest.arguments(other / "serial")), incoming=True)
        leaving, arriving = here.connect(source), there.connect(target)
        await leaving.attach(1, 1)
        await arriving.attach(2, 1)
        await counted(serial, above=5)
        way = str(target.path / "in.sock")
        await arriving.accept_stream(way, StreamTerms())
        await leaving.start_stream(way, StreamTerms())
        await until(leaving, GATE)
        await leaving.pause(for_attempt=True)
        await leaving.run(1)
        assert await leaving.confirm_stopped() is None
        at = counts(serial)[-1]
        assert without_gap(await counted(serial, above=at + 20))
        assert (await leaving.pause(for_attempt=False)).pause >= 2  # another stop than that of the attempt
        for port in (leaving, arriving):
            await port.close()


async def test_a_machine_is_found_again_by_whoever_comes_next() -> None:
    async with host("a") as (here, folder):
        place = await here.launch(MACHINE, specification(size="16MiB"), incoming=False)
        first = here.connect(place)
        await first.attach(1, 1)
        assert (await first.pause(for_attempt=False)).pause == 1
        await first.close()
        again = SoftwareHypervisor(folder)
        (found,) = again.all()
        assert found.alive()
        port = again.connect(found)
        described = await port.attach(1, 2)
        assert (described.run_state, described.pause, described.controller) == ("paused", 1, 2)
        await port.close()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"binary": "no-such-program"}, "no-such-program is not among the programs"),
        ({"machine": "no-such-machine"}, "nsupported machine type"),
        ({"arguments": ["-no-such-option"]}, "invalid option"),
        ({"adopt": "/no/such/socket"}, "Nobody speaks QMP"),
    ],
)
async def test_a_machine_that_does_not_come_up_says_why_and_leaves_nothing(table: dict[str, object], says: str) -> None:
    async with host("a") as (here, folder):
        with pytest.raises(LaunchFailed, match=says):
            await here.launch(MACHINE, specification(size="16MiB", table=table), incoming=False)
        assert not list(here.all())
        assert not list((folder / "machines").iterdir())


async def test_a_machine_whose_qemu_was_killed_is_gone_and_so_is_what_stood_beside_it() -> None:
    async with host("a") as (here, _):
        place = await here.launch(MACHINE, specification(size="16MiB"), incoming=False)
        instance = place.instance()
        assert instance is not None
        port = here.connect(place)
        await port.attach(1, 1)
        await here.take_away(place, None)
        with pytest.raises(MachineGone):
            await port.describe()
        assert here.instance_lives(instance.name) is False
        await port.close()


async def test_what_only_a_model_can_do_is_refused_with_the_reason() -> None:
    async with host("a") as (here, _):
        port = here.connect(await here.launch(MACHINE, specification(size="16MiB"), incoming=False))
        await port.attach(1, 1)
        for asked in (port.harvest(), port.save(), port.start_tracking(), port.throttle(10), port.populate(0, 1)):
            with pytest.raises(MachineRefused):
                await asked
        await port.cancel_stream()  # there is none, which is no error
        with pytest.raises(MachineRefused, match="not at pre-switchover"):
            await port.continue_stream()
        await port.close()
