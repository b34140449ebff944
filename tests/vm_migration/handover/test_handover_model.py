"""The real operations and the real recovery decision, explored exhaustively with dying processes and late messages.

Two hosts, two attempts, every order of: the protocol's steps, a cancel, the death of a machine process, a decision
taken on a consistent view and carried out later, in part or not at all, and messages that arrive late or twice. The
agents keep nothing in memory, so that an agent's crash is the same as its doing nothing. Checked in every state: one
running machine at most, none on memory that misses a write, no pair of journals that "cannot be"; and from every state
recovery alone ends with the machine running where a whole copy survives.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from vm_migration.errors import MigrationError
from vm_migration.handover import arrival, departure, ownership
from vm_migration.handover.evidence import Absence, InstanceGone, Process, ProcessAnswer, SideView, unreachable, view
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.recovery import Action, Decision, decide
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import State

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


def perform(world: World, action: Action, attempt: Attempt, views: tuple[SideView, SideView]) -> World:
    """One action of a decision, by the agent whose journal it is, on the peer's view that the decision was taken on."""
    host = attempt.source if action in AT_SOURCE else 1 - attempt.source
    record = world.records[host]
    if record is None or record.attempt != attempt.name:
        return world
    return ACTS[action](world, host, views[0] if host != attempt.source else views[1])


def abort(world: World, host: int, _: SideView) -> World:
    alive = alive_answer(world, host)
    return write(world, host, lambda last: departure.aborted(last, reason="", process=alive))


def release(world: World, host: int, peer: SideView) -> World:
    now = answer(world, host)
    return write(world, host, lambda last: departure.released(last, destination=peer, process=now))


def send_secret(world: World, host: int, _: SideView) -> World:
    record = world.records[host]
    if record is None or record.state is not State.RELEASED or record.attempt is None:
        return world
    return replace(world, secrets_out=world.secrets_out | {record.attempt})


def asked_again(world: World, host: int, peer: SideView) -> SideView:
    """An earlier action of the same decision changed the peer's journal; its new record is the proof."""
    record = world.records[1 - host]
    if record is None or record.attempt != peer.attempt or peer.sight is Absence.UNREACHABLE:
        return peer
    return replace(peer, sight=record.state)


def reclaim(world: World, host: int, peer: SideView) -> World:
    alive, seen = alive_answer(world, host), asked_again(world, host, peer)
    if alive is None:
        return world
    return write(world, host, lambda last: departure.reclaimed(last, destination=seen, process=alive))


def lose_source(world: World, host: int, peer: SideView) -> World:
    now, seen = answer(world, host), asked_again(world, host, peer)
    if not isinstance(now, InstanceGone):
        return world
    return write(world, host, lambda last: departure.lost(last, process=now, destination=seen, reason=""))


def lose_destination(world: World, host: int, _: SideView) -> World:
    now = answer(world, host)
    if not isinstance(now, InstanceGone):
        return world
    return write(world, host, lambda last: arrival.lost(last, process=now, reason=""))


def discard(world: World, host: int, peer: SideView) -> World:
    seen = asked_again(world, host, peer)
    if peer.sight is Absence.UNREACHABLE:
        after = write(world, host, lambda last: arrival.given_up(last, reason=""))
    else:
        after = write(world, host, lambda last: arrival.discarded(last, source=seen, reason=""))
    return free(after, host, State.DISCARDED)


def free(world: World, host: int, state: State) -> World:
    record = world.records[host]
    return world.with_process(host, None) if record is not None and record.state is state else world


def activate(world: World, host: int, _: SideView) -> World:
    record = world.records[host]
    if record is None or record.state is not State.ACTIVATING:
        return world
    return confirm_active(start(world, host), host)


def owed(world: World, host: int, _: SideView) -> World:
    return resume(world, host)


def finish_or_give_up(world: World, host: int, _: SideView) -> World:
    return free(finish(world, host), host, State.DISCARDED)


def wait(world: World, _host: int, _: SideView) -> World:
    return world


AT_SOURCE = frozenset({action for action in Action if action.value.endswith("source")} | {Action.HAND_OFF})


def resume(world: World, host: int) -> World:
    record = world.records[host]
    if record is None or not record.owns or process_of(world, host) is Process.GONE:
        return world
    if record.was_running:
        world = start(world, host)
    alive = alive_answer(world, host)
    return world if alive is None else write(world, host, lambda last: ownership.run_confirmed(last, alive))


def retire(world: World, host: int, peer: SideView) -> World:
    return free(write(world, host, lambda last: ownership.retired(last, peer)), host, State.RETIRED)


