"""How a schedule may end once every link is healed and every process is back: the table of handover.md, from above."""

from enum import StrEnum
from typing import Final

from orchestrator.attempt import Outcome
from tests.simulation.drivers import Row
from tests.simulation.world import World
from vm_migration.handover.states import OPEN, OWNING, State

_GONE: Final = frozenset({State.RETIRED, State.DISCARDED, State.LOST, State.DESTROYED})


class Ending(StrEnum):
    """Where the machine is at the end."""

    RUNS = "runs"
    LOST = "lost"
    DIED = "died"
    """Its owner's process was ended by a fault; the journal says who owned it."""
    UNRESOLVED = "unresolved"
    """Where handover.md leaves it to an operator."""


def settled(world: World) -> bool:
    """Whether nothing is left to be done without a person."""
    running = world.running()
    agents = all(host.up(side) for host in world.hosts.values() for side in ("source", "dest"))
    orchestrators = all(each.ready for each in world.orchestrators)
    open_records = any(not record.closed for record in world.records.values())
    if not agents or not orchestrators or open_records or world.superseded() or leftovers(world):
        return False
    if running:
        owner = world.records.get(running[0].host.name)
        if owner is None or owner.state not in OWNING or not owner.former_retired or not owner.run_confirmed:
            return False
        if any(record.owns and host != running[0].host.name for host, record in world.records.items()):
            return False  # it has not given way yet
    elif _whole_copies(world):
        return False
    if any(not row.ended for row in _rows(world)):
        return False
    read = [world.readable(host) for host in world.hosts.values()]  # a record may stand that is not durable
    return all(record is None or record.closed for record in read)


def leftovers(world: World) -> list[str]:
    """Return what is left of the machine at hosts whose journal says that nothing of it is there."""
    gone = {host for host, record in world.records.items() if record.state in _GONE}
    alive = [f"{each.instance.token} at {each.host.name}" for each in world.invariants.processes if each.alive]
    left = [text for text in alive if text.rpartition(" ")[2] in gone]
    return left + [f"a folder at {host}" for host in sorted(gone) if world.hosts[host].machines.folders]


def judged(world: World) -> Ending:
    """Say how it ended; an end that the table does not name breaks a rule."""
    running, records = world.running(), world.records
    states = {host: str(record.state) for host, record in records.items()}
    if running:
        if not settled(world) and world.invariants.rolled_back:
            return Ending.UNRESOLVED
        told = [row.attempt for row in _rows(world) if row.outcome is Outcome.LOST]
        if told and not world.invariants.rolled_back:
            _broken(world, "told-lost", f"The machine runs at {running[0].host.name}, and {told} are told as lost")
        if not settled(world):
            rows = [(row.phase, row.reason) for row in _rows(world) if not row.ended]
            if left := leftovers(world):
                _broken(world, "left-over", f"Processes of a machine that is not there: {left}; {states}")
                return Ending.RUNS
            _broken(world, "never-quiet", f"The machine runs at {running[0].host.name}; {states}; rows {rows}")
        return Ending.RUNS
    whole = _whole_copies(world)
    closed = not any(record.state in OPEN for record in records.values())
    if _operators(world) and (whole or not closed):
        return Ending.UNRESOLVED
    if whole:
        _broken(world, "none-running", f"Nobody runs it, and {whole} hold it whole: {states}")
    if not closed:
        _broken(world, "never-closed", f"Nobody holds it whole, and an attempt is open: {states}")
    owners = [host for host, record in records.items() if record.state in OWNING]
    return Ending.DIED if owners else Ending.LOST


def _rows(world: World) -> list[Row]:
    return [row for each in world.orchestrators for row in each.rows()]


def stands(world: World) -> tuple[object, ...]:
    """Return what changes as long as anything goes on."""
    rows = [(row.attempt, row.phase, row.outcome, row.term) for row in _rows(world)]
    records = [(host, record.state, record.attempt, record.former_retired) for host, record in world.records.items()]
    return (*rows, *records, world.invariants.runs_seen)


def _whole_copies(world: World) -> list[str]:
    return [each.host.name for each in world.invariants.processes if each.whole]


def left_to_an_operator(world: World) -> str | None:
    """Return the host whose machine process is gone, and of which nobody can know whether it ran there."""
    for host, record in world.records.items():
        if record.state is State.ACTIVATING and not world.lives(host, record.instance):
            return host
    return None


def _operators(world: World) -> bool:
    """Whether the journals stand where only an operator decides."""
    return bool(world.invariants.rolled_back) or left_to_an_operator(world) is not None


def _broken(world: World, rule: str, text: str) -> None:
    world.invariants.broken(rule, text)
