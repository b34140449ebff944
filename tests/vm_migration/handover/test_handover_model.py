"""The real operations and the real recovery decision, explored exhaustively with dying processes and late messages.

Two hosts, two attempts, every order of: the protocol's steps, a cancel, the death of a machine process, a decision
taken on a consistent view and carried out later, in part or not at all, and messages that arrive late or twice. The
agents keep nothing in memory, so that an agent's crash is the same as its doing nothing. Checked in every state: one
running machine at most, none on memory that misses a write, no pair of journals that "cannot be"; and from every state
recovery alone ends with the machine running where a whole copy survives.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from tests.vm_migration.handover.modelled_actions import perform, resume
from tests.vm_migration.handover.modelled_hosts import MACHINE, MAX_DEATHS, Machine, Pending, World, look, process_of
from tests.vm_migration.handover.modelled_protocol import hand_over, steps_of_protocol
from vm_migration.handover import ownership
from vm_migration.handover.evidence import Process, SideView, unreachable
from vm_migration.handover.recovery import Action, Decision, decide
from vm_migration.handover.states import State


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
