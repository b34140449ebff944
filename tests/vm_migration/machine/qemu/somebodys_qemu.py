"""A QEMU that nobody here started."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.vm_migration.machine.qemu.hosts import QEMU, SECONDS
from vm_migration.machine.errors import MachineGone
from vm_migration.machine.qemu.session import QmpSession

PLAIN = ("-M", "q35", "-no-user-config", "-m", "16M")
"""Arguments under which it is the machine that a specification with `adopt` and 16 MiB starts at another host."""


@asynccontextmanager
async def somebodys_qemu(folder: Path, *arguments: str) -> AsyncIterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """Yield its QMP socket, and its process."""
    path = folder / "somebodys.qmp"
    words = [QEMU, "-nodefaults", "-display", "none", "-accel", "tcg", "-qmp", f"unix:{path},server=on,wait=off"]
    with subprocess.Popen([*words, *arguments]) as process:  # noqa: ASYNC220 - milliseconds
        try:
            await answering(path)
            yield path, process
        finally:
            process.kill()


async def answering(path: Path) -> None:
    """Wait until somebody speaks QMP there."""
    session = QmpSession(path)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await session.open()
            except MachineGone:
                await asyncio.sleep(0.02)  # its socket has no event for its own coming
            else:
                await session.close()
                return
