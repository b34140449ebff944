"""Another machine's attempt to the same host, held before it is prepared: what comes after it waits in the queue."""

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

from orchestrator.admission import Order
from orchestrator.agents import Agents
from tests.faults.trial import DESTINATION, PATIENCE, THIRD, Trial
from tests.system.attempts import specification
from vm_migration.errors import MigrationError

_GATE = "before_prepare"
_LOOK_SECONDS = 0.02


class Blocker:
    """Holds the queue to the destination from when the context is entered until its gate is opened."""

    def __init__(self, trial: Trial, agents: Agents) -> None:
        self._trial = trial
        self._site = trial.site
        self._agents = agents
        self._machine = ""

    async def __aenter__(self) -> Self:
        wanted = specification("blocker", memory_size="64MiB", guest_cpu_dirty_rate="1MiB/s", guest_working_set="4MiB")
        self._machine = (await self._agents.create_machine(THIRD, wanted.to_json(), wanted.memory.size)).machine
        self._site.arm(_GATE)
        async with self._trial.desk() as opened:
            await opened.submit(Order("blocker", DESTINATION))
        until = time.monotonic() + PATIENCE
        while not self._site.reached(_GATE):
            assert time.monotonic() < until, "the queue could not be blocked"
            await asyncio.sleep(_LOOK_SECONDS)  # the gate is a file
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Destroy the machine, wherever it is; an attempt of it that is still open is waited for."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(self._machine in self._site.machines_at(host) for host in self._hosts):
            for host in self._hosts:
                with contextlib.suppress(MigrationError):
                    await self._agents.act_on_machine(host, self._machine, "destroy")
            await asyncio.sleep(_LOOK_SECONDS)  # an agent that is down has to come back first

    @property
    def _hosts(self) -> tuple[str, ...]:
        return tuple(self._site.budgets)
