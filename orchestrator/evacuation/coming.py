"""Which machines are on their way to a host that is to be emptied: they leave it as soon as they are there."""

import asyncio
import contextlib

from orchestrator.agents import of_each
from orchestrator.attempt import Attempt
from orchestrator.evacuation.plan import Move
from orchestrator.store.store import Store
from orchestrator.surroundings import Surroundings
from vm_migration.errors import InvalidInput, MigrationError


async def coming_to(around: Surroundings, host: str) -> tuple[Move, ...]:
    """Return a move for each machine whose open attempt leads to a host; of 0 bytes where its source is silent."""
    coming = {one.machine: one for one in await asyncio.to_thread(_open_attempts_to, around.store, host)}

    async def move_of(machine: str) -> Move:
        one = coming[machine]
        try:
            ram_bytes = (await around.agents.get_machine(one.source, machine)).ram_bytes
        except MigrationError:
            ram_bytes = 0
        return Move(machine, one.name, ram_bytes)

    return tuple(await of_each(coming, move_of))


def _open_attempts_to(store: Store, host: str) -> list[Attempt]:
    found = []
    for row in store.open_rows():
        if row.destination == host != row.source:
            with contextlib.suppress(InvalidInput):  # it has ended meanwhile, and is forgotten
                found.append(store.get(row.attempt))
    return found
