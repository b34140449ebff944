"""The moment at which both copies are whole and neither runs: told by a hook of the destination agent (`knock`)."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from lab.through_agents import knock
from vm_migration.telemetry import logs

Look = Callable[[str], frozenset[int]]
"""Given a machine's id, compare its two copies."""
_KNOCK_SECONDS: Final = 10.0
_log: Final = logs.get(__name__)


class Handoffs:
    """What was seen at each machine's handoff, by the machine's id."""

    def __init__(self, look: Look) -> None:
        self.seen: Final[dict[str, frozenset[int]]] = {}
        self.failures: Final[dict[str, str]] = {}
        self._look: Final = look

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one knock; one who does not wait for the answer has been given up by his agent, which says so."""
        try:
            async with asyncio.timeout(_KNOCK_SECONDS):
                machine = (await reader.readline()).split(b" ")[0].decode()
                writer.write(b"seen\n" if await self._looked(machine) else b"failed\n")
                await writer.drain()
        except (TimeoutError, OSError) as error:
            _log.info("a knock came to nothing", reason=str(error) or "it took too long")
        finally:
            writer.close()

    async def _looked(self, machine: str) -> bool:
        try:
            self.seen[machine] = await asyncio.to_thread(self._look, machine)
        except Exception as error:  # noqa: BLE001 - whatever it is, the attempt must hear of it and abort
            self.failures[machine] = str(error)
            return False
        return True


@contextlib.asynccontextmanager
async def watching(folder: Path, look: Look) -> AsyncIterator[Handoffs]:
    """Listen for knocks in a folder; `hooks_text` is what the agents must be configured with."""
    handoffs = Handoffs(look)
    server = await asyncio.start_unix_server(handoffs.answer, _address(folder))
    async with server:
        yield handoffs


def hooks_text(folder: Path) -> str:
    """Return the `[hooks]` section that makes destination agents knock."""
    command = shlex.join([sys.executable, "-I", "-S", str(knock.__file__), str(_address(folder))])
    return f'[hooks]\nbefore_ready = ["{command}"]\n'


def _address(folder: Path) -> Path:
    return folder / "handoffs.sock"
