"""`viaduct preflight`: every blocker and warning at once, and what a migration would take."""

import asyncio
from collections import Counter
from typing import Unpack

import click
from rich.console import Console

from orchestrator.agents import Agents
from orchestrator.attempt import Asked, Notice
from orchestrator.commands.options import PolicyOptions, asked_of, measure_option, policy_of, policy_options
from orchestrator.inventory import resolve, survey
from orchestrator.maintenance import Choice, choice_now, reasons
from orchestrator.policy import MigrationPolicy, require_offered
from orchestrator.preflight import ANY, Preflight
from orchestrator.preflight import preflight as ask_both
from orchestrator.preflight_document import preflight_document
from orchestrator.render.summary import show_preflight
from orchestrator.site import agents_of, open_desk, open_store, store_is_there
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.complaint import Complaint, complain
from vm_migration.daemon.configuration import Configuration


@click.command("preflight")
@click.argument("machine")
@click.option("--to", "destination", required=True, metavar="HOST", help="Where to; `any` asks every other host.")
@click.option("--explain", is_flag=True, help="Tell of every host, and how one is chosen.")
@measure_option
@policy_options
@answering
async def preflight(
    call: Invocation,
    machine: str,
    destination: str,
    measure_ms: int,
    *,
    explain: bool,
    **options: Unpack[PolicyOptions],
) -> Answer:
    """Say whether MACHINE can move, why not, and how long that takes under each profile. Nothing is changed."""
    policy = policy_of(options)
    require_offered(policy)
    asked = asked_of(options, measure_ms)
    return await preflight_answer(call.configuration(), machine, destination, policy, asked, explain=explain)


async def preflight_answer(
    configuration: Configuration,
    machine: str,
    destination: str,
    policy: MigrationPolicy,
    asked: Asked,
    *,
    explain: bool,
) -> Answer:
    """Ask both sides and return the answer; exit code 3 when no destination passes."""
    async with agents_of(configuration) as agents:
        if destination != ANY:
            agents.require(destination)
        status, choice = resolve(machine, await survey(agents)), Choice({}, {})
        if destination == ANY:
            choice = await _choice(configuration, agents)
        found = await ask_both(
            agents,
            status,
            destination,
            policy,
            measure_ms=asked.measure_ms,
            by_host=asked.by_host,
            excluded=choice.excluded,
            taking=choice.taking,
        )

    def show(console: Console) -> None:
        show_preflight(console, found, explain=explain)

    passes = found.chosen is not None
    return Answer(preflight_document(found), show, 0 if passes else 3, None if passes else _complaint(found))


async def _choice(configuration: Configuration, agents: Agents) -> Choice:
    """Return what to know of a choice, of the daemon where there is one, else of the store; none is made for it.

    What is on its way and has not begun is known to the store alone.
    """
    if configuration.site.orchestrators:
        async with open_desk(configuration) as desk:
            kept = await desk.evacuations.maintenance()
            known = await desk.attempts(everything=False, hosts=False)
        return Choice(reasons(kept), Counter(one.destination for one in known.attempts))
    if not store_is_there(configuration):
        return Choice({}, {})

    def read() -> Choice:
        with open_store(configuration) as store:
            return choice_now(store, agents.hosts)

    return await asyncio.to_thread(read)


def _complaint(found: Preflight) -> Complaint:
    told = "; ".join(f"{one.host}: {', '.join(_codes(one.blockers))}" for one in found.candidates)
    hint = "Remove what blocks it, or choose another host"
    return complain("blocked", f"Machine {found.machine.name} cannot move ({told})", hint, 3)


def _codes(blockers: tuple[Notice, ...]) -> list[str]:
    return list(dict.fromkeys(one.code for one in blockers))
