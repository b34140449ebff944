"""Starting, steering and ending QEMU's own stream."""

from pathlib import Path
from typing import Final

from vm_migration.machine.port import MachineRefused
from vm_migration.machine.qemu.answers import Capability
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.streaming import capabilities, parameters, tunable, under_way
from vmm.process.own_stream import GATE, StreamTerms

MOST_CHANNELS: Final = 16


class Streams:
    """Gives one QEMU the commands of its migration."""

    def __init__(self, monitor: Monitor, folder: Path | None, *, same_uuid: bool) -> None:
        """`folder`: what QEMU was started in, where it was started here; sockets in it are named without it.

        `same_uuid`: QEMU has the machine's UUID, so that a destination can tell whether it is sent the right one.
        """
        self._monitor: Final = monitor
        self._folder: Final = folder
        self._same_uuid: Final = same_uuid

    async def start(self, path: str, terms: StreamTerms) -> None:
        """Have QEMU connect to a socket and send itself.

        Raises:
            MachineRefused: It cannot move, in its own words, or a stream is under way.
            MachineGone: It does not answer.
        """
        await self._set_up(terms, incoming=False)
        self._monitor.began_stream()
        await self._monitor.session.tell("migrate", {"uri": self._uri(path)})

    async def accept(self, path: str, terms: StreamTerms) -> None:
        """Have an incoming QEMU listen at a socket for a stream; raises as `start`."""
        await self._set_up(terms, incoming=True)
        await self._monitor.session.tell("migrate-incoming", {"uri": self._uri(path)})

    async def go_on(self) -> None:
        """Let a stream past its gate, from where only it knows how it ends.

        Raises:
            MachineRefused: It does not stand there.
        """
        status = (await self._monitor.migration()).status
        if status != GATE:
            raise MachineRefused(f"Stream is {status}, and not at {GATE}")
        await self._monitor.session.tell("migrate-continue", {"state": GATE})

    async def cancel(self) -> None:
        """Call a stream off; it may complete all the same."""
        await self._monitor.session.tell("migrate_cancel")

    async def tune(self, terms: StreamTerms) -> None:
        """Change what may change on the way."""
        await self._monitor.session.tell("migrate-set-parameters", tunable(terms))

    async def _set_up(self, terms: StreamTerms, *, incoming: bool) -> None:
        if not 1 <= terms.channels <= MOST_CHANNELS:
            raise MachineRefused(f"{terms.channels} channels; 1 to {MOST_CHANNELS} are possible")
        migration = await self._monitor.migration()
        if under_way(migration):
            raise MachineRefused(f"A stream is {migration.status} already")
        session = self._monitor.session
        offered = {one.capability for one in await session.ask("query-migrate-capabilities", tuple[Capability, ...])}
        wanted = capabilities(terms, offered, incoming=incoming, same_uuid=self._same_uuid)
        await session.tell("migrate-set-capabilities", {"capabilities": list(wanted)})
        if given := parameters(terms, incoming=incoming):
            await session.tell("migrate-set-parameters", given)

    def _uri(self, path: str) -> str:
        place = Path(path)
        return f"unix:{place.name if place.parent == self._folder else place}"