def finish(world: World, host: int) -> World:
    record = world.records[host]
    assert record is not None
    gone = answer(world, host)
    if not record.whole:
        return write(world, host, lambda last: arrival.given_up(last, reason=""))
    if isinstance(gone, InstanceGone):
        return write(world, host, lambda last: arrival.lost(last, process=gone, reason=""))
    return write(world, host, lambda last: arrival.ready(last, pause=last.pause, was_running=True))


def confirm_active(world: World, host: int) -> World:
    alive = alive_answer(world, host)
    return world if alive is None else write(world, host, lambda last: arrival.active(last, process=alive))


ACTS: dict[Action, Callable[[World, int, SideView], World]] = {
    Action.ASK: wait,
    Action.RECOVER: wait,
    Action.ABORT_SOURCE: abort,
    Action.RESUME_SOURCE: owed,
    Action.RELEASE_SOURCE: release,
    Action.HAND_OFF: send_secret,
    Action.RECLAIM_SOURCE: reclaim,
    Action.LOSE_SOURCE: lose_source,
    Action.RETIRE_SOURCE: retire,
    Action.FINISH_OR_GIVE_UP: finish_or_give_up,
    Action.ACTIVATE_DESTINATION: activate,
    Action.DISCARD_DESTINATION: discard,
    Action.LOSE_DESTINATION: lose_destination,
}


def hand_over(world: World, attempt: Attempt) -> World:
    """The secret arrives, for the first time or again, now or much later."""
    host = 1 - attempt.source
    if attempt.name not in world.secrets_out or process_of(world, host) is Process.GONE:
        return world
    return write(world, host, lambda last: _activating(last, attempt))


def _activating(record: Record, attempt: Attempt) -> Record:
    record = ownership.match(record, key(attempt))
    return arrival.activating(record, pause=record.pause, secret=SECRETS[attempt.name])


def steps_of_protocol(world: World) -> Iterator[World]:
    """What agents do while everything goes well, each step by itself."""
    for host in (0, 1):
        yield resume(world, host)
        yield begin(world, host)
    for attempt in world.attempts:
        source, destination = attempt.source, 1 - attempt.source
        yield prepare(world, attempt)
        yield spawn(world, attempt)
        yield hand_over(world, attempt)
        yield retire(world, source, look(world, destination, attempt))
        if look(world, source, attempt).sight is State.RETIRED:
            yield write(world, destination, ownership.former_retired)
        record = world.records[source]
        if record is not None and record.attempt == attempt.name:
            yield from steps_of_source(world, attempt, record)
        arriving = world.records[destination]
        if arriving is not None and arriving.attempt == attempt.name:
            if arriving.state is State.PREPARED and arriving.whole:
                yield finish(world, destination)
            if arriving.state is State.PREPARED and not arriving.whole:
                yield finish_or_give_up(world, destination, unreachable(attempt.name))
            if arriving.state is State.ACTIVATING:
                yield start(world, destination)
                yield confirm_active(world, destination)


def steps_of_source(world: World, attempt: Attempt, record: Record) -> Iterator[World]:
    host, process = attempt.source, world.processes[attempt.source]
    peer = look(world, 1 - host, attempt)
    if process is not None and record.state is State.OUTGOING and process.alive:
        if process.mode == "running":
            yield world.with_process(host, replace(process, mode="stopped", pause=record.pause + 1))
        else:
            yield write(world, host, lambda last: departure.stopped(last, pause=process.pause, bound_ms=1000))
    if process is not None and record.state is State.STOPPED and process.alive and peer.sight is State.PREPARED:
        yield copy(world, host, process)
    yield release(world, host, peer)
    yield abort(world, host, peer)
    yield send_secret(world, host, peer)


def copy(world: World, host: int, process: Machine) -> World:
    """The last round: the destination holds what the source holds at this stop."""
    there = world.processes[1 - host]
    if there is None or process_of(world, 1 - host) is Process.GONE:
        return world
    world = world.with_process(1 - host, replace(there, fresh=process.fresh, pause=process.pause))
    return write(world, 1 - host, lambda last: arrival.received_whole(last, pause=process.pause))


def begin(world: World, host: int) -> World:
    record = world.records[host]
    for attempt in world.attempts:
        if record is not None and attempt.source == host:
            again = write(world, host, partial(_begin, attempt=key(attempt, 0)))
            assert again == world, "A late Begin starts an attempt anew"
    if record is None or len(world.attempts) == MAX_ATTEMPTS or process_of(world, host) is Process.GONE:
        return world
    new = Attempt(f"attempt-{len(world.attempts)}", host, record.highest_epoch + 1)
    after = write(world, host, lambda last: _begin(last, key(new, 0)))
    return world if after == world else replace(after, attempts=(*world.attempts, new))


