"""What keeps a machine from leaving its host, or its process, beside what its kind and devices say."""

from typing import Final

from source_agent.holdings import Holding, Holdings
from vm_migration.machine.succession import Updatable, not_updatable
from vmm.process.control import Observation
from vmm.update.blockers import Mode

OFFERED: Final[dict[str, Mode]] = {"transfer": "transfer", "exec": "exec", "reboot": "reboot"}


def ownership_obstacles(holding: Holding) -> list[Observation]:
    """Return why no attempt of a machine can begin now."""
    record, found = holding.record, []
    if not record.closed:
        text = f"Attempt {record.attempt} to {record.peer} is open ({record.state})"
        found.append(Observation(code="attempt-open", message=text))
    if holding.description is None:
        found.append(Observation(code="machine-gone", message="Machine's process does not answer"))
    if record.owns and not record.former_retired:
        text = f"The former source has not told yet that it retired its copy of {record.machine}"
        found.append(Observation(code="former-source-open", message=text))
    return found


async def update_obstacles(holdings: Holdings, holding: Holding, mode: str) -> list[Observation]:
    """Return everything that keeps a machine in its process; its devices are asked about where nothing is open.

    Raises:
        MigrationError, MachineError: The machine could not be asked.
    """
    found = ownership_obstacles(holding)
    if mode not in OFFERED:
        text = f"Mode {mode!r} is not one of this agent's: {', '.join(OFFERED)}"
        found.append(Observation(code="mode-not-offered", message=text))
    if holding.description is None or not holding.record.owns:
        return found
    async with holdings.hold(holding.record.machine) as custody:
        if not isinstance(custody.port, Updatable) or not holding.description.hands_over:
            refusal = not_updatable(holding.record.machine)
            return [*found, Observation(code=refusal.code, message=refusal.message)]
        return [*found, *await custody.port.judge_update(OFFERED.get(mode, "transfer"))]
