"""What somebody asks for: a host to be emptied, or filled again; and the plan that comes of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.agents import Agents
from orchestrator.attempt import Asked
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.plan import (
    MOST_PARALLEL,
    USUAL_RETRIES,
    Evacuation,
    Kind,
    Move,
    left_by,
    new_evacuation_id,
    noted,
)
from orchestrator.inventory import Survey
from orchestrator.policy import MigrationPolicy, require_offered
from orchestrator.queueing import Slots
from orchestrator.retrying import MOST_RETRIES
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import InvalidInput, Refused
from vm_migration.machine.windows import require_measurable


@dataclass(frozen=True, slots=True)
class EvacuationOrder:
    """One order; `parallel` 0: as many at once as the host is configured for."""

    kind: Kind
    host: str
    to: tuple[str, ...] = ()
    parallel: int = 0
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)
    asked: Asked = field(default_factory=Asked)
    priority: int = 0
    retries: int = USUAL_RETRIES
    evacuation: str = field(default_factory=new_evacuation_id)


def require_sensible(order: EvacuationOrder, agents: Agents) -> None:
    """Accept what can be asked for.

    Raises:
        InvalidInput: An unknown host, a host that is to take its own machines, or a number out of its bounds.
    """
    agents.require(order.host)
    for host in order.to:
        agents.require(host)
    if order.host in order.to:
        text = f"{order.host} is to be left by its machines and cannot take them"
        raise InvalidInput("same-host", text, "Name other hosts with --to, or none")
    if not 0 <= order.parallel <= MOST_PARALLEL:
        text = f"{order.parallel} machines at once are not within 1 and {MOST_PARALLEL}"
        raise InvalidInput("invalid-parallel", text, "Choose another --parallel")
    if order.retries > MOST_RETRIES:
        raise InvalidInput("too-many-retries", f"{order.retries} retries are more than {MOST_RETRIES}", "Ask for fewer")
    require_offered(order.policy)
    require_measurable(order.asked.measure_ms)


async def machines_on(agents: Agents, host: str) -> dict[str, MachineStatus]:
    """Return the machines that a host owns, by UUID.

    Raises:
        Unreachable: It does not answer.
    """
    return {one.machine: one for one in (await told_by(agents, host)).owned}


async def told_by(agents: Agents, host: str) -> Survey:
    """Return what one host tells of its machines.

    Raises:
        Unreachable: It does not answer.
    """
    return Survey(await agents.list_machines(host), {})


def to_leave(
    order: EvacuationOrder, machines: Mapping[str, MachineStatus], coming: Iterable[Move], usual: Slots, now: float
) -> Evacuation:
    """Return the plan of an evacuation: of the machines that are there, and of those that are `coming`, after them."""
    there = [Move(one.machine, one.name, one.ram_bytes) for one in machines.values()]
    later = [one for one in coming if one.machine not in machines]
    moves = (*sorted(there, key=_by_name), *sorted(later, key=_by_name))
    return noted(_plan(order, moves, order.parallel or usual.out_of(order.host), now), (), usual)


def _by_name(move: Move) -> tuple[str, str]:
    return move.name, move.machine


def to_return(order: EvacuationOrder, kept: KeptEvacuations, usual: Slots, now: float) -> Evacuation:
    """Return the plan of a restore. Blocks, as it reads.

    Raises:
        Refused: Nothing is known that left the host.
    """
    last = next((one for one in kept.all() if one.host == order.host and one.kind is Kind.EVACUATE), None)
    if last is None:
        hint = "Move machines there one by one: viaduct migrate MACHINE --to HOST"
        raise Refused("nothing-to-restore", f"No evacuation of {order.host} is known", hint)
    plan = _plan(order, left_by(last), order.parallel or usual.into(order.host), now)
    return noted(replace(plan, undoes=last.evacuation), (), usual)


def _plan(order: EvacuationOrder, moves: tuple[Move, ...], parallel: int, now: float) -> Evacuation:
    return Evacuation(
        evacuation=order.evacuation,
        kind=order.kind,
        host=order.host,
        moves=moves,
        created_at=now,
        updated_at=now,
        to=order.to,
        parallel=parallel,
        priority=order.priority,
        retries=order.retries,
        policy=order.policy,
        asked=order.asked,
    )
