"""How a migration gets its row: the machine is found, the destination chosen, what an earlier driver left is settled.

Nothing here has a side effect at an agent, but that an attempt whose driver died before it started is cancelled.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

from orchestrator.attempt import Asked, Attempt, Fault, Outcome, Phase, Retry, blocked, new_attempt_id
from orchestrator.destination import Beside, find_destination
from orchestrator.inventory import owned_at, resolve, survey
from orchestrator.maintenance import choice_now, in_maintenance
from orchestrator.policy import MigrationPolicy, policy_to, require_offered
from orchestrator.preflight import ANY, Preflight, preflight, require_choosable
from orchestrator.retrying import MOST_RETRIES
from orchestrator.settling import settle_earlier
from orchestrator.surroundings import Surroundings
from orchestrator.updating.asking import ask_update
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import InvalidInput, MigrationError
from vm_migration.machine.windows import require_measurable


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for. The destination may be `any`: of all hosts, or `among` some; an update needs none.

    `at` is where a machine that is named by its UUID was seen, by whoever has just looked: other hosts are not asked
    where it is, unless it is not there.
    """

    machine: str
    destination: str
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)
    priority: int = 0
    attempt: str = field(default_factory=new_attempt_id)
    retries: int = 0
    asked: Asked = field(default_factory=Asked)
    among: tuple[str, ...] = ()
    at: str = ""


async def admit(around: Surroundings, order: Order, *, check: bool = False) -> Attempt:
    """Consider an order, enter it claimed by this driver, and return its row; one that is entered is answered with it.

    Raises:
        MigrationError: As `consider`.
        Refused: Another attempt of the machine is open.
    """
    attempt = await consider(around, order, check=check)
    while await asyncio.to_thread(_left_meanwhile, around, order, attempt):  # ends: there is one host fewer each time
        attempt = await consider(around, order, check=check)
    return await enter(around, attempt)


def _left_meanwhile(around: Surroundings, order: Order, attempt: Attempt) -> bool:
    """Tell whether the host that was chosen has been put into maintenance since: it may be emptied by now. Blocks."""
    chosen = order.destination == ANY and not order.among and not attempt.ended
    return chosen and attempt.destination in in_maintenance(around.store.entries)


async def enter(around: Surroundings, attempt: Attempt) -> Attempt:
    """Enter what was considered.

    Raises:
        Refused: Another attempt of the machine is open.
    """
    return await asyncio.to_thread(around.store.open_attempt, attempt)


async def consider(around: Surroundings, order: Order, *, check: bool = False) -> Attempt:
    """Return the row that an order would get. Left early, it leaves nothing behind.

    With `check`, both sides are asked at once, and an order with blockers comes out as refused; without, the drive
    asks.

    Raises:
        InvalidInput: Unknown machine, host or option.
        Refused: Ambiguous machine, a silent host, or no host passes (`any`).
    """
    require_offered(order.policy)
    require_measurable(order.asked.measure_ms)
    if order.retries > MOST_RETRIES:
        raise InvalidInput("too-many-retries", f"{order.retries} retries are more than {MOST_RETRIES}", "Ask for fewer")
    if order.destination != ANY and not order.asked.update:
        around.agents.require(order.destination)
    machine = await _found(around, order)
    if await settle_earlier(around, machine):
        machine = resolve(machine.machine, await survey(around.agents))
    found = None
    if order.asked.update:
        if check:
            found = Preflight(machine, (await ask_update(around.agents, machine, order.asked.update),))
    elif order.destination == ANY:
        found = await _chosen(around, order, machine)
    elif check:
        found = await preflight(around.agents, machine, order.destination, order.policy, by_host=order.asked.by_host)
    named = machine.host if order.asked.update else order.destination
    attempt = _draft(around, order, machine, named if found is None else found.candidates[0].host)
    if found is not None and found.chosen is None:
        attempt = _refused(attempt, found)
    return attempt


async def _found(around: Surroundings, order: Order) -> MachineStatus:
    """Return the machine of an order; who says that it has moved on since, as a host or the store, has all asked."""
    if order.at:
        with contextlib.suppress(MigrationError):
            seen = owned_at(order.at, await around.agents.get_machine(order.at, order.machine))
            owner = await asyncio.to_thread(around.store.owner_of, seen.machine)
            if owner is None or owner.host == order.at or owner.epoch <= seen.epoch:
                return seen
    return resolve(order.machine, await survey(around.agents))


async def _chosen(around: Surroundings, order: Order, machine: MachineStatus) -> Preflight:
    choice = await asyncio.to_thread(choice_now, around.store, around.agents.hosts, order.among)
    beside = Beside(choice.excluded, choice.taking, choice.sending, known=around.known)
    found = await find_destination(around.agents, machine, order.policy, beside, by_host=order.asked.by_host)
    require_choosable(found)
    return found


def _draft(around: Surroundings, order: Order, machine: MachineStatus, destination: str) -> Attempt:
    now = around.clock()
    return Attempt(
        attempt=order.attempt,
        machine=machine.machine,
        name=machine.name,
        source=machine.host,
        destination=destination,
        policy=policy_to(order.policy, around.agents.hosts[destination].transport, by_host=order.asked.by_host),
        priority=order.priority,
        created_at=now,
        updated_at=now,
        driver=around.driver,
        heartbeat=now,
        retry=_retry(order),
        asked=order.asked,
    )


def _retry(order: Order) -> Retry:
    if not order.retries:
        return Retry()
    return Retry(left=order.retries, anywhere=order.destination == ANY, among=order.among)


def _refused(attempt: Attempt, found: Preflight) -> Attempt:
    first = found.candidates[0]
    return replace(
        attempt.to(Phase.REFUSED, Outcome.REFUSED),
        blockers=first.blockers,
        warnings=first.warnings,
        expected=first.expected,
        error=blocked(attempt, first.blockers),
    )


def refused_order(order: Order, error: MigrationError, now: float) -> Attempt:
    """Return the attempt of an order that was refused before it got a row, for its result document."""
    fault = Fault(error.code, error.message, error.hint)
    return replace(without_row(order, now), phase=Phase.REFUSED, outcome=Outcome.REFUSED, error=fault)


def cancelled_order(order: Order, now: float) -> Attempt:
    """Return the same of an order that was cancelled before it got a row."""
    return without_row(order, now).to(Phase.ABORTED, Outcome.CANCELLED, reason="cancelled before it began")


def without_row(order: Order, now: float) -> Attempt:
    """Return the attempt of an order that has no row, for what is told of it."""
    return Attempt(
        attempt=order.attempt,
        machine=order.machine,
        name=order.machine,
        source="",
        destination=order.destination,
        policy=order.policy,
        created_at=now,
        updated_at=now,
        asked=order.asked,
    )
