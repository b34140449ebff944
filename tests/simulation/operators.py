"""A person at the simulated site: `viaduct recover`, and `viaduct recover --fenced HOST`, on the commands' own code."""

import asyncio
from collections.abc import Mapping
from typing import Final

from orchestrator.agents import Agents, HostAddresses
from orchestrator.diagnosis.look import look
from orchestrator.recovery.fenced_plan import plan
from orchestrator.recovery.fenced_steps import Fencing
from orchestrator.recovery.fenced_word import Word
from orchestrator.recovery.settling import settle
from tests.simulation.channels import Caller
from tests.simulation.hosts import SITE, Happenings
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process, VirtualLoop
from vm_migration.errors import MigrationError
from vm_migration.link.identity import Identity, Role

NAME: Final = "operator"
_AGAIN: Final = 3.0


class Operator:
    """Runs commands, one process each."""

    def __init__(
        self, *, loop: VirtualLoop, network: Network, hosts: Mapping[str, HostAddresses], happenings: Happenings
    ) -> None:
        self._loop: Final = loop
        self._network: Final = network
        self._hosts: Final = hosts
        self._happenings: Final = happenings

    def recover(self) -> None:
        """Have everybody go on with what is open."""
        self._run(None)

    def fence(self, host: str) -> None:
        """Vouch that a host is off, and have its machines started elsewhere although writes may be missing."""
        self._run(Word(host, may_miss_writes=True))

    def _run(self, word: Word | None) -> None:
        process = Process(NAME)
        caller = Caller(self._network, NAME, process, Identity(SITE, Role.OPERATOR, NAME))
        self._loop.create_task(self._recover(caller, word), name=NAME, context=process.context.copy())

    async def _recover(self, caller: Caller, word: Word | None) -> None:
        async with Agents(self._hosts, None, caller.channels()) as agents:
            try:
                if word is None:
                    await settle(agents, lambda _machine: True, self._say, patience=5.0)
                    return
                if not await self._fenced(agents, word):
                    await asyncio.sleep(_AGAIN)
                    await settle(agents, lambda _machine: True, self._say, patience=5.0)
            except MigrationError as error:
                self._say(f"refused: {error.message}")

    async def _fenced(self, agents: Agents, word: Word) -> bool:
        """Do what follows from an operator's word; say whether all of it was done."""
        planned = plan(await look(agents), word)
        for refused in planned.refused:
            self._say(f"not decided: {refused.reason}")
        done = await Fencing(agents, word, "the operator of a simulation", None).carry_out(planned, self._say)
        for step in done.steps:
            self._say(f"{step.host}: {step.message} {step.error}".strip())
        return not any(step.error for step in done.steps)

    def _say(self, text: str) -> None:
        self._happenings.said(NAME, text)
