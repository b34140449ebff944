"""`viaduct update`: machines go on in processes of the installed version, on the hosts that they are on."""

import time
from dataclasses import replace
from typing import Final

import click

from orchestrator.admission import Order, refused_order, without_row
from orchestrator.attempt import Asked, Attempt, Outcome
from orchestrator.commands.migrate import interrupts
from orchestrator.errors import complaint
from orchestrator.evacuation.order import machines_on
from orchestrator.inventory import resolve, survey
from orchestrator.preflight import Candidate, with_findings
from orchestrator.render.progress import LiveProgress
from orchestrator.render.updates import UpdatesProgress, show_update, show_updates
from orchestrator.site import agents_of, open_desk
from orchestrator.updating.asking import ask_update, ask_update_of_many
from orchestrator.updating.document import update_document, updates_document
from orchestrator.updating.fleet import MOST_PARALLEL, FleetResult, exit_code, sorted_out, update_all
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.complaint import Complaint, complain
from vm_migration.errors import InvalidInput, Refused

MODES: Final = ("transfer", "exec", "reboot")
_CLOSING: Final = {
    Outcome.FAILED: "The machine runs in the process that it had; update it again",
    Outcome.CANCELLED: "The machine runs in the process that it had",
    Outcome.REFUSED: "Nothing was done; see all of it with --dry-run",
    Outcome.UNRESOLVED: "When its agent answers again: viaduct recover",
    Outcome.LOST: "Create the machine again from its specification",
}
_BLOCKED: Final = 3


@click.command("update")
@click.argument("machine", required=False)
@click.option("--host", metavar="HOST", help="With --all: every machine of HOST.")
@click.option("--all", "everything", is_flag=True, help="With --host: all of its machines.")
@click.option(
    "--parallel",
    type=click.IntRange(1, MOST_PARALLEL),
    default=1,
    show_default=True,
    help="With --all: so many machines at once. At the first that does not complete no more are begun.",
)
@click.option(
    "--skip-blocked",
    is_flag=True,
    help="With --all: update the others where something speaks against some; without it nothing is begun then.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="transfer",
    show_default=True,
    help="transfer: another process takes the machine over; exec: its process becomes another program; reboot: its"
    " guest is suspended (viaduct machine suspend), and goes on in new processes of the host's and its own.",
)
@click.option("--dry-run", is_flag=True, help="Only say what speaks against it.")
@answering
async def update(
    call: Invocation,
    machine: str | None,
    *,
    host: str | None,
    everything: bool,
    parallel: int,
    skip_blocked: bool,
    mode: str,
    dry_run: bool,
) -> Answer:
    """Have MACHINE, or all machines of a host, go on in a process of the installed version, without moving.

    No memory is copied, and devices go on working; the guest stands still for a moment.
    """
    if machine is not None and host is None and not everything and not skip_blocked:
        return await _one(call, machine, mode, dry_run=dry_run)
    if machine is not None or host is None or not everything:
        hint = "Give a MACHINE, or --host HOST with --all"
        raise InvalidInput("invalid-request", "What is to be updated is not clear", hint)
    return await _all(call, host, mode, parallel, skip_blocked=skip_blocked, dry_run=dry_run)


def update_answer(attempt: Attempt) -> Answer:
    """Return an update as a command's answer, with its exit code, and its two lines when it did not complete."""
    code = exit_code(attempt)
    return Answer(update_document(attempt), lambda console: show_update(console, attempt), code, _complaint(attempt))


async def _one(call: Invocation, machine: str, mode: str, *, dry_run: bool) -> Answer:
    configuration = call.configuration()
    if dry_run:
        async with agents_of(configuration) as agents:
            found = resolve(machine, await survey(agents))
            asked = _judged(found, mode, await ask_update(agents, found, mode))
        return replace(update_answer(asked), exit_code=_BLOCKED if asked.blockers else 0)
    order = _order(machine, mode)
    async with open_desk(configuration, drives=True) as desk:
        with LiveProgress(call.err) as progress, interrupts(call, desk.interrupt):
            progress.say(f"asking for {machine}")
            try:
                attempt = await desk.migrate(order, progress.update)
            except Refused as error:
                attempt = refused_order(order, error, time.time())
                return replace(update_answer(attempt), complaint=complaint(error))
    return update_answer(attempt)


async def _all(call: Invocation, host: str, mode: str, parallel: int, *, skip_blocked: bool, dry_run: bool) -> Answer:
    configuration = call.configuration()
    async with agents_of(configuration) as agents:
        agents.require(host)
        machines = sorted((await machines_on(agents, host)).values(), key=lambda one: one.name)
        asked = [_judged(each, mode, await ask_update_of_many(agents, each, mode)) for each in machines]
    if dry_run:
        return _told(host, FleetResult(tuple(asked), ()))
    held, free = sorted_out(asked)
    if held and not skip_blocked:
        return replace(_told(host, FleetResult(held, free)), complaint=_nothing_begun(host, held))
    stopped = False
    async with open_desk(configuration, drives=True) as desk:
        with UpdatesProgress(call.err, len(free)) as progress:

            async def stop() -> str:
                nonlocal stopped
                stopped = True
                return await desk.interrupt()

            async def one(machine: str) -> Attempt:
                order = _order(machine, mode)
                try:
                    return progress.ended(await desk.migrate(order, progress.update))
                except (Refused, InvalidInput) as error:
                    return progress.ended(replace(refused_order(order, error, time.time()), source=host))

            with interrupts(call, stop):
                found = await update_all(free, parallel, one, lambda: not stopped)
    return _told(host, replace(found, ended=(*held, *found.ended)))


def _order(machine: str, mode: str) -> Order:
    return Order(machine, "", asked=Asked(update=mode))


def _judged(machine: MachineStatus, mode: str, found: Candidate) -> Attempt:
    """Return the update as it would be ordered, with what speaks against it; nothing is done."""
    drafted = replace(
        without_row(_order(machine.name, mode), time.time()), machine=machine.machine, source=machine.host
    )
    return with_findings(drafted, found)


def _told(host: str, found: FleetResult) -> Answer:
    blocked = [one for one in found.ended if one.outcome is None and one.blockers]
    code = _BLOCKED if blocked else found.exit_code
    lines = None if found.worst is None else _complaint(found.worst)
    return Answer(updates_document(host, found), lambda console: show_updates(console, host, found), code, lines)


def _nothing_begun(host: str, held: tuple[Attempt, ...]) -> Complaint:
    names = ", ".join(one.name for one in held)
    text = f"Nothing was begun on {host}: {len(held)} of its machines cannot be updated now ({names})"
    hint = "Mend what is told of each, or leave them where they are: --skip-blocked"
    return complain("machines-blocked", text, hint, _BLOCKED)


def _complaint(attempt: Attempt) -> Complaint | None:
    outcome = attempt.outcome
    if outcome is None or outcome is Outcome.COMPLETED:
        return None
    what = f"Update of {attempt.name}{f' on {attempt.source}' if attempt.source else ''}"
    if attempt.error is None or outcome is Outcome.CANCELLED:
        return complain(outcome.value, f"{what} was {outcome.value}", _CLOSING[outcome], exit_code(attempt))
    verb = {"failed": "failed", "unresolved": "is unresolved", "lost": "lost it"}.get(outcome, f"was {outcome.value}")
    hint = attempt.error.hint or _CLOSING[outcome]
    return complain(attempt.error.code, f"{what} {verb}: {attempt.error.message}", hint, exit_code(attempt))
