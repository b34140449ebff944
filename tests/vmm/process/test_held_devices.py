"""Devices of a real machine process held by slices: they dirty less while it lasts, and their drivers find no fault."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory
from vm_migration.machine.software import SoftwareMachine
from vmm.assembly.specification import parse_specification
from vmm.process.control import ThrottledDevices
from vmm.vfio.quiesce_slices import MOST_PERCENT

MIB = 1 << 20
CPU_PAGES = 1000
"""What vCPUs write while a count goes on: at their pace that is two of the periods in which devices are held."""
COUNTS = 3
"""Of them the best one counts: where this machine is busy with other things, all of them come to less at times."""
SPECIFICATION = parse_specification(
    json.dumps(
        {
            "name": "held",
            "memory": {"size": 64 * MIB},
            "viommu": {"model": "none"},
            "guest": {"cpu_dirty_rate": 10 * MIB, "working_set": 16 * MIB},
            "device": [
                {"name": "nic0", "model": "nic", "address": "00:04.0", "dma_rate": 8 * MIB},
                {"name": "qat0", "model": "qat", "address": "00:05.0", "dma_rate": 1 * MIB},
            ],
        }
    ).encode()
)


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[MachineDirectory]:
    started = await launch(RunDirectory(tmp_path), uuid4(), SPECIFICATION, incoming=False)
    yield started
    await take_away(started, None)


async def dma_pages_a_second(machine: SoftwareMachine, percent: int) -> float:
    """Return what devices dirty while vCPUs write CPU_PAGES pages, with so much of the devices' time taken."""
    begun, dma = (await machine.describe()).guest.pages_written, 0
    await machine.harvest()
    started = monotonic()
    while (await machine.describe()).guest.pages_written < begun + CPU_PAGES:
        await machine.throttle_devices(percent)
        found = await machine.harvest()
        assert found.failure is None
        dma += found.dma.count()
    return dma / (monotonic() - started)


async def held(machine: SoftwareMachine) -> ThrottledDevices:
    found = (await machine.describe()).device_throttle
    assert found is not None
    return found


async def test_devices_dirty_less_while_they_are_held_and_as_much_as_before_afterwards(
    directory: MachineDirectory,
) -> None:
    machine = SoftwareMachine(directory.path)
    await machine.attach(1, 1)
    await machine.start_tracking()
    whole = max([await dma_pages_a_second(machine, 0) for _ in range(COUNTS)])
    while_held = [await dma_pages_a_second(machine, MOST_PERCENT) for _ in range(COUNTS)]
    afterwards = max([await dma_pages_a_second(machine, 0) for _ in range(COUNTS)])
    assert max(while_held) > 0
    assert min(while_held) < 0.6 * whole
    assert afterwards > min(while_held) / 0.6
    await machine.pause(for_attempt=True)
    await machine.harvest()
    assert not (await machine.harvest()).dma, "nothing writes after all have stopped"
    await machine.run(1)
    assert (await machine.describe()).guest.errors == 0
    await machine.close()


async def test_devices_work_again_once_the_connection_of_who_held_them_is_gone(directory: MachineDirectory) -> None:
    machine, looker = SoftwareMachine(directory.path), SoftwareMachine(directory.path)
    await machine.attach(1, 1)
    await machine.start_tracking()
    await machine.throttle_devices(MOST_PERCENT)
    taken = ThrottledDevices(percent=MOST_PERCENT, slowed=("nic0", "qat0"), at_full_speed=())
    assert await held(looker) == taken
    await machine.close()
    while (await held(looker)).percent:
        pass  # each look is a turn of the machine's loop, which hears of the end in one of them
    begun = (await looker.describe()).guest.jobs_done
    while (await looker.describe()).guest.jobs_done < begun + 500:
        pass
    assert (await looker.describe()).guest.errors == 0
    await looker.close()
