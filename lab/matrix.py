"""`viaduct lab matrix`: the documents' own cells through real agents, every other scenario in a process beside them.

The rehearsals know virtual time only, so that what the agents do at the same moment on the same cores is nothing to
them; the agents' standstills are real, and longer by it.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from lab.catalogue import find, shipped
from lab.document import LabDocument, LabRow, row_of
from lab.scenario import Scenario
from lab.through_agents.laboratory import laboratory
from lab.through_agents.scenario_run import Laboratory, require_agents_can, run_through_agents
from vm_migration.errors import InternalError
from vm_migration.loopback.daemons import program

Say = Callable[[str], None]
CELLS: Final = "cells"
"""The file whose scenarios are the documents' own matrix."""
_BESIDES: Final = 256 << 20
_SIDE_BY_SIDE: Final = 2


async def matrix(say: Say) -> tuple[LabRow, ...]:
    """Run everything, and return the rows: the cells first, then the rest in the order of the list.

    Raises:
        InternalError: A process that runs a part of it gave no result.
        MigrationError: An agent did not do what it was asked.
    """
    cells = find(CELLS)
    names = {cell.name for cell in cells}
    async with asyncio.TaskGroup() as group:
        rest = group.create_task(rehearsed([one.name for one in shipped() if one.name not in names]), name="rehearsals")
        seen = group.create_task(through_agents(cells, say), name="cells through agents")
    return (*seen.result(), *rest.result())


async def through_agents(scenarios: Sequence[Scenario], say: Say) -> tuple[LabRow, ...]:
    """Run scenarios on a site of their own, a few side by side: most of their time they wait for each other's ends.

    Raises:
        InvalidInput: One of them can be run in process only; nothing was started.
        MigrationError: An agent did not do what it was asked.
    """
    for scenario in scenarios:
        require_agents_can(scenario)
    largest = max(scenario.machine.memory.size for scenario in scenarios)
    places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def run(scenario: Scenario, site: Laboratory) -> LabRow:
        async with places:
            say(scenario.name)
            seen = await run_through_agents(scenario, site)
        return row_of(scenario, scenario.document.expect.from_outside(), seen, "agents")

    async with laboratory(2 * _SIDE_BY_SIDE * largest + _BESIDES) as site, asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(scenario, site), name=scenario.name) for scenario in scenarios]
    return tuple(task.result() for task in tasks)


async def rehearsed(names: Sequence[str]) -> tuple[LabRow, ...]:
    """Run shipped scenarios in process, in a process of their own."""
    command = [program("viaduct"), "lab", "run", "--in-process", "--json", *names]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()  # its end is not told before what it has said is read
    try:
        return msgspec.json.decode(out, type=LabDocument).rows
    except msgspec.DecodeError as error:
        sys.stderr.write(said.decode(errors="replace"))
        text = f"viaduct lab run ended with {process.returncode} and no result: {error}"
        raise InternalError("no-result", text, "Run a scenario by itself with --debug") from error
