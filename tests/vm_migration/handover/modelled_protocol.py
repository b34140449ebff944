"""What agents do while everything goes well, each step of the protocol by itself."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tests.vm_migration.handover.modelled_actions import (
    abort,
    confirm_active,
    finish,
    finish_or_give_up,
    release,
    resume,
    retire,
    send_secret,
)
from tests.vm_migration.handover.modelled_hosts import (
    MAX_ATTEMPTS,
    SECRETS,
    Attempt,
    Machine,
    World,
    key,
    look,
    process_of,
    start,
    write,
)
from vm_migration.errors import MigrationError
from vm_migration.handover import arrival, departure, ownership
from vm_migration.handover.evidence import Process, unreachable
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import State


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
