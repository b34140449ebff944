"""The demo itself: the machine is created, works, moves, and works on."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import msgspec

from orchestrator.admission import Order
from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Outcome
from orchestrator.demo.scene import HOSTS, MACHINE, DemoOptions
from orchestrator.desk import Desk, Observer
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import ask
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import AttemptFailed, MigrationError
from vmm.assembly.specification import MachineSpecification

Say = Callable[[str], None]
_WORK_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.1
_MARGIN: Final = 1.5


@dataclass(frozen=True, slots=True)
class Played:
    """What the demo showed: the attempt, and what the guest had done before, and after on the other host."""

    attempt: Attempt
    before: MachineStatus
    after: MachineStatus | None


async def play(
    options: DemoOptions,
    *,
    specification: MachineSpecification,
    agents: Agents,
    desk: Desk,
    observe: Observer,
    say: Say,
    interruptible: AbstractContextManager[None],
) -> Played:
    """Create the machine, let it work, move it, see it work on; it is destroyed at the end.

    While it moves, `interruptible` is entered: an interrupt cancels the migration there, and ends the demo elsewhere.

    Raises:
        MigrationError: What an agent or the orchestrator answered.
    """
    say("boots a machine")
    async with _created(agents, specification.to_json(), options.memory) as status:
        say("waits until guest and device work")
        before = await _until(lambda: agents.get_machine(HOSTS[0], status.machine), lambda one: works(one, options))
        policy = await _policy(agents, before, options, say)
        with interruptible:
            attempt = await desk.migrate(Order(MACHINE, HOSTS[1], policy), observe)
        if attempt.outcome != Outcome.COMPLETED:
            return Played(attempt, before, None)
        done = attempt.report.guest.jobs_done if attempt.report is not None else 0
        say("waits until the machine works on the other host")
        after = await _until(
            lambda: agents.get_machine(HOSTS[1], status.machine), lambda one: works_on(one, done, options)
        )
        return Played(attempt, before, after)


def works(status: MachineStatus, options: DemoOptions) -> bool:
    """Say whether guest and device have both done something, as far as they were asked to."""
    guest = status.guest
    cpu_works = guest.dirty_bytes_per_s > 0 or not options.cpu_dirty_rate
    return status.run_state == "running" and cpu_works and (guest.jobs_done > 0 or not options.dma_rate)


def works_on(status: MachineStatus, done: int, options: DemoOptions) -> bool:
    """Say whether the machine has done more than it had at its last report."""
    return status.run_state == "running" and (status.guest.jobs_done > done or not options.dma_rate)


async def _policy(agents: Agents, machine: MachineStatus, options: DemoOptions, say: Say) -> MigrationPolicy:
    """Return the default policy under the limit that was chosen.

    For type1, whose tracker never converges, the limit is the one that preflight asks for where that is longer.
    """
    policy = MigrationPolicy(downtime_limit_ms=options.downtime_limit_ms)
    if options.backend != "type1":
        return policy
    found = await ask(agents, machine, HOSTS[1], policy)
    if found.expected is None or found.expected.downtime_ms * _MARGIN <= policy.downtime_limit_ms:
        return policy
    limit = math.ceil(found.expected.downtime_ms * _MARGIN / 100) * 100
    say(f"type1 reports every page dirty for ever: enable_migration = on, downtime limit {limit} ms as preflight asks")
    return msgspec.structs.replace(policy, downtime_limit_ms=limit)


@contextlib.asynccontextmanager
async def _created(agents: Agents, specification: bytes, ram_bytes: int) -> AsyncIterator[MachineStatus]:
    status = await agents.create_machine(HOSTS[0], specification, ram_bytes)
    try:
        yield status
    finally:
        for host in HOSTS:
            with contextlib.suppress(MigrationError):  # it is on one of them, or gone
                await agents.act_on_machine(host, status.machine, "destroy")


async def _until(
    look: Callable[[], Awaitable[MachineStatus]], enough: Callable[[MachineStatus], bool]
) -> MachineStatus:
    try:
        async with asyncio.timeout(_WORK_SECONDS):
            while not enough(status := await look()):  # noqa: ASYNC110 - an agent has no event for it
                await asyncio.sleep(_LOOK_SECONDS)
            return status
    except TimeoutError:
        hint = "See the agents' logs: run the demo with --debug"
        raise AttemptFailed("no-work", f"The guest did no work within {_WORK_SECONDS:.0f} s", hint) from None
