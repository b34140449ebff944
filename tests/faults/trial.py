"""One fault on a site: the machine, who moves it, what the journals say of it, and who is frozen meanwhile."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchestrator.admission import Order
from orchestrator.attempt import Asked, Attempt
from orchestrator.client import RemoteDesk
from orchestrator.doors import Doors
from orchestrator.policy import Compression, MigrationPolicy
from orchestrator.store.rows import attempt_from
from tests.faults.expected import Moment
from tests.faults.fault_site import COMMAND_LINE, CONTROL, GATES, PAIR, FaultSite
from tests.faults.qemu_rows import LIMIT_MS as QEMU_LIMIT_MS
from tests.faults.rows import PAIRED, Row, Victim, When
from tests.faults.sampling import Sampler
from tests.system.daemons import environment, program
from vm_migration.errors import MigrationError, Unreachable
from vm_migration.handover.journal_format import CorruptJournal, scan
from vm_migration.handover.record import Record, decode
from vm_migration.handover.succession import went_over
from vm_migration.link.channel import open_channel
from vm_migration.machine.run_directory import Instance, ProcessId, identify, lives
from vmm.assembly.specification import MachineSpecification
from vmm.update import suspended_machine

SOURCE, DESTINATION, THIRD = "host-a", "host-b", "host-c"
LIMIT_MS = 2000
"""The downtime limit: the pause's bound is three times that, which a machine with other work keeps."""
LOOK_SECONDS = 0.002
"""Between two looks at a journal or a row where a moment must be caught: other processes' have no event."""
SELDOM_SECONDS = 0.05
"""The same where nothing depends on the moment."""
PATIENCE = 25.0
_ORDER_PATIENCE = 100.0
_AGAIN_SECONDS = 0.2
_TORN_READS = 20
_AGAIN = "transfer"


class Missed(Exception):
    """A boundary did not come, or was gone before anybody could hold it."""


