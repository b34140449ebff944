"""A whole site on one loop: three hosts, their network, orchestrators, and one machine."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from unittest.mock import patch

import structlog
from google.protobuf.message import Message

from orchestrator.agents import HostAddresses
from orchestrator.store import rows
from orchestrator.store.message_text import message_in
from orchestrator.store.sqlite import SqliteStore
from source_agent.agent import SourceAgent
from tests.simulation.drivers import Orchestrator
from tests.simulation.guest import Lineage
from tests.simulation.hosts import JOURNALS, PORTS, Host, Side
from tests.simulation.invariants import Invariants
from tests.simulation.machines import HostMachines, MachineProcess
from tests.simulation.network import Network
from tests.simulation.operators import Operator
from tests.simulation.virtual_loop import START, VirtualLoop, current_process
from vm_migration.errors import MigrationError
from vm_migration.handover.journal_format import CorruptJournal, scan
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record, decode
from vmm.assembly.specification import parse_specification

HOSTS: Final = ("host-a", "host-b", "host-c")
SIDES: Final[tuple[Side, Side]] = ("source", "dest")
NAME: Final = "guest"
SPECIFICATION: Final = parse_specification(
    b'{"name": "guest", "memory": {"size": "64MiB"}, "viommu": {"model": "none"},'
    b' "guest": {"cpu_dirty_rate": "40KiB/s", "working_set": "16MiB"}}'
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a schedule's trace; the time in seconds since its begin."""

    time: float
    who: str
    what: str
    facts: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = "  ".join(f"{key}={value}" for key, value in self.facts.items())
        return f"{self.time:11.6f}  {self.who:16s} {self.what}  {facts}".rstrip()


