"""`viaduct recover`: everybody goes on now; with `--fenced HOST`, also without a host that is off for good."""

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from orchestrator.audit_place import audit_place
from orchestrator.recovery.course import act_on, close, go_on, named, plan_without
from orchestrator.recovery.document import recover_document
from orchestrator.recovery.fenced_word import Plan
from orchestrator.recovery.request import Request, require_right
from orchestrator.recovery.steps import Step
from orchestrator.recovery.vouching import (
    may_ask,
    person,
    refusal,
    require_files_gone,
    require_operator,
    require_vouched,
    vouched,
    vouched_gone,
)
from orchestrator.recovery.written_word import WrittenWord
from orchestrator.render.recovery import LiveWords, show_plan, show_recovery
from orchestrator.site import agents_of
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.audit_file import audit_file
from vm_migration.daemon.configuration import Configuration

UNRESOLVED: Final = 6
Written = Callable[[Sequence[Step]], None]


@click.command("recover")
@click.option("--fenced", metavar="HOST", help="Go on without HOST, which is off, or has proven its process gone.")
@click.option("--journal", type=click.Path(path_type=Path), metavar="PATH", help="HOST's journals, mounted here.")
@click.option("--machine", metavar="NAME", help="Only the machine of this name, or UUID.")
@click.option("--may-miss-writes", is_flag=True, help="Start copies that may miss what the guest wrote at HOST.")
@click.option("--also-off", metavar="HOST", multiple=True, help="Another silent host that is off; may be repeated.")
@click.option("--files-gone", is_flag=True, help="The files in which the machine waited are gone for good.")
@click.option("--yes", is_flag=True, help="Vouch for it without being asked.")
@answering
async def recover(
    call: Invocation,
    *,
    fenced: str | None,
    journal: Path | None,
    machine: str | None,
    may_miss_writes: bool,
    also_off: tuple[str, ...],
    files_gone: bool,
    yes: bool,
) -> Answer:
    """Settle what crashes left open; exit code 6 when something stays unresolved."""
    also = tuple(dict.fromkeys(also_off))
    request = Request(fenced, journal, machine, also, may_miss_writes, yes, files_gone=files_gone)
    configuration = call.configuration()
    who = "" if fenced is None else require_operator(configuration.tls_files())
    words = LiveWords(call.err)
    async with agents_of(configuration) as agents:
        require_right(request, agents.hosts)
        if fenced is None:
            machines = await named(agents, request)
            word = await _word_on_files(request)
            with words:
                recovered = await go_on(agents, machines, words.say, word)
        else:
            planning = await plan_without(agents, request, configuration, fenced)
            if planning.plan.acts:
                show_plan(call.err, planning.plan, planning.word)
                await _require_vouched(fenced, yes=yes)
            now = time.time()
            async with _written(configuration, who, vouched(planning.word, now), planning.plan) as written:
                with words:
                    recovered = await act_on(agents, request, planning, words.say, now)
                written(recovered.outcome.steps)
    with words:
        words.say("closes the attempts that nobody drives")
        outcome = await close(configuration, recovered)
    document = recover_document(fenced, outcome)

    def show(console: Console) -> None:
        show_recovery(console, document)

    clean = not outcome.unresolved and all(step.done for step in outcome.steps)
    return Answer(document, show, 0 if clean else UNRESOLVED)


async def _require_vouched(host: str, *, yes: bool) -> None:
    if yes:
        return
    if not may_ask(sys.stdin, sys.stderr):
        raise refusal(f"{host} is off")
    await require_vouched(host)


async def _word_on_files(request: Request) -> str:
    """Return who vouches that the files of the machine are gone in which it waited; empty where that is not asked."""
    if request.machine is None or not request.files_gone:
        return ""
    if not request.yes:
        if not may_ask(sys.stdin, sys.stderr):
            raise refusal(f"the files of {request.machine} are gone")
        await require_files_gone(request.machine)
    return vouched_gone(time.time())


@asynccontextmanager
async def _written(configuration: Configuration, who: str, word: str, plan: Plan) -> AsyncIterator[Written]:
    """Have the word in the audit log before anything is done on it; what is yielded writes down what came of it."""
    if not plan.acts:
        yield lambda _: None
        return
    async with audit_file(audit_place(configuration, os.environ), "viaduct") as file:
        log = WrittenWord(file.write, who, person(), word)
        log.given(plan.steps)
        yield lambda steps: log.done(plan.steps, steps)
