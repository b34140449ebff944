"""Two hosts of the explored handover: their journals, their machine processes, and what each can see of the other.

Agents keep nothing in memory: all that there is of a host is here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import InstanceGone, Process, ProcessAnswer, SideView, unreachable, view
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.recovery import Action

T = TypeVar("T")
MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
MAX_ATTEMPTS = 2
MAX_DEATHS = 2
SECRETS = {f"attempt-{number}": bytes([number]) * 32 for number in range(MAX_ATTEMPTS)}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine process: its instance, whether it runs, its stop, whether its RAM is the guest's latest."""

    instance: str
    mode: str  # incoming | stopped | running | gone
    fresh: bool
    pause: int = 0

    @property
    def alive(self) -> bool:
        return self.mode != "gone"


@dataclass(frozen=True, slots=True)
class Attempt:
    name: str
    source: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A decision on its way: the rest of its actions, and the views that it was taken on."""

    attempt: int
    actions: tuple[Action, ...]
    views: tuple[SideView, SideView]


@dataclass(frozen=True, slots=True)
class World:
    records: tuple[Record | None, Record | None]
    processes: tuple[Machine | None, Machine | None]
    attempts: tuple[Attempt, ...] = ()
    secrets_out: frozenset[str] = frozenset()
    pending: Pending | None = None
    deaths: int = 0

    def with_record(self, host: int, record: Record | None) -> "World":
        return replace(self, records=_put(self.records, host, record))

    def with_process(self, host: int, process: Machine | None) -> "World":
        return replace(self, processes=_put(self.processes, host, process))


def _put(pair: tuple[T, T], at: int, value: T) -> tuple[T, T]:
    return (value, pair[1]) if at == 0 else (pair[0], value)


def key(attempt: Attempt, epoch: int | None = None) -> AttemptKey:
    return AttemptKey(MACHINE, attempt.name, attempt.epoch if epoch is None else epoch, 1)


def process_of(world: World, host: int) -> Process:
    record, process = world.records[host], world.processes[host]
    alive = record is not None and process is not None and process.alive and process.instance == record.instance
    return Process.ALIVE if alive else Process.GONE


def look(world: World, host: int, attempt: Attempt) -> SideView:
    record = world.records[host]
    if record is None:
        return unreachable(attempt.name)
    return view(record, attempt.name, attempt.epoch, process_of(world, host))


def answer(world: World, host: int) -> ProcessAnswer | InstanceGone:
    record, process = world.records[host], world.processes[host]
    assert record is not None
    if process is None or process_of(world, host) is Process.GONE:
        return InstanceGone(record.instance)
    return ProcessAnswer(process.instance, record.controller, process.mode == "running", process.pause)


def alive_answer(world: World, host: int) -> ProcessAnswer | None:
    found = answer(world, host)
    return found if isinstance(found, ProcessAnswer) else None


def start(world: World, host: int) -> World:
    """Start the guest, or find it running; here the two promises are checked."""
    process, other = world.processes[host], world.processes[1 - host]
    assert process is not None
    if process_of(world, host) is Process.GONE or process.mode == "running":
        return world
    assert other is None or other.mode != "running", "Two hosts run the machine"
    assert process.fresh, "A guest runs on memory that misses a write"
    world = world.with_process(host, replace(process, mode="running"))
    return world if other is None else world.with_process(1 - host, replace(other, fresh=False))


def write(world: World, host: int, change: Callable[[Record], Record]) -> World:
    record = world.records[host]
    if record is None:
        return world
    try:
        return world.with_record(host, change(record))
    except MigrationError:
        return world
