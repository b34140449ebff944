"""Orchestrators of the simulation: the real queue and drive over a real store, in a process that can be killed."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.admission import Order
from orchestrator.agents import Agents, HostAddresses
from orchestrator.attempt import Attempt, Notice
from orchestrator.policy import MigrationPolicy
from orchestrator.service import AttemptQueue
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings
from tests.simulation.channels import Caller
from tests.simulation.hosts import SITE, Happenings, end_process
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process, VirtualLoop
from vm_migration.errors import MigrationError, Refused
from vm_migration.link.identity import Identity, Role


@dataclass(frozen=True, slots=True)
class Row:
    """What the schedule looks at of an attempt, many times a second."""

    attempt: str
    phase: str
    outcome: str | None
    term: int
    reason: str
    ended: bool


class _NoHooks:
    async def before_prepare(self, attempt: Attempt) -> None:
        del attempt

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        del attempt
        return ()


class Orchestrator:
    """One orchestrator daemon: it dies and comes back, its store stays."""

    def __init__(
        self,
        name: str,
        *,
        loop: VirtualLoop,
        network: Network,
        hosts: Mapping[str, HostAddresses],
        store: SqliteStore,
        happenings: Happenings,
    ) -> None:
        self.name: Final = name
        self.store: Final = store
        self.process: Process | None = None
        self.queue: AttemptQueue | None = None
        self._loop: Final = loop
        self._network: Final = network
        self._hosts: Final = hosts
        self._happenings: Final = happenings

    def start(self) -> None:
        """Start the daemon."""
        process = self.process = Process(self.name)
        self.queue = None
        caller = Caller(self._network, self.name, process, Identity(SITE, Role.ORCHESTRATOR, self.name))
        self._happenings.said(self.name, "started")
        self._loop.create_task(self._serve(process, caller), name=self.name, context=process.context.copy())

    def kill(self) -> None:
        """End the daemon's process at this very moment."""
        if self.process is not None and self.process.alive:
            self._happenings.said(self.name, "killed")
            end_process(self._loop, self.process)

    def freeze(self) -> None:
        """Hold it."""
        if self.process is not None and self.process.alive and not self.process.frozen:
            self._happenings.said(self.name, "frozen")
            self.process.frozen = True
            self._loop.hold(self.process)

    def restore(self) -> None:
        """See that it runs."""
        if self.process is None or not self.process.alive:
            self.start()
        elif self.process.frozen:
            self._happenings.said(self.name, "thawed")
            self.process.frozen = False
            self._loop.let_run(self.process)

    def rows(self) -> list[Row]:
        """Return the attempts of its store, without all that is reported of them."""
        asked = "SELECT attempt, phase, outcome, term, reason, ended FROM attempt ORDER BY created_at"
        return [Row(*row) for row in self.store._connection.execute(asked)]

    @property
    def ready(self) -> bool:
        """Whether it takes orders."""
        return self.queue is not None and self.process is not None and not self.process.held

    def do(self, work: Coroutine[object, object, None]) -> None:
        """Have the daemon's process do something, as when a command reaches it."""
        if self.process is not None:
            self._loop.create_task(work, name=f"command at {self.name}", context=self.process.context.copy())

    def migrate(self, order: Order) -> None:
        """Submit an order; what is refused is told to the trace."""
        self.do(self._submit(order))

    def cancel(self, attempt: str) -> None:
        """Cancel an attempt of this store."""
        self.do(self._steer(attempt, "cancel"))

    def force(self, attempt: str) -> None:
        """Force an attempt of this store."""
        self.do(self._steer(attempt, "force"))

    async def _submit(self, order: Order) -> None:
        queue = self.queue
        if queue is None:
            return
        try:
            row = await queue.submit(order)
        except MigrationError as error:
            self._happenings.said(self.name, "order refused", code=error.code, why=error.message)
        else:
            self._happenings.said(self.name, "order taken", attempt=row.attempt[:8], phase=row.phase)

    async def _steer(self, attempt: str, what: str) -> None:
        queue = self.queue
        if queue is None:
            return
        try:
            row = self.store.get(attempt)
            await (queue.cancel(row) if what == "cancel" else queue.force(row))
        except MigrationError as error:
            self._happenings.said(self.name, f"{what} refused", code=error.code)
        else:
            self._happenings.said(self.name, f"{what} taken")

    async def _serve(self, process: Process, caller: Caller) -> None:
        agents = Agents(self._hosts, None, caller.channels())
        around = Surroundings(self.store, agents, _NoHooks(), self.name, self._loop.time, self._observe)
        async with agents, AttemptQueue(around) as queue:
            if process is self.process:
                self.queue = queue
            await asyncio.get_running_loop().create_future()

    def _observe(self, attempt: Attempt) -> None:
        self._happenings.said(
            self.name, "attempt", attempt=attempt.attempt[:8], phase=str(attempt.phase), outcome=str(attempt.outcome)
        )


def order(machine: str, destination: str, attempt: str, *, force_on_timeout: bool = False) -> Order:
    """Return an order of a migration."""
    policy = MigrationPolicy(timeout_ms=60_000, on_timeout="force" if force_on_timeout else "cancel")
    return Order(machine=machine, destination=destination, policy=policy, attempt=attempt)


@contextmanager
def store_in_memory() -> Iterator[SqliteStore]:
    """Open a store that lasts as long as the schedule."""
    with SqliteStore(Path(":memory:")) as store:
        yield store


__all__ = ["Orchestrator", "Refused", "order", "store_in_memory"]
