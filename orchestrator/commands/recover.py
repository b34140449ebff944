"""`viaduct recover`: everybody goes on now; with `--fenced HOST`, also without a host that is off for good."""

import sys
import time
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from orchestrator.recovery.course import act_on, close, go_on, plan_without
from orchestrator.recovery.document import recover_document
from orchestrator.recovery.request import Request, require_right
from orchestrator.recovery.vouching import may_ask, refusal, require_operator, require_vouched
from orchestrator.render.recovery import LiveWords, show_plan, show_recovery
from orchestrator.site import agents_of
from vm_migration.command_line.invocation import Answer, Invocation, answering

UNRESOLVED: Final = 6


@click.command("recover")
@click.option("--fenced", metavar="HOST", help="Go on without HOST, which is off, or has proven its process gone.")
@click.option("--journal", type=click.Path(path_type=Path), metavar="PATH", help="HOST's journals, mounted here.")
@click.option("--machine", metavar="NAME", help="Only the machine of this name, or UUID.")
@click.option("--may-miss-writes", is_flag=True, help="Start copies that may miss what the guest wrote at HOST.")
@click.option("--also-off", metavar="HOST", multiple=True, help="Another silent host that is off; may be repeated.")
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
    yes: bool,
) -> Answer:
    """Settle what crashes left open; exit code 6 when something stays unresolved."""
    request = Request(fenced, journal, machine, tuple(dict.fromkeys(also_off)), may_miss_writes, yes)
    configuration = call.configuration()
    if fenced is not None:
        require_operator(configuration.tls_files())
    words = LiveWords(call.err)
    async with agents_of(configuration) as agents:
        require_right(request, agents.hosts)
        if fenced is None:
            with words:
                recovered = await go_on(agents, request, words.say)
        else:
            planning = await plan_without(agents, request, configuration, fenced)
            if planning.plan.acts:
                show_plan(call.err, planning.plan, planning.word)
                await _require_vouched(fenced, yes=yes)
            with words:
                recovered = await act_on(agents, request, planning, words.say, time.time())
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
        raise refusal(host)
    await require_vouched(host)
