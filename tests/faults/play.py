"""Plays one row on a site, from the machine's making to the certainty that nothing is left; returns what was seen.

::

    machine -> order -> hold -> the fault -> the hold ends -> the others give up -> the victim is back
            -> all settles (or `viaduct recover`) -> `viaduct doctor` -> a second move -> the machine's end
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchestrator.agents import Agents
from tests.faults import tools
from tests.faults.asleep import (
    changed_where_nobody_writes,
    changed_while_it_slept,
    fall_asleep,
    sleeps,
    taken_away,
    woken_by_hand,
)
from tests.faults.blocker import Blocker
from tests.faults.expected import Ending, Moment
from tests.faults.fault_site import HOSTS, FaultSite
from tests.faults.holds import get_ready, hold
from tests.faults.observation import Observation
from tests.faults.qemu_rows import LOOK_SECONDS as QEMU_LOOK_SECONDS
from tests.faults.qemu_rows import counted, qemu_machine, undone_counts
from tests.faults.reboot_holds import hold_reboot
from tests.faults.rows import PAIRED, Back, Deed, Ordered, Row, Victim, When
from tests.faults.sampling import EVERY_SECONDS, Sampler, double_runs, seconds_to_full_rate, undone
from tests.faults.second_attempt import second_attempt
from tests.faults.settling import BY_ITSELF, ending, settled
from tests.faults.state_messages import StateMessages
from tests.faults.strike import Strike
from tests.faults.trial import DESTINATION, SELDOM_SECONDS, SOURCE, Missed, Trial
from tests.faults.update_holds import hold_update
from tests.faults.updated import left_of_update, pipes_of
from tests.system.attempts import specification
from tests.system.forgetful import differing_pages
from tests.system.processes import ram_file
from vm_migration.errors import MigrationError
from vm_migration.handover.states import State
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import CONTROL_SOCKET, NEXT_CONTROL_SOCKET

SERVICE_MANAGER = 0.5
"""Seconds after which a service manager restarts what has died."""
GAVE_UP = 13.0
"""Seconds after which every call that was under way has met its deadline, but for those that go on asking for ever."""
LONGEST = 75.0
_AFTER_RECOVER = 20.0
_RATE_SECONDS = 6.0
_ROW_SECONDS = 5.0
_WORKS_SECONDS = 60.0
"""For a kernel to boot, beside as much other work as there is."""
_RUNS = "runs"
_RUNNING = (Ending.COMPLETED, Ending.STAYED)
_TWO_STAND_STILL = (When.READY, When.RELEASING)
_ANEW = f"{SOURCE}, anew"
"""Of mode reboot: one process after another listens at the same path."""


@dataclass
class _Notes:
    """What is noted on the way."""

    struck: bool = True
    missed: str = ""
    moments: list[Moment] = field(default_factory=list)
    differing: int | None = None
    fault_ns: int = 0
    back_at: float = 0.0
    settled_by: str = ""
    settled_s: float = 0.0


async def play(site: FaultSite, states: StateMessages, row: Row, name: str) -> Observation:
    """Play a row on a site where everybody runs."""
    began = time.monotonic()
    ports = site.listening()
    wanted, notes = _wanted(site, row, name), _Notes()
    async with site.agents() as agents, contextlib.AsyncExitStack() as stack:
        machine = (await agents.create_machine(SOURCE, wanted.to_json(), wanted.memory.size)).machine
        sampler = stack.enter_context(_sampler(site, machine, row))
        before = site.instance(SOURCE, machine)
        trial = Trial(site, row, machine, name, wanted, sampler=sampler, before=before)
        await _works(trial, sampler)
        pipes = pipes_of(site.source(SOURCE).pid)
        if row.in_files:
            await fall_asleep(trial)
        if row.when is When.QUEUED:
            await stack.enter_async_context(Blocker(trial, agents))
        await _strike_and_put_right(trial, notes, sampler)
        await _settle(trial, notes, sampler)
        seen = await _looked_at(trial, notes, sampler)
        left = await asyncio.to_thread(_left, trial, pipes) if seen.ending in _RUNNING else ()
        seen = await _moved_once_more(trial, seen)
        attempt = trial.row_of_it()
        await _destroy(trial, agents)
        files = taken_away(trial) if row.in_files else ()
    report = None if attempt is None else attempt.report
    return msgspec.structs.replace(
        seen,
        double_runs=tuple(double_runs(sampler.looks)),
        looks=len(sampler.looks),
        guest_errors=max((look.errors for look in sampler.looks), default=0),
        mismatched=0 if report is None else report.pages_mismatched,
        remains=(*left, *files, *await asyncio.to_thread(_remains, site, ports)),
        to_first_state_s=_first_state(row, notes, trial, states),
        took_s=time.monotonic() - began,
    )


def _wanted(site: FaultSite, row: Row, name: str) -> MachineSpecification:
    if row.qemu:
        return qemu_machine(site.folder, name, row)
    changes: dict[str, object] = {"memory_size": "64MiB", "guest_cpu_dirty_rate": "1MiB/s", "guest_working_set": "8MiB"}
    if row.in_files:
        changes |= {"memory_backing": "file", "memory_path": str(site.folder / f"ram-{name}")}
    return specification(name, dma_rate="256KiB/s", **changes)


async def _looked_at(trial: Trial, notes: _Notes, sampler: Sampler) -> Observation:
    """Return what is seen when all has settled; a machine that only an operator can decide on is decided on."""
    found = ending(trial, sampler)
    if trial.row.in_files and found in _RUNNING:
        await _rouse(trial, notes, found)
    diagnosis = await tools.doctor(trial.site, trial.machine, who=trial.asks)
    to_full_rate = await _full_rate(trial.row, notes, sampler, found)
    states_then = {host: trial.site.states(host, trial.machine) for host in HOSTS}
    outcome, exit_code = await _told(trial)
    return Observation(
        row=str(trial.row),
        struck=notes.struck,
        missed=notes.missed,
        moments=tuple(notes.moments),
        ending=found.value,
        outcome=outcome,
        exit_code=exit_code,
        states=states_then,
        settled_by=notes.settled_by,
        settled_s=notes.settled_s,
        undone=_undone(trial, sampler),
        works_on=found not in _RUNNING or await _works_on(trial, sampler, found),
        differing_pages=notes.differing or 0,
        compared=notes.differing is not None,
        by_word=await _by_word(trial, sampler) if found is Ending.UNRESOLVED else "",
        diagnosis=diagnosis,
        to_full_rate_s=to_full_rate,
    )


async def _moved_once_more(trial: Trial, seen: Observation) -> Observation:
    """Move the machine where it runs; a command that was killed has its row ended by the next one."""
    known = trial.row_of_it() is not None
    if seen.ending in _RUNNING or seen.by_word == _RUNS:
        seen = msgspec.structs.replace(seen, second=await second_attempt(trial, Ending(seen.ending)))
    if trial.row.victim is Victim.CLI and trial.row.back is Back.NEVER and known:
        outcome, exit_code = await _told(trial)
        seen = msgspec.structs.replace(seen, outcome=outcome, exit_code=exit_code)
    return seen


def _undone(trial: Trial, sampler: Sampler) -> tuple[str, ...]:
    if trial.row.qemu:
        return undone_counts(trial.site.folder, trial.name)
    return tuple(undone(sampler.looks)) if trial.row.updates else ()


def _left(trial: Trial, pipes: int) -> Sequence[str]:
    if not trial.row.updates:
        return ()
    waits = trial.row.in_files and trial.waits_at.exists()
    left = ["a file by which a machine waits that runs"] if waits else []
    return [*left, *left_of_update(trial, pipes)]


async def _works(trial: Trial, sampler: Sampler) -> None:
    """Wait until the guest has worked for a whole second, so that its rate is known."""

    def known() -> bool:
        if trial.row.qemu:
            return counted(trial.site.folder, trial.name) > 0
        look = sampler.last(SOURCE)
        first = next(iter(sampler.looks), None)
        return look is not None and first is not None and look.jobs > 0 and look.dirty_bytes_per_s > 0

    await trial.until(known, "the guest's work", _WORKS_SECONDS, every=SELDOM_SECONDS)


async def _strike_and_put_right(trial: Trial, notes: _Notes, sampler: Sampler) -> None:
    row, strike = trial.row, Strike(trial)
    if not row.updates:
        get_ready(trial, row.when)
    trial.give_order()
    try:
        if row.updates and isinstance(row.when, When):
            await (hold_reboot if row.in_files else hold_update)(trial, row.when)
        else:
            await hold(trial, row.when)
        notes.differing = await asyncio.to_thread(_compared_at_rest, trial)
        notes.moments.append(trial.moment())
        notes.fault_ns = time.monotonic_ns()
        notes.struck = await trial.wish_for_its_end() if row.deed is Deed.CANCEL else strike.hit()
        notes.moments.append(trial.moment())
    except (Missed, MigrationError) as error:
        notes.missed = f"{error}; {trial.order_error}".rstrip("; ")
    trial.let_go(strike.pids if row.back is not Back.NEVER else frozenset())
    if notes.missed or not notes.struck:
        return
    await _wait_to_put_right(trial, row)
    notes.back_at = time.monotonic()
    await asyncio.to_thread(strike.put_right)


async def _wait_to_put_right(trial: Trial, row: Row) -> None:
    if row.back is Back.SOON:
        await asyncio.sleep(SERVICE_MANAGER)  # it is what a service manager waits
    elif row.back in (Back.LATE, Back.LAST):
        with contextlib.suppress(Missed):  # they may also go on asking for ever, as after RELEASED
            patience = GAVE_UP if row.back is Back.LATE else LONGEST
            await trial.until(lambda: _given_up(trial), "an end", patience, every=SELDOM_SECONDS)


def _given_up(trial: Trial) -> bool:
    row = trial.row_of_it()
    return row is not None and row.outcome is not None


async def _settle(trial: Trial, notes: _Notes, sampler: Sampler) -> None:
    began = time.monotonic()
    if trial.command is not None and trial.row.back is not Back.NEVER:
        await asyncio.to_thread(trial.command.wait, LONGEST)
    words = await settled(trial, sampler, BY_ITSELF)
    notes.settled_by = "itself"
    if words or ending(trial, sampler) is Ending.UNRESOLVED:
        done = await tools.recover(trial.site, who=trial.asks)
        words = await settled(trial, sampler, _AFTER_RECOVER)
        notes.settled_by = f"nothing: {words}; recover: {done}" if words else "recover"
    notes.settled_s = time.monotonic() - began


async def _by_word(trial: Trial, sampler: Sampler) -> str:
    """Have an operator decide on what nobody can know: the source takes its copy back, as of the stop."""
    said = await tools.recover_fenced(trial.site, DESTINATION, trial.name, who=trial.asks)

    def taken() -> bool:
        here, there = trial.record(SOURCE), trial.record(DESTINATION)
        at_rest = here is not None and here.state is State.TAKEN and there is not None and there.closed
        return at_rest and ending(trial, sampler) is Ending.STAYED

    try:
        await trial.until(taken, "the machine's life at its source", every=SELDOM_SECONDS)
    except Missed as error:
        return f"{error}; recover: {said}"
    return _RUNS


async def _told(trial: Trial) -> tuple[str, int | None]:
    if trial.ordering is not None:
        await asyncio.wait({trial.ordering}, timeout=1)
    if trial.row.victim in PAIRED:  # an etcd that has just elected another leader refuses for a moment
        with contextlib.suppress(Missed):
            await trial.until(lambda: trial.row_of_it() is not None, "the row", _ROW_SECONDS, every=SELDOM_SECONDS)
    row = trial.row_of_it()
    outcome = "" if row is None or row.outcome is None else row.outcome.value
    killed = trial.row.victim is Victim.CLI and trial.row.back is Back.NEVER
    code = None if trial.command is None or killed else trial.command.poll()
    return outcome, code


async def _works_on(trial: Trial, sampler: Sampler, found: Ending) -> bool:
    """Tell whether the guest does more jobs than it had done when all had settled."""
    host = DESTINATION if found is Ending.COMPLETED and not trial.row.updates else SOURCE
    done = max((look.jobs for look in sampler.looks), default=0)
    far = counted(trial.site.folder, trial.name) if trial.row.qemu else 0

    def more() -> bool:
        if trial.row.qemu:
            return counted(trial.site.folder, trial.name) > far
        look = sampler.last(host)
        return look is not None and look.run_state == "running" and look.jobs > done

    try:
        await trial.until(more, "the guest's work", every=SELDOM_SECONDS)
    except Missed:
        return False
    return True


async def _full_rate(row: Row, notes: _Notes, sampler: Sampler, found: Ending) -> float | None:
    if (
        row.ordered is not Ordered.MOVE
        or row.victim is not Victim.SOURCE_AGENT
        or found is not Ending.STAYED
        or not notes.fault_ns
    ):
        return None
    until = time.monotonic() + _RATE_SECONDS
    while True:
        mine = [look for look in sampler.looks if look.host == SOURCE]
        seconds = seconds_to_full_rate(mine, notes.fault_ns)
        if seconds is not None or time.monotonic() > until:
            return seconds
        await asyncio.sleep(0.1)  # the guest's own second goes by


def _first_state(row: Row, notes: _Notes, trial: Trial, states: StateMessages) -> float | None:
    attempt = trial.row_of_it()
    if row.victim is not Victim.ORCHESTRATOR or row.back is Back.NEVER or not notes.back_at or attempt is None:
        return None
    heard = states.first_of(attempt.attempt, notes.back_at)
    return None if heard is None else heard - notes.back_at


def _compared_at_rest(trial: Trial) -> int | None:
    """Return how many pages are not as they must be where nobody writes to any; None where somebody may."""
    row = trial.row
    if row.ordered is Ordered.MOVE and row.when in _TWO_STAND_STILL:
        return _compare(trial)
    held = row.in_files and isinstance(row.when, When)
    return changed_while_it_slept(trial) if held and sleeps(trial.moment()) else None


async def _rouse(trial: Trial, notes: _Notes, found: Ending) -> None:
    """Look at RAM once more where the guest does not write, and have it awake."""
    changed = await asyncio.to_thread(changed_where_nobody_writes, trial)
    notes.differing = changed + (notes.differing or 0)
    if found is Ending.STAYED:
        await woken_by_hand(trial)


def _compare(trial: Trial) -> int:
    files = [ram_file(trial.site.instance(host, trial.machine).vmm.pid, trial.name) for host in (SOURCE, DESTINATION)]
    return len(differing_pages(*files))


async def _destroy(trial: Trial, agents: Agents) -> None:
    for host in HOSTS:
        if trial.machine in trial.site.machines_at(host):
            with contextlib.suppress(MigrationError):  # what is left then is seen
                await agents.act_on_machine(host, trial.machine, "destroy")
    asked = {task for task in (trial.ordering, trial.cancelling) if task is not None}
    for task in asked:
        task.cancel()
    if asked:
        await asyncio.wait(asked)
    if trial.command is not None and trial.command.poll() is None:
        trial.command.kill()
        await asyncio.to_thread(trial.command.wait)


def _sampler(site: FaultSite, machine: str, row: Row) -> Sampler:
    """Return where the machine's processes may listen: one on each host, and one that is to have it on its own."""
    found = {host: site.directory(host, machine).path / CONTROL_SOCKET for host in HOSTS}
    sockets = {**found, f"{SOURCE}, next": found[SOURCE].with_name(NEXT_CONTROL_SOCKET)}
    if row.in_files:
        sockets[_ANEW] = found[SOURCE]
    return Sampler(sockets, QEMU_LOOK_SECONDS if row.qemu else EVERY_SECONDS, anew=frozenset({_ANEW}))


def _remains(site: FaultSite, ports: frozenset[str]) -> list[str]:
    left = site.remains_at_last()
    more = site.listening() - ports
    return [line.replace(str(site.folder), str(Path("SITE"))) for line in left] + [f"port {one}" for one in more]


__all__ = ["DESTINATION", "play"]
