"""A site to measure on: the same daemons, certificates and broker as the demo's, with a machine of the benchmark's."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.admission import Order
from orchestrator.agents import Agents
from orchestrator.attempt import Asked, Attempt
from orchestrator.demo.scene import HOSTS, DemoOptions
from orchestrator.demo.site import demo_site
from orchestrator.desk import Desk, Observer
from orchestrator.policy import MigrationPolicy
from orchestrator.site import agents_of, open_desk
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.daemon.configuration import Configuration
from vmm.assembly.specification import check_specification

MIB: Final = 1 << 20
GIB: Final = 1 << 30


def _ignore(_attempt: Attempt) -> None:
    return


@dataclass(slots=True)
class Rig:
    """A running site with one machine, which `move` sends to and fro."""

    agents: Agents
    desk: Desk
    machine: MachineStatus
    configuration: Configuration
    at: int = 0

    @property
    def folder(self) -> Path:
        """Where everything of the site lies, its store too."""
        return Path(str(self.configuration.site.store).removeprefix("sqlite://")).parent

    async def move(self, policy: MigrationPolicy, observe: Observer = _ignore) -> Attempt:
        """Migrate the machine to the host where it is not."""
        attempt = await self.desk.migrate(Order(self.machine.name, HOSTS[1 - self.at], policy), observe)
        if attempt.outcome == "completed":
            self.at = 1 - self.at
        return attempt

    async def update(self) -> Attempt:
        """Have the machine go on in another process of the host where it is."""
        return await self.desk.migrate(Order(self.machine.name, "", asked=Asked(update="transfer")), _ignore)

    async def look(self) -> MachineStatus:
        """Return the machine as it is now."""
        return await self.agents.get_machine(HOSTS[self.at], self.machine.machine)


@contextlib.asynccontextmanager
async def rig(document: dict[str, object], *, insecure: bool) -> AsyncIterator[Rig]:
    """Run a site with one machine of a specification; nothing of it is left afterwards."""
    specification = check_specification(document, "the benchmark's machine")
    size = specification.memory.size
    options = DemoOptions(size, 0, 0, "iommufd", "scalable", "nopt", 1, insecure)
    async with (
        demo_site(options) as configuration,
        agents_of(configuration) as agents,
        open_desk(configuration) as desk,
    ):
        machine = await agents.create_machine(HOSTS[0], specification.to_json(), size)
        made = Rig(agents, desk, machine, configuration)
        try:
            yield made
        finally:
            await agents.act_on_machine(HOSTS[made.at], machine.machine, "destroy")
