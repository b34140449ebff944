"""Starting, steering and ending QEMU's own stream."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.qemu.devices import migration_capabilities
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.session import QemuSilent
from vm_migration.machine.qemu.stream_tls import NO_TLS, StreamTls
from vm_migration.machine.qemu.streaming import capabilities, lacking, parameters, tunable, under_way
from vmm.process.own_stream import GATE, DirectAt, DirectTo, StreamTerms

MOST_CHANNELS: Final = 16


class Streams:
    """Gives one QEMU the commands of its migration."""

    def __init__(self, monitor: Monitor, folder: Path | None, tls: StreamTls, *, same_uuid: bool) -> None:
        """`folder`: what QEMU was started in, where it was started here; sockets in it are named without it.

        `tls` is for streams that go directly. `same_uuid`: QEMU has the machine's UUID, so that a destination can tell
        whether it is sent the right one.
        """
        self._monitor: Final = monitor
        self._folder: Final = folder
        self._tls: Final = tls
        self._same_uuid: Final = same_uuid

    async def start(self, path: str, terms: StreamTerms) -> None:
        """Have QEMU connect to a socket and send itself.

        Raises:
            MachineRefused: It cannot move, in its own words, or a stream is under way.
            MachineGone: It does not answer.
        """
        await self._require_idle(terms)
        await self._tls.take_away()
        await self._send(self._uri(path), terms, NO_TLS)

    async def accept(self, path: str, terms: StreamTerms) -> None:
        """Have an incoming QEMU listen at a socket for a stream; raises as `start`."""
        await self._require_idle(terms)
        await self._tls.take_away()
        await self._take_in(self._uri(path), terms, NO_TLS)

    async def connect(self, to: DirectTo, terms: StreamTerms) -> None:
        """Have QEMU connect to another one and send itself; raises as `start`."""
        await self._require_idle(terms)
        shown = await self._tls.connecting(to.credentials, to.name)
        await self._send(_tcp(to.host, to.port), terms, shown)

    async def listen(self, at: DirectAt, terms: StreamTerms) -> int:
        """Have an incoming QEMU listen for another one, and return at which port; raises as `start`."""
        await self._require_idle(terms)
        shown = await self._tls.listening(at.credentials, at.admits)
        await self._take_in(_tcp(at.host, 0), terms, shown)
        for each in (await self._monitor.migration()).socket_address:
            if each.port.isdecimal():
                return int(each.port)
        raise MachineRefused("QEMU does not say at which port it listens")

    async def goes_directly(self) -> bool:
        """Tell whether a stream is under way that has TLS of its own; raises as `start`."""
        return under_way(await self._monitor.migration()) and await self._tls.stands()

    async def put_away(self) -> None:
        """Have nothing of a stream's certificates in QEMU any more; raises as `start`."""
        await self._tls.take_away()

    async def go_on(self, patience: float = 0.0) -> None:
        """Let a stream past its gate, from where only it knows how it ends.

        `patience` is for how many seconds QEMU may be silent while it sends what is left; 0: as long as otherwise.

        Raises:
            MachineRefused: It does not stand there.
        """
        status = (await self._monitor.migration()).status
        if status != GATE:
            raise MachineRefused(f"Stream is {status}, and not at {GATE}")
        # Past it QEMU sends what is left with its lock held, and answers nothing until the other end has taken it in:
        # not even this command, where its sender has the lock before its monitor has.
        self._monitor.session.when_silent = self._break
        self._monitor.session.bear(patience)
        with suppress(QemuSilent):
            await self._monitor.session.tell("migrate-continue", {"state": GATE})

    def hurry(self) -> None:
        """Bear with QEMU's silence no longer: a stream for which it is silent is broken by the next question."""
        self._monitor.session.bear(0.0)

    async def _break(self) -> None:
        """Shut its connections, whatever QEMU waits for: the stream fails, and QEMU runs the guest on by itself."""
        await self._monitor.session.tell_beside("yank", {"instances": [{"type": "migration"}]})

    async def cancel(self) -> None:
        """Call a stream off; it may complete all the same."""
        await self._monitor.session.tell("migrate_cancel")

    async def tune(self, terms: StreamTerms) -> None:
        """Change what may change on the way."""
        await self._monitor.session.tell("migrate-set-parameters", tunable(terms))

    async def _send(self, uri: str, terms: StreamTerms, tls: Mapping[str, object]) -> None:
        self._monitor.session.when_silent = None
        self.hurry()
        await self._set_up(terms, tls, incoming=False)
        self._monitor.began_stream()
        await self._monitor.session.tell("migrate", {"uri": uri})

    async def _take_in(self, uri: str, terms: StreamTerms, tls: Mapping[str, object]) -> None:
        await self._set_up(terms, tls, incoming=True)
        await self._monitor.session.tell("migrate-incoming", {"uri": uri})

    async def _require_idle(self, terms: StreamTerms) -> None:
        if not 1 <= terms.channels <= MOST_CHANNELS:
            raise MachineRefused(f"{terms.channels} channels; 1 to {MOST_CHANNELS} are possible")
        migration = await self._monitor.migration()
        if under_way(migration):
            raise MachineRefused(f"A stream is {migration.status} already")

    async def _set_up(self, terms: StreamTerms, tls: Mapping[str, object], *, incoming: bool) -> None:
        session = self._monitor.session
        offered = await migration_capabilities(session)
        why = lacking(offered, incoming=incoming)
        if why or (terms.channels > 1 and "multifd" not in offered):
            raise MachineRefused(f"QEMU {why or 'knows no multifd: it has one channel'}")
        wanted = capabilities(terms, offered, incoming=incoming, same_uuid=self._same_uuid)
        await session.tell("migrate-set-capabilities", {"capabilities": list(wanted)})
        await session.tell("migrate-set-parameters", {**parameters(terms, incoming=incoming), **tls})

    def _uri(self, path: str) -> str:
        place = Path(path)
        return f"unix:{place.name if place.parent == self._folder else place}"


def _tcp(host: str, port: int) -> str:
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
