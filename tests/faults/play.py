"""Plays one row on a site, from the machine's making to the certainty that nothing is left; returns what was seen.

::

    machine -> order -> hold -> the fault -> the hold ends -> the others give up -> the victim is back
            -> all settles (or `viaduct recover`) -> `viaduct doctor` -> a second move -> the machine's end
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.agents import Agents
from tests.faults import tools
from tests.faults.blocker import Blocker
from tests.faults.expected import Ending, Moment
from tests.faults.fault_site import HOSTS, FaultSite
from tests.faults.holds import get_ready, hold
from tests.faults.observation import Observation
from tests.faults.rows import PAIRED, Back, Row, Victim, When
from tests.faults.sampling import Sampler, double_runs, seconds_to_full_rate
from tests.faults.second_attempt import second_attempt
from tests.faults.settling import BY_ITSELF, ending, settled
from tests.faults.state_messages import StateMessages
from tests.faults.strike import Strike
from tests.faults.trial import DESTINATION, SELDOM_SECONDS, SOURCE, Missed, Trial
from tests.system.attempts import specification
from tests.system.forgetful import differing_pages
from tests.system.processes import ram_file
from vm_migration.errors import MigrationError
from vm_migration.handover.states import State

SERVICE_MANAGER = 0.5
"""Seconds after which a service manager restarts what has died."""
GAVE_UP = 13.0
"""Seconds after which every call that was under way has met its deadline, but for those that go on asking for ever."""
LONGEST = 75.0
_AFTER_RECOVER = 20.0
_RATE_SECONDS = 6.0
_ROW_SECONDS = 5.0
_RUNS = "runs"
_TWO_STAND_STILL = (When.READY, When.RELEASING)


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
    wanted = specification(
        name,
        memory_size="64MiB",
        guest_cpu_dirty_rate="1MiB/s",
        guest_working_set="8MiB",
        dma_rate="256KiB/s",
    )
    notes = _Notes()
    async with site.agents() as agents, contextlib.AsyncExitStack() as stack:
        machine = (await agents.create_machine(SOURCE, wanted.to_json(), wanted.memory.size)).machine
        trial = Trial(site, row, machine, name)
        sockets = {host: site.directory(host, machine).path / "vmm.sock" for host in HOSTS}
        sampler = stack.enter_context(Sampler(sockets))
        await _works(trial, sampler)
        if row.when is When.QUEUED:
            await stack.enter_async_context(Blocker(trial, agents))
        await _strike_and_put_right(trial, notes, sampler)
        await _settle(trial, notes, sampler)
        found = ending(trial, sampler)
        diagnosis = await tools.doctor(site, machine, who=trial.asks)
        to_full_rate = await _full_rate(row, notes, sampler, found)
        states_then = {host: site.states(host, machine) for host in HOSTS}
        told, known = await _told(trial), trial.row_of_it() is not None
        by_word = await _by_word(trial, sampler) if found is Ending.UNRESOLVED else ""
        runs = found in (Ending.COMPLETED, Ending.STAYED) or by_word == _RUNS
        second = await second_attempt(trial, found) if runs else None
        killed = row.victim is Victim.CLI and row.back is Back.NEVER  # its row ends with the next command
        outcome, exit_code = await _told(trial) if killed and known else told
        errors = max((look.errors for look in sampler.looks), default=0)
        attempt = trial.row_of_it()
        await _destroy(trial, agents)
    return Observation(
        row=str(row),
        struck=notes.struck,
        missed=notes.missed,
        moments=tuple(notes.moments),
        ending=found.value,
        outcome=outcome,
        exit_code=exit_code,
        states=states_then,
        settled_by=notes.settled_by,
        settled_s=notes.settled_s,
        double_runs=tuple(double_runs(sampler.looks)),
        looks=len(sampler.looks),
        guest_errors=errors,
        differing_pages=notes.differing or 0,
        compared=notes.differing is not None,
        mismatched=attempt.report.pages_mismatched if attempt is not None and attempt.report is not None else 0,
        by_word=by_word,
        diagnosis=diagnosis,
        second=second,
        remains=tuple(await asyncio.to_thread(_remains, site, ports)),
        to_full_rate_s=to_full_rate,
        to_first_state_s=_first_state(row, notes, trial, states),
        took_s=time.monotonic() - began,
    )


async def _works(trial: Trial, sampler: Sampler) -> None:
    """Wait until the guest has worked for a whole second, so that its rate is known."""

    def known() -> bool:
        look = sampler.last(SOURCE)
        first = next(iter(sampler.looks), None)
        return look is not None and first is not None and look.jobs > 0 and look.dirty_bytes_per_s > 0

    await trial.until(known, "the guest's work", every=SELDOM_SECONDS)


async def _strike_and_put_right(trial: Trial, notes: _Notes, sampler: Sampler) -> None:
    row, strike = trial.row, Strike(trial)
    get_ready(trial, row.when)
    trial.give_order()
    try:
        await hold(trial, row.when)
        if row.when in _TWO_STAND_STILL:
            notes.differing = await asyncio.to_thread(_compare, trial)
        notes.moments.append(trial.moment())
        notes.fault_ns = time.monotonic_ns()
        notes.struck = strike.hit()
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


async def _full_rate(row: Row, notes: _Notes, sampler: Sampler, found: Ending) -> float | None:
    if row.victim is not Victim.SOURCE_AGENT or found is not Ending.STAYED or not notes.fault_ns:
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


def _compare(trial: Trial) -> int:
    files = [ram_file(trial.site.instance(host, trial.machine).vmm.pid, trial.name) for host in (SOURCE, DESTINATION)]
    return len(differing_pages(*files))


async def _destroy(trial: Trial, agents: Agents) -> None:
    for host in HOSTS:
        if trial.machine in trial.site.machines_at(host):
            with contextlib.suppress(MigrationError):  # what is left then is seen
                await agents.act_on_machine(host, trial.machine, "destroy")
    if trial.ordering is not None:
        trial.ordering.cancel()
        await asyncio.wait({trial.ordering})
    if trial.command is not None and trial.command.poll() is None:
        trial.command.kill()
        await asyncio.to_thread(trial.command.wait)


def _remains(site: FaultSite, ports: frozenset[str]) -> list[str]:
    left = site.remains_at_last()
    more = site.listening() - ports
    return [line.replace(str(site.folder), str(Path("SITE"))) for line in left] + [f"port {one}" for one in more]


__all__ = ["DESTINATION", "play"]
