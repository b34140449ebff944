"""`viaduct migrate`: the whole way, in this process or through the daemon."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Unpack

import click
from rich.console import Console

from orchestrator.admission import Order, refused_order
from orchestrator.attempt import EXIT_CODES, Attempt, Outcome
from orchestrator.commands.options import (
    PolicyOptions,
    asked_of,
    measure_option,
    policy_of,
    policy_options,
    settled_by,
)
from orchestrator.commands.preflight import preflight_answer
from orchestrator.desk import Desk
from orchestrator.errors import complaint
from orchestrator.policy import MOST_PRIORITY, require_offered
from orchestrator.render.progress import LiveProgress
from orchestrator.render.summary import show_result
from orchestrator.result import migration_document
from orchestrator.retrying import MOST_RETRIES
from orchestrator.site import open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.complaint import Complaint, complain
from vm_migration.errors import Refused

_CLOSING = {
    Outcome.FAILED: "The machine runs on its source; migrate again",
    Outcome.CANCELLED: "The machine runs on its source",
    Outcome.REFUSED: "Nothing was done; see all of it: viaduct preflight",
    Outcome.UNRESOLVED: "When its agents answer again: viaduct recover",
    Outcome.LOST: "Create the machine again from its specification",
}


@click.command("migrate")
@click.argument("machine")
@click.option("--to", "destination", required=True, metavar="HOST", help="Where to; `any` takes the first that passes.")
@policy_options
@measure_option
@click.option(
    "--priority",
    type=click.IntRange(0, MOST_PRIORITY),
    default=0,
    show_default=True,
    help="Higher goes first in a daemon's queue.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, MOST_RETRIES),
    default=0,
    show_default=True,
    help="How often to try again what failed, each time after a longer wait; with `--to any` elsewhere first.",
)
@click.option("--detach", is_flag=True, help="Return as soon as a daemon has taken it.")
@click.option("--dry-run", is_flag=True, help="Only say whether and how it would go, as `viaduct preflight` does.")
@answering
async def migrate(
    call: Invocation,
    machine: str,
    destination: str,
    *,
    measure_ms: int,
    priority: int,
    retries: int,
    detach: bool,
    dry_run: bool,
    **options: Unpack[PolicyOptions],
) -> Answer:
    """Move MACHINE to another host while it runs."""
    policy = policy_of(options)
    require_offered(policy)
    configuration = call.configuration()
    policy, asked = settled_by(configuration, destination, policy, asked_of(options, measure_ms))
    if dry_run:
        return await preflight_answer(configuration, machine, destination, policy, asked, explain=False)
    order = Order(machine, destination, policy, priority, retries=retries, asked=asked)
    async with open_desk(configuration, drives=True) as desk:
        try:
            attempt = await (desk.submit(order) if detach else _watched(call, desk, order))
        except Refused as error:
            attempt = refused_order(order, error, time.time())
            return replace(result_answer(attempt), complaint=complaint(error))
    return result_answer(attempt)


def result_answer(attempt: Attempt) -> Answer:
    """Return an attempt as a command's answer, with its exit code and its two lines when it did not complete."""

    def show(console: Console) -> None:
        show_result(console, attempt)

    outcome = attempt.outcome
    exit_code = EXIT_CODES[outcome] if outcome is not None else 0
    return Answer(migration_document(attempt), show, exit_code, _complaint(attempt, exit_code))


def _complaint(attempt: Attempt, exit_code: int) -> Complaint | None:
    outcome = attempt.outcome
    if outcome is None or outcome == Outcome.COMPLETED:
        return None
    what = f"Migration of {attempt.name} from {attempt.source or 'its host'} to {attempt.destination}"
    if attempt.error is None or outcome == Outcome.CANCELLED:
        return complain(outcome.value, f"{what} was {outcome.value}", _CLOSING[outcome], exit_code)
    verb = {"failed": "failed", "unresolved": "is unresolved", "lost": "lost it"}.get(outcome, f"was {outcome.value}")
    message = f"{what} {verb}: {attempt.error.message}"
    return complain(attempt.error.code, message, attempt.error.hint or _CLOSING[outcome], exit_code)


async def _watched(call: Invocation, desk: Desk, order: Order) -> Attempt:
    with LiveProgress(call.err) as progress, interrupts(call, desk.interrupt):
        progress.say(f"asking for {order.machine}")
        return await desk.migrate(order, progress.update)


@contextlib.contextmanager
def interrupts(call: Invocation, cancel: Callable[[], Awaitable[str]]) -> Iterator[None]:
    """Turn Ctrl-C into a cancel; past the point of no return the migration goes on and this command waits for it.

    `cancel` returns what is done, for people. Each Ctrl-C says what is done about it; the second changes nothing.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def interrupt() -> None:
        call.err.print(await cancel(), soft_wrap=True, markup=False)

    def interrupted() -> None:
        task = loop.create_task(interrupt(), name="interrupt")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