def _begin(record: Record, attempt: AttemptKey) -> Record:
    return departure.begin(
        record, attempt, destination="", was_running=True, secret=SECRETS[attempt.attempt], policy=""
    )


def prepare(world: World, attempt: Attempt) -> World:
    host = 1 - attempt.source
    hashed = secret_hash(SECRETS[attempt.name])
    try:
        record = arrival.prepared(world.records[host], key(attempt), source="", secret_hash=hashed, specification="")
    except MigrationError:
        return world
    return world.with_record(host, record)


def spawn(world: World, attempt: Attempt) -> World:
    host = 1 - attempt.source
    record = world.records[host]
    if record is None or record.state is not State.PREPARED or record.instance or record.attempt != attempt.name:
        return world
    instance = f"{attempt.name} at {host}"
    bound = write(world, host, lambda last: ownership.bound_to(last, instance))
    return bound.with_process(host, Machine(instance, "incoming", fresh=False))


def decisions(world: World) -> Iterator[tuple[int, Decision, tuple[SideView, SideView]]]:
    for at, attempt in enumerate(world.attempts):
        source, destination = look(world, attempt.source, attempt), look(world, 1 - attempt.source, attempt)
        dark = unreachable(attempt.name)
        for views in ((source, destination), (dark, destination), (source, dark)):
            for late in (False, True):
                yield at, decide(*views, past_deadline=late, over_pause_bound=late), views


def successors(world: World) -> Iterator[World]:
    yield from steps_of_protocol(world)
    if world.deaths < MAX_DEATHS:
        for host in (0, 1):
            process = world.processes[host]
            if process is not None and process.alive:
                yield replace(
                    world.with_process(host, replace(process, mode="gone", fresh=False)), deaths=world.deaths + 1
                )
    pending = world.pending
    if pending is not None:
        rest = replace(pending, actions=pending.actions[1:]) if pending.actions[1:] else None
        after = perform(world, pending.actions[0], world.attempts[pending.attempt], pending.views)
        yield replace(after, pending=rest)
        yield replace(world, pending=None)
        return
    for at, decision, views in decisions(world):
        assert Action.PAGE not in decision.actions, ("A pair that cannot be", views)
        if not set(decision.actions) <= {Action.ASK, Action.RECOVER}:
            yield replace(world, pending=Pending(at, decision.actions, views))


def recover(world: World) -> World:
    """One round of recovery with links and agents back: nothing but decisions, owed run states and handoffs."""
    for attempt in world.attempts:
        views = look(world, attempt.source, attempt), look(world, 1 - attempt.source, attempt)
        for action in decide(*views, past_deadline=True).actions:
            world = perform(world, action, attempt, views)
        world = hand_over(world, attempt)
    for host in (0, 1):
        world = resume(world, host)
    return world


def is_settled(world: World) -> bool:
    """Whether the machine runs at its owner, or no whole copy of it is left, or only an operator can decide."""
    for host in (0, 1):
        record, process = world.records[host], world.processes[host]
        if process is not None and process.mode == "running" and record is not None and record.owns:
            return True
        if record is not None and record.state is State.ACTIVATING and process_of(world, host) is Process.GONE:
            return True
    return not any(process is not None and process.alive and process.fresh for process in world.processes)


def check_recovers(world: World, good: set[World]) -> None:
    trail = []
    for _ in range(12):
        trail.append(world)
        if world in good or is_settled(world):
            good.update(trail)
            return
        world = recover(world)
    raise AssertionError(("Recovery does not end", trail[0]))


def test_at_most_one_host_runs_no_write_is_missed_and_recovery_ends() -> None:
    owner = ownership.create(MACHINE, instance="first", was_running=True, specification="")
    first = World((owner, None), (Machine("first", "stopped", fresh=True), None))
    seen, queue, good = {first}, deque([first]), set[World]()
    states: set[tuple[State | None, ...]] = set()
    while queue:
        world = queue.popleft()
        states.add(tuple(None if record is None else record.state for record in world.records))
        if world.pending is None:
            check_recovers(world, good)
        for following in successors(world):
            if following not in seen:
                seen.add(following)
                queue.append(following)
    assert len(seen) > 50_000
    assert (State.RETIRED, State.ACTIVE) in states
    assert (State.ACTIVE, State.RETIRED) in states
    assert (State.RECLAIMED, State.LOST) in states
    assert (State.LOST, State.ACTIVE) not in states
