"""`viaduct list`, `show`, `cancel`, `force` and `tune`: what there is about attempts."""

import click
from rich.console import Console

from orchestrator.attempt import fault_of
from orchestrator.commands.evacuate import cancelled_evacuation, shown_evacuation
from orchestrator.commands.options import DURATION, RATE_LIMIT
from orchestrator.documents.listings import AttemptsDocument, SilentHostDocument
from orchestrator.evacuation.document import evacuation_line
from orchestrator.evacuation.plan import is_evacuation
from orchestrator.limits import rate_wanted
from orchestrator.render.listings import show_attempts, show_evacuations, show_events
from orchestrator.render.quantities import span
from orchestrator.render.summary import show_result
from orchestrator.render.travelling import bandwidth_words
from orchestrator.result import attempt_document, fault_document, one_attempt_document
from orchestrator.site import open_desk
from orchestrator.steering import nothing_to_tune
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.errors import InvalidInput


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Ended ones too.")
@answering
async def list_attempts(call: Invocation, *, everything: bool) -> Answer:
    """List the open attempts and evacuations, newest first."""
    async with open_desk(call.configuration()) as desk:
        found = await desk.attempts(everything=everything)
        evacuations = await desk.evacuations.all(everything=everything)
    attempts = tuple(attempt_document(one) for one in found.attempts)
    silent = (SilentHostDocument(host, fault_document(fault_of(error))) for host, error in found.silent.items())
    lines = tuple(evacuation_line(one) for one in evacuations)
    document = AttemptsDocument("viaduct.attempts.v1", attempts, tuple(silent), lines)

    def show(console: Console) -> None:
        show_attempts(console, document.attempts, document.silent)
        show_evacuations(console, document.evacuations)

    return Answer(document, show)


@click.command("show")
@click.argument("attempt")
@click.option("--events", is_flag=True, help="Every transition, in order.")
@answering
async def show(call: Invocation, attempt: str, *, events: bool) -> Answer:
    """Show ATTEMPT, given by its UUID or the start of it, or an evacuation."""
    if is_evacuation(attempt):
        return await shown_evacuation(call, attempt)
    async with open_desk(call.configuration()) as desk:
        found = await desk.attempt(attempt)
        told = await desk.events(found) if events else None
    document = one_attempt_document(found, told)

    def show_it(console: Console) -> None:
        show_result(console, found)
        if document.events is not None:
            show_events(console, document.events)

    return Answer(document, show_it)


@click.command("cancel")
@click.argument("attempt")
@answering
async def cancel(call: Invocation, attempt: str) -> Answer:
    """Cancel ATTEMPT, refused past the point of no return; or an evacuation, of which nothing more starts then."""
    if is_evacuation(attempt):
        return await cancelled_evacuation(call, attempt)
    async with open_desk(call.configuration()) as desk:
        cancelled = await desk.cancel(await desk.attempt(attempt))

    def show_it(console: Console) -> None:
        state = cancelled.outcome.value if cancelled.outcome else "asked to cancel"
        console.print(f"{cancelled.attempt} of {cancelled.name}: {state}")

    return Answer(one_attempt_document(cancelled), show_it)


@click.command("force")
@click.argument("attempt")
@answering
async def force(call: Invocation, attempt: str) -> Answer:
    """Have ATTEMPT switch over at once, whatever the standstill of its guest."""
    async with open_desk(call.configuration()) as desk:
        forced = await desk.force(await desk.attempt(attempt))

    def show_it(console: Console) -> None:
        console.print(f"{forced.attempt} of {forced.name}: switches over")

    return Answer(one_attempt_document(forced), show_it)


@click.command("tune")
@click.argument("attempt")
@click.option("--downtime-limit", type=DURATION, help="Longest standstill of the guest from now on; at least 1ms.")
@click.option("--max-bandwidth", type=RATE_LIMIT, help="Most bytes a second on the wire from now on, or `unlimited`.")
@answering
async def tune(call: Invocation, attempt: str, downtime_limit: int | None, max_bandwidth: int | None) -> Answer:
    """Change limits of ATTEMPT while it runs; what is left out stays as it is."""
    limit_ms = 0 if downtime_limit is None else downtime_limit // 1_000_000
    if downtime_limit is None and max_bandwidth is None:
        raise nothing_to_tune()
    if (downtime_limit is not None and not limit_ms) or max_bandwidth == 0:
        hint = "Give a downtime limit of at least 1ms and a bandwidth above 0"
        raise InvalidInput("invalid-policy", "A limit of nothing cannot be kept", hint)
    async with open_desk(call.configuration()) as desk:
        found = await desk.attempt(attempt)
        tuned = await desk.tune(found, downtime_limit_ms=limit_ms, max_bandwidth_bytes_per_s=max_bandwidth or 0)

    def show_it(console: Console) -> None:
        given = [f"downtime limit {span(limit_ms)}"] if limit_ms else []
        given += [f"bandwidth {bandwidth_words(rate_wanted(max_bandwidth))}"] if max_bandwidth else []
        console.print(f"{tuned.attempt} of {tuned.name}: {', '.join(given)} from now on")

    return Answer(one_attempt_document(tuned), show_it)