class World:
    """Everything of one schedule."""

    def __init__(self, seed: int, *, witness: bool) -> None:
        self.loop: Final = VirtualLoop(seed)
        self.invariants: Final = Invariants(self._fail)
        self.trace: Final[list[Line]] = []
        self.network: Final = Network(self.loop, seed + 1)
        self.lineages: Final[dict[str, Lineage]] = {}
        self.hosts: Final[dict[str, Host]] = {}
        self.stores: Final[list[SqliteStore]] = []
        self.orchestrators: Final[list[Orchestrator]] = []
        self.machine = ""
        self._payloads: Final[dict[str, bytes]] = {}
        self.records: Final[dict[str, Record]] = {}
        """The last durable record of each host's journal, as the disk has it."""
        for name in HOSTS:
            machines = HostMachines(name, self.loop, self.invariants, self.lineages, witness)
            self.hosts[name] = Host(
                name, loop=self.loop, network=self.network, machines=machines, site=HOSTS, happenings=self
            )
        self.stepped: Callable[[Host, Record], None] = lambda _host, _record: None
        """Told of each record that became durable and says something new of the handover."""
        self.operator: Final = Operator(loop=self.loop, network=self.network, hosts=self.addresses(), happenings=self)
        self.loop.advanced = self._work
        self.loop.set_exception_handler(self._unhandled)
        self.invariants.records = lambda: self.records
        self.invariants.said = self.said
        self.network.passed = self.invariants.passed

    def addresses(self) -> dict[str, HostAddresses]:
        return {name: HostAddresses(f"{name}:{PORTS['source']}", f"{name}:{PORTS['dest']}") for name in HOSTS}

    def add_orchestrator(self, name: str, store: SqliteStore | None = None) -> Orchestrator:
        """Add an orchestrator, with a store of its own unless one is given."""
        if store is None:
            store = SqliteStore(Path(":memory:"))
            self.stores.append(store)
        added = Orchestrator(
            name, loop=self.loop, network=self.network, hosts=self.addresses(), store=store, happenings=self
        )
        self.orchestrators.append(added)
        return added

    # what happens

    def said(self, who: str, what: str, **facts: object) -> None:
        """Take a line for the trace."""
        self.trace.append(Line(self.loop.time() - START, who, what, facts))

    def logged(self, _logger: object, method: str, event: dict[str, object]) -> str:
        """Take what an agent logs for the trace."""
        process = current_process()
        what = f"{method}: {event.pop('event', '')}"
        event.pop("module", None)
        self.said(process.name if process else "world", what, **event)
        raise structlog.DropEvent

    def operated(self, host: Host, what: str, path: Path | None) -> None:
        """See what is durable after a flush."""
        del path
        if what == "flush":
            record = self.durable(host)
            if record is not None and record is not self.records.get(host.name):
                self.journalled(host, record)

    def journalled(self, host: Host, record: Record) -> None:
        """Take note of what has become durable."""
        before = self.records.get(host.name)
        self.records[host.name] = record
        self.invariants.journalled(host.name, before, record)
        if before is None or (before.state, before.attempt) != (record.state, record.attempt):
            self.said(host.name, f"journal: {record.state}", epoch=record.epoch, owned=record.owned_epoch,
                      controller=record.controller, sequence=record.sequence)  # fmt: skip
            self.stepped(host, record)

    def durable(self, host: Host) -> Record | None:
        """Return what a host's journal would say after a loss of power."""
        try:
            data = host.disk.durable(JOURNALS / self.machine)
            end = data.rfind(b"\n")
            found = scan(data[data.rfind(b"\n", 0, max(end, 0)) + 1 : end + 1])
        except (FileNotFoundError, CorruptJournal):
            return None
        known = self.records.get(host.name)
        if known is not None and self._payloads.get(host.name) == found.payloads[-1]:
            return known
        self._payloads[host.name] = found.payloads[-1]
        return decode(found.payloads[-1])

    def readable(self, host: Host) -> Record | None:
        """Return what a host's journal says to whoever reads it now, durable or not."""
        try:
            return Journals(JOURNALS, host.disk).read_last(self.machine)
        except MigrationError:
            return None

    def superseded(self) -> bool:
        """Whether an agent lives whose place another one has taken."""
        return any(process.alive for host in self.hosts.values() for process in host.superseded)

    def running(self) -> list[MachineProcess]:
        """Return the copies of the machine that run."""
        return list(self.invariants.running)

    def lives(self, host: str, instance: str) -> bool:
        """Whether a machine process lives."""
        process = self.hosts[host].machines.processes.get(instance)
        return process is not None and process.alive

    def _fail(self, failure: BaseException) -> None:
        self.loop.failure = failure

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A callback that fails is the simulation's own fault; what nobody retrieved is told."""
        error = context.get("exception")
        self.said("loop", str(context.get("message", "")), error=repr(error))
        if "handle" in context and isinstance(error, BaseException):
            self.loop.failure = error

    def _work(self, _now: float) -> None:
        for process in self.invariants.running:
            process.guest.write()

    # its life

    async def boot(self) -> None:
        """Start all agents, and create the machine on the first host."""
        for host in self.hosts.values():
            host.start("source")
            host.start("dest")
        first = self.hosts[HOSTS[0]]
        await self.until(lambda: all(host.up(side) for host in self.hosts.values() for side in SIDES), 10)
        life = first.lives["source"]
        if not isinstance(life.agent, SourceAgent):
            raise TypeError("The source agent is none")
        creating = life.agent.machines.create(SPECIFICATION)
        holding = await self.loop.create_task(creating, name="create", context=life.process.context.copy())
        self.machine = holding.record.machine
        for host in self.hosts.values():
            record = self.durable(host)
            if record is not None:
                self.journalled(host, record)

    async def until(self, holds: Callable[[], bool], seconds: float, every: float = 0.25) -> bool:
        """Wait until something holds, looked at now and then; say whether it came to that."""
        end = self.loop.time() + seconds
        while not holds():
            if self.loop.time() >= end:
                return False
            await asyncio.sleep(every)
        return True

    def close(self) -> None:
        """End every task, and give everything back."""
        self.loop.end()
        self.loop.close()
        for store in self.stores:
            store.close()


@contextmanager
def remembered_reports() -> Iterator[None]:
    """Parse each text of a store's row once while the context is entered: nobody changes what was read."""
    read: dict[tuple[str, str], Message] = {}

    def parsed(text: str, into: Message) -> Message:
        key = (text, into.DESCRIPTOR.full_name)
        if key not in read:
            read[key] = message_in(text, into)
        return read[key]

    with patch.object(rows, "message_in", parsed):
        yield


@contextmanager
def captured_logs(world: World) -> Iterator[None]:
    """Have what the agents log go to a world's trace, and nowhere else, while the context is entered."""
    before, asyncio_log = structlog.get_config(), logging.getLogger("asyncio")
    level = asyncio_log.level
    structlog.configure(processors=[cast("structlog.types.Processor", world.logged)], cache_logger_on_first_use=False)
    asyncio_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        asyncio_log.setLevel(level)
