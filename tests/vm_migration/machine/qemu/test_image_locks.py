"""A disk that two hosts have is written by one QEMU only, whatever anybody tells the other one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.hosts import SECONDS, Pair, host, pair, specification
from tests.vm_migration.machine.qemu.own_monitor import cont, with_door
from vm_migration.machine.errors import MachineGone, MachineRefused
from vm_migration.machine.port import MachinePort, Stop


@asynccontextmanager
async def handed_over(image: Path) -> AsyncIterator[tuple[Pair, Stop]]:
    """Have a machine with a disk released at its source, and whole at its destination, where it waits."""
    with image.open("wb") as file:
        file.truncate(1 << 20)
    disk = {"name": "root", "file": str(image), "shared": True}
    wanted = specification(*with_door(), size="16MiB", table={"disk": [disk]})
    async with host("a") as (here, _), host("b") as (there, _), pair(here, there, wanted) as two:
        await two.to_gate()
        stop = await two.through()
        await two.leaving.release(1)
        yield two, stop


async def gone(port: MachinePort) -> None:
    """Wait until nobody answers any more."""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(MachineGone):
            while True:
                await port.describe()


async def test_a_released_copy_is_refused_its_disk_once_the_other_one_runs(tmp_path: Path) -> None:
    async with handed_over(tmp_path / "root.img") as (two, stop):
        await two.taken_over(stop)
        with pytest.raises(MachineRefused, match="lock"):
            await cont(two.source.path)
        assert (await two.arriving.describe()).run_state == "running"
        assert await two.leaving.confirm_stopped() == stop.pause


async def test_a_released_copy_that_was_let_run_keeps_its_disk_until_it_is_ended(tmp_path: Path) -> None:
    async with handed_over(tmp_path / "root.img") as (two, stop):
        await cont(two.source.path)
        with pytest.raises(MachineRefused, match="lock"):
            await two.taken_over(stop)
        assert (await two.arriving.describe()).run_state == "incoming"
        assert (await two.leaving.describe()).strayed == 1
        await two.leaving.destroy()
        await gone(two.leaving)
        await two.arriving.run(2)
        assert (await two.arriving.describe()).run_state == "running"
