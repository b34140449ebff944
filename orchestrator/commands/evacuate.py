"""`viaduct evacuate` and `restore`: all machines of a host, in this process or through the daemon."""

from typing import Unpack

import click
from rich.console import Console

from orchestrator.commands.migrate import interrupts
from orchestrator.commands.options import PolicyOptions, asked_of, measure_option, policy_of, policy_options
from orchestrator.evacuation.desk import follow_view
from orchestrator.evacuation.document import complaint_of, evacuation_document
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import MOST_PARALLEL, USUAL_RETRIES, Kind
from orchestrator.evacuation.view import EvacuationView
from orchestrator.policy import MOST_PRIORITY, require_offered
from orchestrator.render.evacuation import EvacuationProgress, show_evacuation
from orchestrator.retrying import MOST_RETRIES
from orchestrator.site import open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering

_parallel = click.option(
    "--parallel",
    type=click.IntRange(1, MOST_PARALLEL),
    help="So many machines at once, also where HOST and the others are configured for fewer; as configured without it.",
)
_priority = click.option(
    "--priority",
    type=click.IntRange(0, MOST_PRIORITY),
    default=0,
    show_default=True,
    help="Higher goes first in the queue.",
)
_retries = click.option(
    "--retries",
    type=click.IntRange(0, MOST_RETRIES),
    default=USUAL_RETRIES,
    show_default=True,
    help="How often to try again what failed with one machine, elsewhere first.",
)
_detach = click.option("--detach", is_flag=True, help="Return as soon as a daemon has taken it.")


@click.command("evacuate")
@click.argument("host")
@click.option("--to", "to", multiple=True, metavar="HOST", help="A host to choose among, once or more; else any other.")
@_parallel
@policy_options
@measure_option
@_priority
@_retries
@_detach
@answering
async def evacuate(
    call: Invocation,
    host: str,
    to: tuple[str, ...],
    *,
    parallel: int | None,
    measure_ms: int,
    priority: int,
    retries: int,
    detach: bool,
    **options: Unpack[PolicyOptions],
) -> Answer:
    """Move every machine of HOST elsewhere, each as `viaduct migrate` would; HOST is in maintenance from then on.

    Exits as the worst of its machines did. Its identifier is for `cancel`, `show` and `watch`; Ctrl-C cancels.
    """
    order = EvacuationOrder(
        kind=Kind.EVACUATE,
        host=host,
        to=tuple(dict.fromkeys(to)),
        parallel=parallel or 0,
        policy=policy_of(options),
        asked=asked_of(options, measure_ms),
        priority=priority,
        retries=retries,
    )
    return await _ordered(call, order, detach=detach)


@click.command("restore")
@click.argument("host")
@_parallel
@policy_options
@measure_option
@_priority
@_retries
@_detach
@answering
async def restore(
    call: Invocation,
    host: str,
    *,
    parallel: int | None,
    measure_ms: int,
    priority: int,
    retries: int,
    detach: bool,
    **options: Unpack[PolicyOptions],
) -> Answer:
    """Bring back to HOST what left it in its last evacuation, from wherever it is now; HOST leaves maintenance.

    Exits as `evacuate` does.
    """
    order = EvacuationOrder(
        kind=Kind.RESTORE,
        host=host,
        parallel=parallel or 0,
        policy=policy_of(options),
        asked=asked_of(options, measure_ms),
        priority=priority,
        retries=retries,
    )
    return await _ordered(call, order, detach=detach)


async def watched_evacuation(call: Invocation, start: str) -> Answer:
    """Watch an evacuation to its end."""
    async with open_desk(call.configuration()) as desk:
        found = await desk.evacuations.find(start)
        with EvacuationProgress(call.err) as progress:
            last = await follow_view(desk.evacuations.watch(found), progress.update)
    return evacuation_answer(last or found)


async def shown_evacuation(call: Invocation, start: str) -> Answer:
    """Show an evacuation as it stands."""
    async with open_desk(call.configuration()) as desk:
        found = await desk.evacuations.find(start)
    return _told(found)


async def cancelled_evacuation(call: Invocation, start: str) -> Answer:
    """Cancel an evacuation."""
    async with open_desk(call.configuration()) as desk:
        cancelled = await desk.evacuations.cancel(await desk.evacuations.find(start))
    return _told(cancelled)


def evacuation_answer(view: EvacuationView) -> Answer:
    """Return an evacuation as a command's answer, with its exit code and its two lines when it did not complete."""

    def show(console: Console) -> None:
        show_evacuation(console, view)

    return Answer(evacuation_document(view), show, view.exit_code, complaint_of(view))


def _told(view: EvacuationView) -> Answer:
    """Return an evacuation as the answer of a command that did what it was asked for, however that ended."""
    return Answer(evacuation_document(view), evacuation_answer(view).show)


async def _ordered(call: Invocation, order: EvacuationOrder, *, detach: bool) -> Answer:
    require_offered(order.policy)
    async with open_desk(call.configuration(), drives=True) as desk:
        if detach:
            return _told(await desk.evacuations.submit(order))
        with EvacuationProgress(call.err) as progress, interrupts(call, desk.evacuations.interrupt):
            view = await desk.evacuations.run(order, progress.update)
    return evacuation_answer(view)