@dataclass
class Trial:
    """A machine that is being moved, and the processes around it."""

    site: FaultSite
    row: Row
    machine: str
    name: str
    wanted: MachineSpecification
    bandwidth: int = 0
    """Bytes a second that the move may use; 0 is no limit."""
    order: Order | None = None
    order_error: str = ""
    ordering: asyncio.Task[None] | None = None
    command: subprocess.Popen[bytes] | None = None
    frozen: dict[int, ProcessId] = field(default_factory=dict)
    """By the hold, not by the fault."""
    sampler: Sampler | None = None
    cancelling: asyncio.Task[None] | None = None
    before: Instance | None = None
    """The machine's processes when it was ordered."""

    # who moves it

    @property
    def asks(self) -> str:
        """The configuration of whoever asks about it afterwards."""
        if self.row.victim in PAIRED:
            return PAIR
        return COMMAND_LINE if self.by_command else "operator"

    def desk(self) -> contextlib.AbstractAsyncContextManager[RemoteDesk]:
        """Open the desk of whoever drives."""
        pair = self.site.pair if self.row.victim in PAIRED else None
        return desk(self.site, (self.site.orchestrator_address,) if pair is None else pair.addresses)

    @property
    def by_command(self) -> bool:
        return self.row.victim is Victim.CLI

    def give_order(self) -> None:
        """Have the machine moved, by the daemon or by a command; this returns at once."""
        if self.by_command:
            updating = self.row.updates
            self.command = self.start_update() if updating else self.start_command(DESTINATION, self.bandwidth)
            return
        self.order = self.make_update() if self.row.updates else self.make_order(DESTINATION, self.bandwidth)
        self.ordering = asyncio.create_task(self._insist(self.order), name=f"order of {self.name}")

    def make_order(self, destination: str, bandwidth: int = 0) -> Order:
        compression: Compression = "none" if bandwidth else "auto"  # what is made slow is to stay slow
        policy = MigrationPolicy(
            downtime_limit_ms=QEMU_LIMIT_MS if self.row.qemu else LIMIT_MS,
            max_bandwidth_bytes_per_s=bandwidth,
            compression=compression,
            streams=self.row.streams,
            transport="direct" if self.row.direct else "grpc",
        )
        return Order(self.name, destination, policy)

    def make_update(self, mode: str = "") -> Order:
        return Order(self.name, "", asked=Asked(update=mode or self.row.ordered.value))

    def make_second(self, destination: str) -> Order:
        """What it is asked for after the fault: a move, or another update of one that would share its RAM's file."""
        return self.make_update(_AGAIN) if self.row.in_files else self.make_order(destination)

    def start_update(self, mode: str = "") -> subprocess.Popen[bytes]:
        """Start `viaduct update` where the orchestrator would run."""
        return self._start("update", self.name, "--mode", mode or self.row.ordered.value, "--json")

    def start_second(self, destination: str) -> subprocess.Popen[bytes]:
        """The same, by a command where the orchestrator would run."""
        return self.start_update(_AGAIN) if self.row.in_files else self.start_command(destination)

    async def wish_for_its_end(self) -> bool:
        """Have a person cancel the attempt, and wait until its driver has written that down, or has refused it.

        What its agent answers is waited for by nobody: it may be frozen. False says that the attempt had ended before.
        """
        found = self.row_of_it()
        if found is None or found.ended:
            return False
        asked = self.cancelling = asyncio.create_task(self._cancel(found), name=f"cancel of {self.name}")

        def known() -> bool:
            row = self.row_of_it()
            return asked.done() or (row is not None and row.cancel_requested)

        await self.until(known, "a wish to cancel")
        return True

    async def _cancel(self, attempt: Attempt) -> None:
        try:
            async with self.desk() as opened:
                await opened.cancel(attempt)
        except MigrationError as error:  # past return, say
            self.order_error = f"{error.code}: {error.message}"

    def start_command(self, destination: str, bandwidth: int = 0) -> subprocess.Popen[bytes]:
        """Start `viaduct migrate` where the orchestrator would run."""
        words = [
            "migrate",
            self.name,
            "--to",
            destination,
            "--downtime-limit",
            f"{LIMIT_MS}ms",
            "--measure",
            "0s",
            "--json",
        ]
        words += ["--max-bandwidth", f"{bandwidth >> 20}MiB/s", "--compression", "none"] if bandwidth else []
        return self._start(*words)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        words = (*words, "--config", str(self.site.configuration(COMMAND_LINE)))
        with self.command_output().open("wb") as out, (self.site.folder / "command.log").open("ab") as log:
            return subprocess.Popen(
                [*self.site.inside(CONTROL), program("viaduct"), *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=environment(),
            )  # fmt: skip

    def command_output(self) -> Path:
        return self.site.folder / "command.json"

    async def _insist(self, order: Order) -> None:
        """Submit until the daemon has answered: the same order may be given twice."""
        until = time.monotonic() + _ORDER_PATIENCE
        while time.monotonic() < until:
            try:
                async with self.desk() as opened:
                    await opened.submit(order)
            except Unreachable as error:
                self.order_error = error.message
            except MigrationError as error:
                self.order_error = f"{error.code}: {error.message}"
                return
            else:
                return
            await asyncio.sleep(_AGAIN_SECONDS)  # as a person who tries again

    # what is written of it

    def row_of_it(self) -> Attempt | None:
        """Return the first attempt of the machine as its driver's store has it.

        For reading only: a driver that is frozen in the middle of a transaction keeps writers away.
        """
        if self.row.victim in PAIRED:
            return None if self.site.pair is None else self.site.pair.first_of(self.machine)
        path = self.site.store(cli=self.by_command)
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                db.row_factory = sqlite3.Row
                query = "SELECT * FROM attempt WHERE machine = ? ORDER BY created_at LIMIT 1"
                row = db.execute(query, (self.machine,)).fetchone()
        except sqlite3.OperationalError:
            return None  # it is not there, or has no tables yet
        return None if row is None else attempt_from(row)

    def record(self, host: str) -> Record | None:
        """Return a journal's last record, past its lock: who only looks must not make an agent wait."""
        path = self.site.journals(host) / self.machine
        for _ in range(_TORN_READS):
            try:
                return decode(scan(path.read_bytes()).payloads[-1])
            except FileNotFoundError:
                return None
            except (CorruptJournal, msgspec.DecodeError):
                continue  # a record was being written
        return None

    @property
    def attempt(self) -> str:
        """The attempt in the source's journal, empty where there is none."""
        record = self.record(SOURCE)
        return "" if record is None else record.attempt or ""

    def state(self, host: str) -> str:
        """Return the state of the machine's attempt in a host's journal, empty where it holds none."""
        record = self.record(host)
        return "" if record is None or record.attempt is None else record.state.value

    def moment(self) -> Moment:
        """Return what is written at this moment, the destination first: the source is never behind it."""
        if self.row.updates:
            return self._moment_of_update()
        there = self.record(DESTINATION)
        here = self.record(SOURCE)
        ordered = here is not None and here.policy.startswith("{") and json.loads(here.policy).get("control_address")
        return Moment(
            source="" if here is None or here.attempt is None else here.state.value,
            destination="" if there is None else there.state.value,
            whole=there is not None and there.whole,
            started=bool(ordered) or (here is not None and here.state in _PAST_START),
        )

    def _moment_of_update(self) -> Moment:
        here = self.record(SOURCE)
        if here is None or here.attempt is None:
            return Moment(source="", destination="", whole=False, started=False)
        return Moment(
            source=here.state.value,
            destination="",
            whole=False,
            started=True,
            succeeded=went_over(here),
            waits=self.row.in_files and self.waits_at.exists(),
        )

    async def until(
        self, holds: Callable[[], bool], what: str, seconds: float = PATIENCE, *, every: float = LOOK_SECONDS
    ) -> None:
        """Wait until something holds; Missed says that it did not in time."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise Missed(f"{what} did not come within {seconds:.0f} s ({self.moment()})")
            await asyncio.sleep(every)  # what is waited for lies in files and processes

    # what lies in files of a machine that is to wait in them

    @property
    def ram(self) -> Path:
        """Where its RAM is."""
        assert self.wanted.memory.path is not None, f"RAM of {self.name} is in no file"
        return Path(self.wanted.memory.path)

    @property
    def waits_at(self) -> Path:
        """What lies there while it waits, and nothing has run."""
        return suspended_machine.beside(self.ram)

    # whom the hold freezes

    def beside(self, host: str) -> int:
        """Return the process without which nothing can be asked of a machine; beside a QEMU that is another one."""
        instance = self.site.instance(host, self.machine)
        return instance.host.pid if self.row.qemu else instance.vmm.pid

    def freeze(self, pid: int) -> None:
        self.frozen[pid] = identify(pid)
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        process = self.frozen.pop(pid, None)
        if process is not None and lives(process):
            os.kill(pid, signal.SIGCONT)

    def let_go(self, but: frozenset[int] = frozenset()) -> None:
        """End the hold: what it froze goes on, but for those whom the fault has frozen by now, and gates open."""
        for pid in list(self.frozen):
            if pid in but:
                self.frozen.pop(pid)
            else:
                self.thaw(pid)
        for gate in GATES:
            self.site.open_gate(gate, "no" if self.row.when is When.QUEUED else "yes")  # it held another's attempt


@contextlib.asynccontextmanager
async def desk(site: FaultSite, addresses: Sequence[str]) -> AsyncIterator[RemoteDesk]:
    """Open the desk of orchestrators."""
    identity = site.identities["operator"]
    channels = {address: open_channel(address, identity, "orchestrator") for address in addresses}
    try:
        yield RemoteDesk(Doors(addresses, channels.__getitem__))
    finally:
        for channel in channels.values():
            await channel.close()


_PAST_START = frozenset({"STOPPED", "RELEASED", "RETIRED", "RECLAIMED"})
