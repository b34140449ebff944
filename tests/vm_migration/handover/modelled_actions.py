"""What an agent does on its own host when a recovery decision says so: the real operations on a modelled host."""

from collections.abc import Callable
from dataclasses import replace

from tests.vm_migration.handover.modelled_hosts import Attempt, World, alive_answer, answer, process_of, start, write
from vm_migration.handover import arrival, departure, ownership
from vm_migration.handover.evidence import Absence, InstanceGone, Process, SideView
from vm_migration.handover.recovery import Action
from vm_migration.handover.states import State


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
