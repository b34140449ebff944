"""The `viaduct` command as a person runs it, with an operator's configuration."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.system.daemons import environment, program
from tests.system.site import Site

DEADLINE = 40.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.out)
        return document


@contextlib.asynccontextmanager
async def running(site: Site, *arguments: str, config: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command beside the test, with an operator's configuration; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        program("viaduct"),
        *arguments,
        "--config",
        str(config or site.configuration("operator")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def finished(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a command's end."""
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def viaduct(site: Site, *arguments: str, config: Path | None = None) -> Ended:
    """Run a command to its end."""
    async with running(site, *arguments, config=config) as process:
        return await finished(process)
