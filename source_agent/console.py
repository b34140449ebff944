"""What a person has a guest do at its console: suspend to RAM, and wake."""

import asyncio
from typing import Final

from vm_migration.errors import Refused
from vm_migration.machine.port import MachinePort
from vm_migration.machine.succession import Consoled
from vmm.guest.console import GuestAction

_SECONDS: Final = 10.0
_LOOK: Final = 0.05


async def asleep_or_awake(port: MachinePort, name: str, *, awake: bool) -> None:
    """Have a guest suspend to RAM, or wake, and wait until its drivers have done what that takes.

    Raises:
        Refused: Its vCPUs stand still, it has no console, or it takes longer than ten seconds; then it may do it yet.
        MachineError: Its process does not answer, or refuses.
    """
    action = GuestAction.WAKE if awake else GuestAction.SUSPEND
    if not isinstance(port, Consoled):
        raise Refused("no-console", f"Nothing can be typed at the console of machine {name}", "Ask its guest itself")
    if (await port.describe()).run_state != "running":
        text = f"Machine {name} is paused: its guest can do nothing"
        raise Refused("machine-paused", text, f"Run it first: viaduct machine resume {name}")
    await port.guest_command(action)
    try:
        async with asyncio.timeout(_SECONDS):
            while (await port.describe()).guest.busy_actions:  # noqa: ASYNC110 - the guest tells nobody when it is done
                await asyncio.sleep(_LOOK)
    except TimeoutError as error:
        text = f"The guest of machine {name} was told to {action}, and has not finished within {_SECONDS:g} s"
        raise Refused("guest-busy", text, "Ask again: its drivers finish what they have to do first") from error
